#include "sentry/mm/committed.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <random>

#include "platform/base/scoped_fd.h"

namespace moat {
namespace {

constexpr uint64_t kPage = 4096;

// A file of which some pages have memory.
class CommittedTest : public testing::Test {
 protected:
  CommittedTest() : fd_(memfd_create("committed", MFD_CLOEXEC)) { EXPECT_EQ(ftruncate(fd_.get(), 1 << 30), 0); }
  void Commit(uint64_t first, uint64_t pages) {
    for (uint64_t page = first; page < first + pages; ++page)
      EXPECT_EQ(pwrite(fd_.get(), "x", 1, static_cast<off_t>(page * kPage)), 1);
  }
  static FileRange Pages(uint64_t first, uint64_t pages) { return {first * kPage, (first + pages) * kPage}; }
  uint64_t CountPages(std::vector<FileRange> ranges, int probes = 1000) {
    return CountCommitted(fd_.get(), std::move(ranges), probes) / kPage;
  }
  ScopedFd fd_;
};

TEST_F(CommittedTest, CountsWhatIsThere) {
  Commit(10, 5);
  Commit(20, 1);
  EXPECT_EQ(CountPages({}), 0u);
  EXPECT_EQ(CountPages({Pages(0, 100)}), 6u);
  EXPECT_EQ(CountPages({Pages(12, 10)}), 4u);
  EXPECT_EQ(CountPages({Pages(15, 5)}), 0u);
  EXPECT_EQ(CountPages({Pages(20, 1), Pages(10, 2), Pages(13, 4)}), 5u);  // in any order
  EXPECT_EQ(CountPages({Pages(10, 5), Pages(10, 5)}), 10u);               // each for itself
  EXPECT_EQ(CountPages({Pages(0, 100), Pages(11, 1), Pages(50000, 9)}), 7u);
}

TEST_F(CommittedTest, NeighboursAreOneQuestion) {
  Commit(0, 4096);
  std::vector<FileRange> ranges;
  for (uint64_t i = 0; i < 64; ++i) ranges.push_back(Pages(i * 64 + 1, 63));
  EXPECT_EQ(CountPages(ranges, 1), 64u * 63);
}

TEST_F(CommittedTest, AsOneByOne) {
  std::mt19937 random(1);
  for (int i = 0; i < 100; ++i) Commit(random() % 5000, random() % 40);
  for (int round = 0; round < 50; ++round) {
    std::vector<FileRange> ranges;
    uint64_t expected = 0;
    for (int i = 0; i < 20; ++i) {
      ranges.push_back(Pages(random() % 5000, 1 + random() % 100));
      expected += CountPages({ranges.back()});
    }
    EXPECT_EQ(CountPages(ranges), expected);
  }
}

}  // namespace
}  // namespace moat
