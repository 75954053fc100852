#include "fs/hostfs/directory_scan.h"

#include <dirent.h>
#include <gtest/gtest.h>

namespace moat {
namespace {

std::shared_ptr<const DirectoryScan::Listing> MakeListing(
    std::initializer_list<std::pair<std::string, uint8_t>> names) {
  auto listing = std::make_shared<DirectoryScan::Listing>();
  for (const auto& [name, type] : names) {
    int64_t next = static_cast<int64_t>(listing->size()) + 1;
    listing->push_back({name, static_cast<uint64_t>(next), next, 0, 0, type});
  }
  return listing;
}

std::shared_ptr<const DirectoryScan::Listing> Files(int n) {
  auto listing = std::make_shared<DirectoryScan::Listing>();
  // Neither order is the other's.
  for (int i = 0; i < n; ++i) {
    listing->push_back({"f" + std::to_string(1000 + i * 37 % n), static_cast<uint64_t>(i), i + 1, 0, 0, DT_REG});
  }
  return listing;
}

bool NothingKnown(const GoferClient::Entry&) { return false; }

class DirectoryScanTest : public testing::Test {
 protected:
  // What is asked for ahead, by names; the answers are kept.
  std::string Ahead(DirectoryScan& scan, std::string_view name) {
    DirectoryScan::Step step = scan.Next(name, NothingKnown);
    if (step.missing) return "missing";
    if (step.answer) return "answer";
    std::string out;
    DirectoryScan::Answers answers;
    for (uint32_t entry : step.ahead) {
      out += (*scan.listing())[entry].name + " ";
      answers.try_emplace(entry);
    }
    scan.Keep(answers);
    return out;
  }
  ReadAheadPolicy policy_;
};

TEST_F(DirectoryScanTest, TheWindowDoublesInTheOrderOfTheListing) {
  DirectoryScan scan(Files(200), true, policy_);
  std::vector<size_t> batches;
  for (const auto& e : *scan.listing()) {
    std::string ahead = Ahead(scan, e.name);
    if (ahead != "answer") batches.push_back(1 + std::count(ahead.begin(), ahead.end(), ' '));
  }
  EXPECT_EQ((std::vector<size_t>{4, 8, 16, 32, 64, 64, 12}), batches);
  EXPECT_EQ(ReadAheadPolicy::kMaxWindow, policy_.first_window());
}

TEST_F(DirectoryScanTest, TheAlphabetIsAnOrderToo) {
  DirectoryScan scan(Files(200), true, policy_);
  size_t batches = 0;
  for (int i = 0; i < 200; ++i) {
    if (Ahead(scan, "f" + std::to_string(1000 + i)) != "answer") ++batches;
  }
  EXPECT_LE(batches, 30u);
}

TEST_F(DirectoryScanTest, LookupsWithoutOrderAskForOneName) {
  DirectoryScan scan(Files(200), true, policy_);
  EXPECT_EQ("", Ahead(scan, "f1100"));
  EXPECT_EQ("", Ahead(scan, "f1003"));
  EXPECT_EQ("", Ahead(scan, "f1166"));
}

TEST_F(DirectoryScanTest, WhoLooksUpDirectoriesOnlyIsAskedForDirectoriesOnly) {
  DirectoryScan scan(MakeListing({{".", DT_DIR},
                                  {"a", DT_REG},
                                  {"d", DT_DIR},
                                  {"b", DT_REG},
                                  {"e", DT_DIR},
                                  {"..", DT_DIR},
                                  {"c", DT_LNK},
                                  {"f", DT_DIR}}),
                     true, policy_);
  EXPECT_EQ("e f ", Ahead(scan, "d"));
  EXPECT_EQ("answer", Ahead(scan, "e"));
  EXPECT_EQ("", Ahead(scan, "a"));
}

TEST_F(DirectoryScanTest, WhatIsInUseIsNotAskedFor) {
  DirectoryScan scan(MakeListing({{"a", DT_REG}, {"b", DT_REG}, {"c", DT_REG}}), true, policy_);
  DirectoryScan::Step step = scan.Next("a", [](const GoferClient::Entry& e) { return e.name == "b"; });
  EXPECT_EQ(std::vector<uint32_t>{2}, step.ahead);
}

TEST_F(DirectoryScanTest, OnlyAnExactListingSaysWhatIsMissing) {
  DirectoryScan exact(Files(20), true, policy_), other(Files(20), false, policy_);
  EXPECT_TRUE(exact.IsMissing("g"));
  EXPECT_FALSE(exact.IsMissing("f1003"));
  EXPECT_EQ("missing", Ahead(exact, "g"));
  EXPECT_FALSE(other.IsMissing("g"));
  EXPECT_EQ("", Ahead(other, "g"));
}

TEST_F(DirectoryScanTest, AChangedNameIsAskedForAlone) {
  DirectoryScan scan(MakeListing({{"a", DT_REG}, {"b", DT_REG}, {"c", DT_REG}, {"d", DT_REG}}), true, policy_);
  EXPECT_EQ("b c d ", Ahead(scan, "a"));
  DirectoryScan::Answers stale;
  EXPECT_TRUE(scan.Changed("b", stale));
  EXPECT_TRUE(scan.Changed("g", stale));
  EXPECT_EQ(1u, stale.size());
  EXPECT_EQ("", Ahead(scan, "b"));
  EXPECT_EQ("", Ahead(scan, "g"));
  EXPECT_FALSE(scan.IsMissing("g"));
  EXPECT_EQ("answer", Ahead(scan, "c"));
  for (size_t i = 2; i < DirectoryScan::kMaxChanged; ++i) {
    ASSERT_TRUE(scan.Changed("x" + std::to_string(i), stale));
  }
  EXPECT_FALSE(scan.Changed("one more", stale));
}

TEST_F(DirectoryScanTest, AnswersOnTheirWayDuringAChangeAreGivenBack) {
  DirectoryScan scan(MakeListing({{"a", DT_REG}, {"b", DT_REG}, {"c", DT_REG}}), true, policy_);
  DirectoryScan::Step step = scan.Next("a", NothingKnown);
  DirectoryScan::Answers answers, stale;
  for (uint32_t entry : step.ahead) answers.try_emplace(entry);
  EXPECT_TRUE(scan.Changed("b", stale));
  answers[2].found.error = kENOENT;
  scan.Keep(answers);
  EXPECT_EQ(2u, answers.size());
  EXPECT_TRUE(scan.Drop().empty());
}

TEST_F(DirectoryScanTest, WhatNobodyTakesMakesTheNextWindowSmaller) {
  for (int i = 0; i < 5; ++i) policy_.BatchUsed();
  EXPECT_EQ(64u, policy_.first_window());
  DirectoryScan scan(Files(200), true, policy_);
  Ahead(scan, (*scan.listing())[0].name);
  EXPECT_EQ(63u, scan.Drop().size());
  EXPECT_EQ(32u, policy_.first_window());
}

TEST(ReadAheadPolicy, DescriptorsComeWhereFilesAreRead) {
  ReadAheadPolicy policy;
  EXPECT_EQ(0u, policy.Flags(4));
  for (int i = 0; i < 8; ++i) {
    policy.files.Seen();
    policy.files.Used();
  }
  EXPECT_EQ(gofer::kDonate, policy.Flags(4));
  for (size_t i = 0; i < ReadAheadPolicy::kMaxWaitingFds; ++i) policy.FdWaits();
  EXPECT_EQ(0u, policy.Flags(4));
  for (size_t i = 0; i < ReadAheadPolicy::kMaxWaitingFds; ++i) policy.FdTaken();
  EXPECT_EQ(gofer::kDonate, policy.Flags(4));
  for (int i = 0; i < 200; ++i) policy.files.Seen();
  EXPECT_EQ(0u, policy.Flags(4));
}

}  // namespace
}  // namespace moat
