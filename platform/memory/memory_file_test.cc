#include "platform/memory/memory_file.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cstring>
#include <map>
#include <random>

#include "platform/memory/backing.h"
#include "platform/memory/copy_epoch.h"
#include "platform/memory/safe_copy.h"
#include "platform/usermem/guest_memory.h"

namespace moat {
namespace {

class MemoryFileTest : public testing::Test {
 protected:
  MemoryFileTest() {
    auto file = MemoryFile::Create(ScopedFd(memfd_create("test", MFD_ALLOW_SEALING | MFD_CLOEXEC)), 0);
    EXPECT_TRUE(file.ok());
    file_ = std::move(*file);
  }
  uint64_t Committed() {
    struct stat st;
    fstat(file_->fd(), &st);
    return static_cast<uint64_t>(st.st_blocks) * 512;
  }
  std::unique_ptr<MemoryFile> file_;
};

TEST_F(MemoryFileTest, MemoryIsSparseAndZero) {
  FileRange r = *file_->Allocate(uint64_t{1} << 40, MemoryKind::kAnonymous);
  EXPECT_EQ(Committed(), 0u);
  std::byte* p = *file_->Pointer(r.start + (uint64_t{1} << 39));
  EXPECT_EQ(*p, std::byte{0});
  *p = std::byte{7};
  EXPECT_EQ(Committed(), kPageSize);
  EXPECT_EQ(file_->Usage(MemoryKind::kAnonymous), uint64_t{1} << 40);
  file_->Unref(r);
  EXPECT_EQ(file_->Usage(MemoryKind::kAnonymous), 0u);
}

TEST_F(MemoryFileTest, WhatIsOverwrittenNeedsNoNewPages) {
  const auto overwrite = [&](uint64_t pages) {
    const FileRange r = *file_->AllocateToOverwrite(pages * kPageSize, MemoryKind::kAnonymous);
    memset(*file_->Pointer(r.start), 0xab, r.length());
    return r;
  };
  const FileRange first = overwrite(8);
  file_->AddRef({first.start, first.start + kPageSize});
  file_->Unref(first);
  EXPECT_EQ(Committed(), 8 * kPageSize);
  EXPECT_EQ(file_->Usage(MemoryKind::kAnonymous), kPageSize);
  // The seven pages that nobody refers to, a piece at a time; then a new one.
  const FileRange three = overwrite(3), four = overwrite(4), more = overwrite(1);
  EXPECT_EQ(three.start, first.start + kPageSize);
  EXPECT_EQ(four.start, three.end);
  EXPECT_GE(more.start, first.end);
  EXPECT_EQ(Committed(), 9 * kPageSize);
  // Whoever wants zeros gets them.
  file_->Unref(four);
  const FileRange zeros = *file_->Allocate(4 * kPageSize, MemoryKind::kAnonymous);
  for (uint64_t i = 0; i < zeros.length(); ++i) ASSERT_EQ((*file_->Pointer(zeros.start))[i], std::byte{0});
  file_->Unref(zeros);
  file_->Unref({first.start, first.start + kPageSize});
  file_->Unref(three);
  file_->Unref(more);
  EXPECT_EQ(Committed(), 9 * kPageSize);
  file_->Trim();
  EXPECT_EQ(Committed(), 0u);
}

TEST_F(MemoryFileTest, LittleIsKeptToBeOverwritten) {
  std::vector<FileRange> ranges;
  for (uint64_t bytes = 0; bytes < 2 * MemoryFile::kRecycledLimit; bytes += MemoryFile::kMaxRecycled) {
    ranges.push_back(*file_->AllocateToOverwrite(MemoryFile::kMaxRecycled, MemoryKind::kAnonymous));
    memset(*file_->Pointer(ranges.back().start), 1, MemoryFile::kMaxRecycled);
  }
  const FileRange large = *file_->AllocateToOverwrite(MemoryFile::kMaxRecycled + kPageSize, MemoryKind::kAnonymous);
  memset(*file_->Pointer(large.start), 1, large.length());
  for (const FileRange& r : ranges) file_->Unref(r);
  file_->Unref(large);
  EXPECT_EQ(Committed(), MemoryFile::kRecycledLimit);
  file_->Trim();
  EXPECT_EQ(Committed(), 0u);
}

TEST_F(MemoryFileTest, LastReferenceGivesMemoryBackAndReuseReadsZero) {
  FileRange r = *file_->Allocate(4 * kPageSize, MemoryKind::kAnonymous);
  memset(*file_->Pointer(r.start), 0xab, 4 * kPageSize);
  file_->AddRef({r.start + kPageSize, r.end});
  EXPECT_FALSE(file_->HasOneRef(r));
  EXPECT_TRUE(file_->HasOneRef({r.start, r.start + kPageSize}));
  file_->Unref(r);
  EXPECT_TRUE(file_->HasOneRef({r.start + kPageSize, r.end}));
  file_->Unref({r.start + kPageSize, r.end});
  for (int i = 0; i < 4; ++i) {
    FileRange again = *file_->Allocate(4 * kPageSize, MemoryKind::kPageCache);
    std::byte* p = *file_->Pointer(again.start);
    for (size_t j = 0; j < 4 * kPageSize; ++j) ASSERT_EQ(p[j], std::byte{0});
  }
}

TEST_F(MemoryFileTest, MemoryWaitsForCopiesInFlight) {
  FileRange r = *file_->Allocate(kPageSize, MemoryKind::kAnonymous);
  std::byte* p = *file_->Pointer(r.start);
  *p = std::byte{1};
  {
    CopyEpoch::Section section(MemoryCopyEpoch());
    file_->Unref(r);
    FileRange other = *file_->Allocate(kPageSize, MemoryKind::kAnonymous);
    EXPECT_NE(other.start, r.start);
    EXPECT_EQ(*p, std::byte{1});
  }
}

TEST_F(MemoryFileTest, ReferenceCountsMatchAModel) {
  std::mt19937 rng(1);
  constexpr uint64_t kPages = 64;
  FileRange r = *file_->Allocate(kPages * kPageSize, MemoryKind::kAnonymous);
  std::vector<int> model(kPages, 1);
  for (int i = 0; i < 5000; ++i) {
    uint64_t a = rng() % kPages, b = a + 1 + rng() % (kPages - a);
    FileRange part{r.start + a * kPageSize, r.start + b * kPageSize};
    bool can_drop = std::all_of(model.begin() + a, model.begin() + b, [](int n) { return n > 1; });
    if (can_drop && rng() % 2) {
      file_->Unref(part);
      for (uint64_t k = a; k < b; ++k) --model[k];
    } else {
      file_->AddRef(part);
      for (uint64_t k = a; k < b; ++k) ++model[k];
    }
    ASSERT_EQ(file_->HasOneRef(part), std::all_of(model.begin() + a, model.begin() + b, [](int n) { return n == 1; }));
  }
}

TEST_F(MemoryFileTest, OddLengthsAreRefused) {
  EXPECT_EQ(file_->Allocate(0, MemoryKind::kAnonymous).error(), kEINVAL);
  EXPECT_EQ(file_->Allocate(100, MemoryKind::kAnonymous).error(), kEINVAL);
}

// A file that gives huge pages, where the host has them for whoever runs the test.
class HugePagesTest : public testing::Test {
 protected:
  HugePagesTest() : file_(std::move(*MemoryFile::Create(*NewMemoryBacking(), 0))) {}
  void SetUp() override {
    if (!file_->huge_pages()) GTEST_SKIP() << "no huge pages on a tmpfs";
  }
  uint64_t Committed() {
    struct stat st;
    fstat(file_->fd(), &st);
    return static_cast<uint64_t>(st.st_blocks) * 512;
  }
  // What the host commits for one store in the middle of a mapping of `length` bytes at a border of 2 MiB.
  uint64_t CommittedByAStore(uint64_t length, MemoryFile::Touch touch) {
    const uint64_t room = length + MemoryFile::kHugePage;
    auto* any = static_cast<char*>(mmap(nullptr, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    char* at = any + (-reinterpret_cast<uintptr_t>(any) & (MemoryFile::kHugePage - 1));
    const FileRange r = *file_->AllocateAt(length, MemoryKind::kAnonymous, reinterpret_cast<uintptr_t>(at), touch);
    EXPECT_EQ(
        mmap(at, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file_->fd(), static_cast<off_t>(r.start)), at);
    const uint64_t before = Committed();
    at[length / 2] = 1;
    const uint64_t by_store = Committed() - before;
    munmap(any, room);
    file_->Unref(r);
    return by_store;
  }
  std::unique_ptr<MemoryFile> file_;
};

TEST_F(HugePagesTest, ComeWhereAddressAndOffsetAgree) {
  constexpr uint64_t kHuge = MemoryFile::kHugePage;
  EXPECT_EQ(CommittedByAStore(2 * kHuge, MemoryFile::Touch::kTogether), kHuge);
  EXPECT_EQ(CommittedByAStore(2 * kHuge, MemoryFile::Touch::kApart), kPageSize);
  EXPECT_EQ(CommittedByAStore(kHuge / 2, MemoryFile::Touch::kTogether), kPageSize);  // no room for one
  EXPECT_EQ(Committed(), 0u);
}

TEST_F(HugePagesTest, RangesHaveTheAskedPhaseAndLeaveNoGaps) {
  constexpr uint64_t kHuge = MemoryFile::kHugePage;
  std::mt19937 rng(2);
  std::vector<FileRange> ranges;
  for (int i = 0; i < 400; ++i) {
    if (ranges.size() > 8 && rng() % 2 != 0) {
      std::swap(ranges[rng() % ranges.size()], ranges.back());
      file_->Unref(ranges.back());
      ranges.pop_back();
      continue;
    }
    const uint64_t address = (rng() % 4096) * kPageSize, length = (1 + rng() % 2048) * kPageSize;
    const bool together = rng() % 2 != 0;
    ranges.push_back(*file_->AllocateAt(length, MemoryKind::kAnonymous, address,
                                        together ? MemoryFile::Touch::kTogether : MemoryFile::Touch::kApart));
    ASSERT_EQ(ranges.back().length(), length);
    ASSERT_EQ((ranges.back().start - address) % kHuge, together ? 0 : kPageSize);
    for (size_t k = 0; k + 1 < ranges.size(); ++k)
      ASSERT_TRUE(ranges[k].end <= ranges.back().start || ranges.back().end <= ranges[k].start);
  }
  for (const FileRange& r : ranges) file_->Unref(r);
  EXPECT_EQ(file_->Allocate(uint64_t{1} << 40, MemoryKind::kAnonymous)->start, 0u);
}

TEST_F(HugePagesTest, CommittedMemoryIsThereAtOnce) {
  const FileRange r =
      *file_->AllocateAt(MemoryFile::kHugePage, MemoryKind::kPageCache, 0, MemoryFile::Touch::kTogether);
  file_->CommitHuge(r.start);
  EXPECT_EQ(Committed(), r.length());
  EXPECT_EQ(**file_->Pointer(r.start + kPageSize), std::byte{0});
  file_->Unref(r);
  EXPECT_EQ(Committed(), 0u);
}

TEST(SafeCopyTest, StopsAtTheFault) {
  InstallSafeCopyHandlers();
  auto* p =
      static_cast<std::byte*>(mmap(nullptr, 2 * kPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  mprotect(p + kPageSize, kPageSize, PROT_NONE);
  std::byte buf[100];
  EXPECT_EQ(SafeCopy(buf, p + kPageSize - 30, 100), 30u);
  EXPECT_EQ(SafeCopy(p + kPageSize - 10, buf, 100), 10u);
  EXPECT_EQ(SafeZero(p + kPageSize - 5, 100), 5u);
  EXPECT_EQ(SafeCopy(buf, p, 100), 100u);
  EXPECT_EQ(SafeLoad32(p + kPageSize).error(), kEFAULT);
  EXPECT_EQ(SafeCompareExchange32(p + kPageSize, 0, 1).error(), kEFAULT);
  EXPECT_EQ(*SafeCompareExchange32(p, 0, 5), 0u);
  EXPECT_EQ(*SafeLoad32(p), 5u);
  EXPECT_EQ(*SafeCompareExchange32(p, 4, 6), 5u);
  munmap(p, 2 * kPageSize);
}

}  // namespace
}  // namespace moat
