#include "platform/memory/memory_file.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cstring>
#include <map>
#include <random>

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
