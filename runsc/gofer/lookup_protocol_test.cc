// The protocol's lookups of several names, descriptors that travel in numbers, and what a listing claims.
#include <sys/resource.h>
#include <sys/stat.h>

#include "fs/hostfs/wire.h"
#include "runsc/gofer/gofer_for_test.h"

namespace moat {
namespace {

size_t OpenDescriptors() {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
}

class LookUpProtocolTest : public testing::Test {
 protected:
  LookUpProtocolTest() : gofer_(Mounts(tree_)) { root_ = client().Attach(0).value().handle; }
  static std::vector<GoferMount> Mounts(const TempTree& tree) {
    std::vector<GoferMount> mounts;
    mounts.push_back(MountOf(tree.path(), /*read_only=*/true));
    return mounts;
  }
  GoferClient& client() { return gofer_.client(); }
  Result<std::vector<GoferClient::Found>> LookUp(gofer::Handle dir, std::vector<std::string_view> names,
                                                 uint32_t flags) {
    return client().LookUp(dir, names, flags);
  }

  TempTree tree_;
  GoferForTest gofer_;
  gofer::Handle root_ = 0;
};

TEST_F(LookUpProtocolTest, EachNameHasItsOwnAnswer) {
  tree_.Write("one", "1");
  tree_.Write("three", "333");
  std::filesystem::create_directory(tree_ / "dir");
  std::filesystem::create_symlink("three", tree_ / "link");
  ASSERT_EQ(0, mkfifo((tree_ / "fifo").c_str(), 0644));
  std::string long_name(255, 'x');
  auto found =
      LookUp(root_, {"one", "none", "dir", "..", "link", "a/b", "fifo", long_name, "", "three"}, gofer::kDonate)
          .value();
  ASSERT_EQ(10u, found.size());
  EXPECT_EQ(1u, found[0].attr.size);
  EXPECT_EQ(kENOENT, found[1].error);
  EXPECT_TRUE(S_ISDIR(found[2].attr.mode));
  EXPECT_EQ(kEINVAL, found[3].error);
  EXPECT_EQ("three", found[4].target);
  EXPECT_EQ(kEINVAL, found[5].error);
  EXPECT_TRUE(S_ISFIFO(found[6].attr.mode));
  EXPECT_EQ(kENOENT, found[7].error);
  EXPECT_EQ(kEINVAL, found[8].error);
  // Descriptors of regular files only, each of its own file.
  for (size_t i : {1, 2, 3, 4, 5, 6, 7, 8}) EXPECT_FALSE(found[i].fd.valid()) << i;
  char buffer[8];
  EXPECT_EQ(1, pread(found[0].fd.get(), buffer, sizeof buffer, 0));
  EXPECT_EQ(3, pread(found[9].fd.get(), buffer, sizeof buffer, 0));
  EXPECT_EQ(-1, pwrite(found[9].fd.get(), "x", 1, 0));
  EXPECT_EQ(3u, client().GetAttr(found[9].handle)->size);
  EXPECT_FALSE(LookUp(root_, {"one"}, 0).value()[0].fd.valid());
}

TEST_F(LookUpProtocolTest, WhatCannotBeAnswered) {
  tree_.Write("file", "");
  gofer::Handle file = LookUp(root_, {"file"}, 0).value()[0].handle;
  EXPECT_EQ(kENOTDIR, LookUp(file, {"x"}, 0).error());
  EXPECT_EQ(kEBADF, LookUp(12345, {"x"}, 0).error());
  EXPECT_EQ(kEINVAL, LookUp(root_, {}, 0).error());
  EXPECT_EQ(kEINVAL, LookUp(root_, std::vector<std::string_view>(gofer::kMaxLookUp + 1, "x"), 0).error());
  EXPECT_FALSE(client().dead());
}

TEST_F(LookUpProtocolTest, AReplyThatWouldBeTooLongIsShorter) {
  std::vector<std::string> names;
  for (uint32_t i = 0; i < gofer::kMaxLookUp; ++i) {
    names.push_back("link" + std::to_string(i));
    std::filesystem::create_symlink(std::string(4000, 't'), tree_ / names.back());
  }
  const size_t before = OpenDescriptors();
  auto found = LookUp(root_, {names.begin(), names.end()}, 0).value();
  EXPECT_GE(found.size(), 10u);
  EXPECT_LT(found.size(), names.size());
  for (const auto& f : found) EXPECT_EQ(4000u, f.target.size());
  // The gofer, in this process, has kept nothing of those that it did not answer.
  EXPECT_EQ(before + found.size(), OpenDescriptors());
}

// More than one thread looks for them.
TEST_F(LookUpProtocolTest, ManyNamesOfAllKinds) {
  std::filesystem::create_directory(tree_ / "dir");
  std::vector<std::string> names;
  for (uint32_t i = 0; i < gofer::kMaxLookUp; ++i) {
    names.push_back("name" + std::to_string(i));
    const std::string path = tree_ / ("dir/" + names.back());
    if (i % 4 == 0) std::filesystem::create_directories(path + "/" + names.back());
    if (i % 4 == 1) std::filesystem::create_symlink("to " + names.back(), path);
    if (i % 4 == 2) tree_.Write("dir/" + names.back(), std::string(i, 'x'));
  }
  const gofer::Handle dir = LookUp(root_, {"dir"}, 0).value()[0].handle;
  for (int round = 0; round < 50; ++round) {
    auto found = LookUp(dir, {names.begin(), names.end()}, gofer::kDonate | gofer::kList).value();
    ASSERT_EQ(names.size(), found.size());
    for (uint32_t i = 0; i < found.size(); ++i) {
      const GoferClient::Found& f = found[i];
      ASSERT_EQ(i % 4 == 3 ? kENOENT : Errno::kOK, f.error) << i;
      ASSERT_EQ(i % 4 == 1 ? "to " + names[i] : "", f.target) << i;
      ASSERT_EQ(i % 4 == 2, f.fd.valid()) << i;
      if (i % 4 == 2) {
        ASSERT_EQ(i, f.attr.size);
        ASSERT_EQ(i, lseek(f.fd.get(), 0, SEEK_END));
      }
      ASSERT_EQ(i % 4 == 0 ? 3u : 0u, f.listing.entries.size()) << i;
      for (const auto& e : f.listing.entries) ASSERT_TRUE(e.name[0] == '.' || e.name == names[i]);
      client().Forget(f.handle);
    }
  }
}

TEST_F(LookUpProtocolTest, ALongBatchComesWithAllItsDescriptors) {
  std::vector<std::string> names;
  for (uint32_t i = 0; i < gofer::kMaxLookUp; ++i) {
    names.push_back("file" + std::to_string(i));
    tree_.Write(names.back(), names.back());
  }
  auto found = LookUp(root_, {names.begin(), names.end()}, gofer::kDonate).value();
  ASSERT_EQ(names.size(), found.size());
  for (size_t i = 0; i < found.size(); ++i) {
    char buffer[20];
    ssize_t n = pread(found[i].fd.get(), buffer, sizeof buffer, 0);
    EXPECT_EQ(names[i], std::string(buffer, n));
  }
}

TEST_F(LookUpProtocolTest, ShortDirectoriesComeWithTheirListing) {
  std::filesystem::create_directories(tree_ / "short/sub");
  tree_.Write("short/file", "");
  std::filesystem::create_directory(tree_ / "empty");
  std::filesystem::create_directory(tree_ / "long");
  for (int i = 0; i < 200; ++i) tree_.Write("long/" + std::to_string(i), "");
  tree_.Write("file", "");
  auto found = LookUp(root_, {"long", "short", "file", "empty"}, gofer::kList).value();
  EXPECT_FALSE(found[0].listing.at_end);
  EXPECT_TRUE(found[1].listing.at_end);
  EXPECT_TRUE(found[1].listing.exact);
  EXPECT_EQ(4u, found[1].listing.entries.size());
  EXPECT_FALSE(found[2].listing.at_end);
  EXPECT_EQ(2u, found[3].listing.entries.size());
  auto asked = client().Readdir(found[1].handle, 0).value();
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(asked.entries[i].name, found[1].listing.entries[i].name);
    EXPECT_EQ(asked.entries[i].ino, found[1].listing.entries[i].ino);
    EXPECT_EQ(asked.entries[i].next, found[1].listing.entries[i].next);
    EXPECT_EQ(asked.entries[i].type, found[1].listing.entries[i].type);
  }
  EXPECT_FALSE(LookUp(root_, {"short"}, 0).value()[0].listing.at_end);
}

TEST_F(LookUpProtocolTest, ListingsTakeNoRoomFromRecords) {
  std::vector<std::string> names;
  for (uint32_t i = 0; i < gofer::kMaxLookUp; ++i) {
    names.push_back("dir" + std::to_string(i));
    std::filesystem::create_directory(tree_ / names.back());
    for (int k = 0; k < 60; ++k) tree_.Write(names.back() + "/some-name-" + std::to_string(k), "");
  }
  auto found = LookUp(root_, {names.begin(), names.end()}, gofer::kList).value();
  ASSERT_EQ(names.size(), found.size());
  EXPECT_TRUE(found.front().listing.at_end);
  EXPECT_FALSE(found.back().listing.at_end);
}

TEST_F(LookUpProtocolTest, AListingSaysWhetherItTellsAll) {
  tree_.Write("File", "");
  tree_.Write("fILE", "");  // no sign of folding: it is listed itself
  tree_.Write("\xc3\xa4", "");
  size_t before = OpenDescriptors();
  auto listing = client().Readdir(root_, 0).value();
  EXPECT_TRUE(listing.at_end);
  EXPECT_TRUE(listing.exact);
  EXPECT_EQ(5u, listing.entries.size());
  EXPECT_EQ(before, OpenDescriptors());  // the gofer, in this process, keeps none
}

TEST(LookUpProtocol, AListingOfNothingButForeignLettersIsDoubtful) {
  TempTree tree;
  tree.Write("\xc3\xa4", "");
  std::vector<GoferMount> mounts;
  mounts.push_back(MountOf(tree.path()));
  mounts.push_back(MountOf("/proc/self/ns"));
  GoferForTest gofer(std::move(mounts));
  EXPECT_FALSE(gofer.client().Readdir(gofer.client().Attach(0)->handle, 0)->exact);
  // proc makes directories of thread ids that it does not list.
  EXPECT_FALSE(gofer.client().Readdir(gofer.client().Attach(1)->handle, 0)->exact);
}

class WireTest : public testing::Test {
 protected:
  WireTest() {
    int ends[2];
    EXPECT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
    a_.Reset(ends[0]);
    b_.Reset(ends[1]);
    for (int i = 0; i < 10; ++i) fds_.emplace_back(dup(ends[0]));
  }
  void Send() {
    iovec out = {const_cast<char*>("x"), 1};
    std::vector<int> numbers;
    for (const ScopedFd& fd : fds_) numbers.push_back(fd.get());
    ASSERT_TRUE(gofer::SendPacket(a_.get(), std::span(&out, 1), numbers).ok());
  }
  Result<size_t> Receive(size_t max, gofer::ReceivedFds& received) {
    char byte;
    iovec in = {&byte, 1};
    return gofer::ReceivePacket(b_.get(), std::span(&in, 1), max, received);
  }
  ScopedFd a_, b_;
  std::vector<ScopedFd> fds_;
};

TEST_F(WireTest, AsManyDescriptorsAsWereAgreed) {
  size_t before = OpenDescriptors();
  gofer::ReceivedFds received;
  Send();
  EXPECT_EQ(1u, Receive(10, received).value());
  EXPECT_EQ(10u, received.fds.size());
  Send();
  EXPECT_EQ(kEPROTO, Receive(9, received).error());
  EXPECT_TRUE(received.fds.empty());
  Send();
  EXPECT_EQ(kEPROTO, Receive(0, received).error());
  EXPECT_EQ(before, OpenDescriptors());
}

TEST_F(WireTest, ATableThatIsFullLosesAllOfThem) {
  size_t before = OpenDescriptors();
  rlimit old;
  ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &old));
  Send();
  ScopedFd next(dup(0));
  rlimit tight = {static_cast<rlim_t>(next.get()) + 4, old.rlim_max};
  next.Reset();
  ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &tight));
  gofer::ReceivedFds received;
  Result<size_t> n = Receive(10, received);
  ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
  EXPECT_EQ(1u, n.value_or(0));
  EXPECT_TRUE(received.lost);
  EXPECT_TRUE(received.fds.empty());
  EXPECT_EQ(before, OpenDescriptors());
}

}  // namespace
}  // namespace moat
