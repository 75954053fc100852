#include "sentry/mm/memory_manager.h"

#include <signal.h>

#include "sentry/mm/shared_memory.h"
#include "sentry/mm/test_machine.h"

namespace moat {
namespace {

constexpr int kRw = PROT_READ | PROT_WRITE;
constexpr int kAnon = MAP_PRIVATE | MAP_ANONYMOUS;

TEST_F(MmTest, AnonymousMemoryIsMappedAtOnce) {
  const GuestAddr a = guest().Map(4 * kPageSize, kRw);
  for (int i = 0; i < 4; ++i) ASSERT_TRUE(guest().space().Find(a + i * kPageSize).has_value());
  EXPECT_EQ(guest().LoadOr(a), 0);
  EXPECT_EQ(guest().Store(a + 100, 7), 0);
  uint8_t seen = 0;
  EXPECT_EQ(mm().CopyIn(&seen, a + 100, 1), 1u);
  EXPECT_EQ(seen, 7);
}

TEST_F(MmTest, ReservationMapsNothing) {
  const GuestAddr a = guest().Map(1ull << 40, PROT_NONE, kAnon | MAP_NORESERVE);
  EXPECT_FALSE(guest().space().Find(a).has_value());
  EXPECT_EQ(guest().LoadOr(a), -SIGSEGV);
  EXPECT_EQ(guest().last_code, SEGV_ACCERR);
  EXPECT_TRUE(mm().Mprotect(a + kPageSize, 2 * kPageSize, kRw, guest().limits, nullptr).ok());
  EXPECT_EQ(guest().Store(a + kPageSize, 1), 0);
  EXPECT_EQ(guest().LoadOr(a), -SIGSEGV);
}

TEST_F(MmTest, NeighboursShareOneRun) {
  const int before = guest().space().operations();
  const GuestAddr a = guest().Map(kPageSize, kRw);
  const GuestAddr b = guest().Map(kPageSize, kRw);
  EXPECT_EQ(b + kPageSize, a);
  const auto low = guest().space().Find(b), high = guest().space().Find(a);
  EXPECT_EQ(low->offset + kPageSize, high->offset);
  EXPECT_EQ(guest().space().operations(), before + 2);
}

TEST_F(MmTest, CopiesObeyProtection) {
  const GuestAddr a = guest().Map(3 * kPageSize, kRw);
  ASSERT_TRUE(mm().Mprotect(a + kPageSize, kPageSize, PROT_READ, guest().limits, nullptr).ok());
  ASSERT_TRUE(mm().Mprotect(a + 2 * kPageSize, kPageSize, PROT_NONE, guest().limits, nullptr).ok());
  char buffer[3 * kPageSize] = {};
  EXPECT_EQ(mm().CopyIn(buffer, a, sizeof buffer), 2 * kPageSize);
  EXPECT_EQ(mm().CopyOut(a, buffer, sizeof buffer), kPageSize);
  EXPECT_EQ(mm().ZeroOut(a + kPageSize, 1), 0u);
  EXPECT_EQ(mm().ForceCopyIn(buffer, a, sizeof buffer), 3 * kPageSize);
  EXPECT_EQ(mm().ForceCopyOut(a + kPageSize, "x", 1), 1u);
  EXPECT_EQ(guest().LoadOr(a + kPageSize), 'x');
}

TEST_F(MmTest, HostileAddressesAreFaults) {
  char c = 0;
  for (GuestAddr a : {GuestAddr{0}, GuestAddr{1}, ~GuestAddr{0}, GuestAddr{1} << 47, GuestAddr{1} << 63,
                      env_.max_address, env_.max_address - 1}) {
    EXPECT_EQ(mm().CopyIn(&c, a, 1), 0u) << a;
    EXPECT_EQ(mm().CopyOut(a, &c, ~size_t{0}), 0u) << a;
    EXPECT_EQ(guest().LoadOr(a), -SIGSEGV) << a;
  }
  EXPECT_EQ(mm().Load32(2).error(), kEINVAL);
  EXPECT_EQ(mm().Load32(4).error(), kEFAULT);
}

TEST_F(MmTest, WithSegmentsCoversTheRange) {
  const GuestAddr a = guest().Map(4 * kPageSize, kRw);
  auto n = mm().WithSegments(a + 1, 3 * kPageSize, true, [](const iovec* v, int count) -> Result<size_t> {
    size_t total = 0;
    for (int i = 0; i < count; ++i) {
      memset(v[i].iov_base, 'z', v[i].iov_len);
      total += v[i].iov_len;
    }
    return total;
  });
  EXPECT_EQ(*n, 3 * kPageSize);
  EXPECT_EQ(guest().LoadOr(a), 0);
  EXPECT_EQ(guest().LoadOr(a + 3 * kPageSize), 'z');
  EXPECT_EQ(guest().LoadOr(a + 3 * kPageSize + 1), 0);
  EXPECT_EQ(mm().WithSegments(8, 8, true, [](const iovec*, int) -> Result<size_t> { return size_t{1}; }).error(),
            kEFAULT);
}

TEST_F(MmTest, CompareExchange) {
  const GuestAddr a = guest().Map(kPageSize, kRw);
  EXPECT_EQ(*mm().CompareExchange32(a, 0, 5), 0u);
  EXPECT_EQ(*mm().CompareExchange32(a, 0, 6), 5u);
  EXPECT_EQ(*mm().Load32(a), 5u);
  EXPECT_EQ(mm().CompareExchange32(a + 1, 0, 6).error(), kEINVAL);
}

TEST_F(MmTest, MunmapGivesMemoryBack) {
  const uint64_t before = memory_->Usage(MemoryKind::kAnonymous);
  const GuestAddr a = guest().Map(8ull << 20, kRw);
  EXPECT_TRUE(mm().Munmap(a, 4ull << 20, nullptr).ok());
  EXPECT_EQ(guest().LoadOr(a), -SIGSEGV);
  EXPECT_EQ(guest().last_code, SEGV_MAPERR);
  EXPECT_EQ(guest().LoadOr(a + (4ull << 20)), 0);
  EXPECT_TRUE(mm().Munmap(a, 8ull << 20, nullptr).ok());
  EXPECT_LE(memory_->Usage(MemoryKind::kAnonymous), before + (8ull << 20));
}

class ForkTest : public MmTest, public testing::WithParamInterface<bool> {};

TEST_P(ForkTest, BothSidesDiverge) {
  guest().known_faults = GetParam();
  const GuestAddr a = guest().Map(64 * kPageSize, kRw);
  for (int i = 0; i < 64; ++i) guest().Store(a + i * kPageSize, static_cast<uint8_t>(i));
  auto child = guest().Fork();
  child->known_faults = GetParam();
  EXPECT_EQ(child->LoadOr(a + 5 * kPageSize), 5);
  EXPECT_EQ(child->Store(a + 5 * kPageSize, 200), 0);
  EXPECT_EQ(guest().LoadOr(a + 5 * kPageSize), 5);
  EXPECT_EQ(guest().Store(a + 6 * kPageSize, 201), 0);
  EXPECT_EQ(child->LoadOr(a + 6 * kPageSize), 6);
  EXPECT_EQ(child->LoadOr(a + 5 * kPageSize), 200);
  // The kernel's stores break the sharing too.
  EXPECT_EQ(child->mm().CopyOut(a + 40 * kPageSize, "k", 1), 1u);
  EXPECT_EQ(guest().LoadOr(a + 40 * kPageSize), 40);
  EXPECT_EQ(child->LoadOr(a + 40 * kPageSize), 'k');
}
INSTANTIATE_TEST_SUITE_P(FaultDetail, ForkTest, testing::Bool());

TEST_F(MmTest, PrivateFileIsCopiedOnWrite) {
  std::string content(200 * kPageSize, 'f');
  auto file = MakeRef<TestFile>(content);
  const GuestAddr a = guest().Map(content.size(), kRw, MAP_PRIVATE, 0, file);
  EXPECT_EQ(guest().space().Find(a)->fd, file->fd());
  EXPECT_EQ(guest().LoadOr(a + 5), 'f');
  EXPECT_EQ(guest().Store(a + 5, 'g'), 0);
  EXPECT_EQ(guest().LoadOr(a + 5), 'g');
  EXPECT_EQ(guest().LoadOr(a + 6), 'f');
  char c = 0;
  EXPECT_EQ(pread(file->fd(), &c, 1, 5), 1);
  EXPECT_EQ(c, 'f');
  EXPECT_EQ(mm().CopyOut(a + 100 * kPageSize, "hh", 2), 2u);
  EXPECT_EQ(mm().CopyIn(&c, a + 100 * kPageSize + 1, 1), 1u);
  EXPECT_EQ(c, 'h');
  EXPECT_EQ(mm().CopyIn(&c, a + 150 * kPageSize, 1), 1u);
  EXPECT_EQ(c, 'f');
  EXPECT_TRUE(mm().Madvise(a, content.size(), MADV_DONTNEED, nullptr).ok());
  EXPECT_EQ(guest().LoadOr(a + 5), 'f');
  EXPECT_TRUE(mm().Munmap(a, content.size(), nullptr).ok());
  EXPECT_EQ(file->mappings, 0);
}

TEST_F(MmTest, SmallPrivateSegmentIsCopiedAtOnce) {
  auto file = MakeRef<TestFile>(std::string(kPageSize + 10, 'd'));
  const GuestAddr a = guest().Map(2 * kPageSize, kRw, MAP_PRIVATE, 0, file);
  EXPECT_EQ(guest().space().Find(a)->fd, memory_->fd());
  EXPECT_EQ(guest().space().Find(a)->prot, kRw);
  EXPECT_EQ(guest().LoadOr(a + kPageSize + 9), 'd');
  EXPECT_EQ(guest().LoadOr(a + kPageSize + 10), 0);
}

TEST_F(MmTest, SharedFileWritesThrough) {
  auto file = MakeRef<TestFile>(std::string(2 * kPageSize, 's'));
  const GuestAddr a = guest().Map(4 * kPageSize, kRw, MAP_SHARED, 0, file);
  EXPECT_EQ(guest().Store(a + 1, 'T'), 0);
  EXPECT_EQ(mm().CopyOut(a + kPageSize, "U", 1), 1u);
  char c = 0;
  pread(file->fd(), &c, 1, 1);
  EXPECT_EQ(c, 'T');
  pread(file->fd(), &c, 1, kPageSize);
  EXPECT_EQ(c, 'U');
  // Beyond the end of the file, and there once it has grown.
  EXPECT_EQ(guest().LoadOr(a + 3 * kPageSize), -SIGBUS);
  EXPECT_EQ(guest().last_code, BUS_ADRERR);
  EXPECT_EQ(mm().CopyIn(&c, a + 3 * kPageSize, 1), 0u);
  file->Resize(4 * kPageSize);
  EXPECT_EQ(guest().LoadOr(a + 3 * kPageSize), 0);
  file->Resize(kPageSize);
  mm().InvalidateMapping(a + kPageSize, a + 4 * kPageSize);
  EXPECT_EQ(guest().LoadOr(a + kPageSize), -SIGBUS);
  EXPECT_EQ(guest().LoadOr(a + 1), 'T');
}

TEST_F(MmTest, ReadOnlyDonatedFileCannotBeStoredTo) {
  auto file = MakeRef<TestFile>(std::string(kPageSize, 'r'), false);
  const GuestAddr a = guest().Map(kPageSize, kRw, MAP_SHARED, 0, file);
  EXPECT_EQ(guest().LoadOr(a), 'r');
  EXPECT_EQ(guest().Store(a, 1), SIGSEGV);
  EXPECT_EQ(mm().CopyOut(a, "x", 1), 0u);
}

TEST_F(MmTest, AnnouncementsAreExactThroughSplits) {
  auto file = MakeRef<TestFile>(std::string(16 * kPageSize, 'x'));
  const GuestAddr a = guest().Map(16 * kPageSize, PROT_READ, MAP_SHARED, 0, file);
  EXPECT_EQ(file->mappings, 1);
  EXPECT_TRUE(mm().Mprotect(a + 4 * kPageSize, 4 * kPageSize, kRw, guest().limits, nullptr).ok());
  EXPECT_EQ(file->mappings, 3);
  auto child = guest().Fork();
  EXPECT_EQ(file->mappings, 6);
  EXPECT_TRUE(mm().Mprotect(a + 4 * kPageSize, 4 * kPageSize, PROT_READ, guest().limits, nullptr).ok());
  EXPECT_EQ(file->mappings, 4);
  child.reset();
  EXPECT_EQ(file->mappings, 1);
}

TEST_F(MmTest, MprotectStopsAtHoles) {
  const GuestAddr a = guest().Map(3 * kPageSize, kRw);
  ASSERT_TRUE(mm().Munmap(a + kPageSize, kPageSize, nullptr).ok());
  EXPECT_EQ(mm().Mprotect(a, 3 * kPageSize, PROT_READ, guest().limits, nullptr).error(), kENOMEM);
  EXPECT_EQ(guest().Store(a, 1), SIGSEGV);
  EXPECT_EQ(guest().last_code, SEGV_ACCERR);
  EXPECT_EQ(guest().Store(a + 2 * kPageSize, 1), 0);
  EXPECT_EQ(mm().Mprotect(a + 1, kPageSize, PROT_READ, guest().limits, nullptr).error(), kEINVAL);
  EXPECT_EQ(mm().Mprotect(a, kPageSize, 0x100, guest().limits, nullptr).error(), kEINVAL);
}

TEST_F(MmTest, UnknownFaultsEndInASignal) {
  guest().known_faults = false;
  const GuestAddr a = guest().Map(kPageSize, PROT_READ);
  EXPECT_EQ(guest().LoadOr(a), 0);
  EXPECT_EQ(guest().Store(a, 1), SIGSEGV);
  EXPECT_EQ(guest().last_code, SEGV_ACCERR);
  EXPECT_EQ(guest().Store(a, 1), SIGSEGV);
}

TEST_F(MmTest, MremapMovesAndGrows) {
  const GuestAddr a = guest().Map(2 * kPageSize, kRw);
  guest().Store(a, 1);
  guest().Store(a + kPageSize, 2);
  const GuestAddr below = guest().Map(kPageSize, kRw);
  ASSERT_EQ(below + kPageSize, a);
  EXPECT_EQ(*mm().Mremap(a, 2 * kPageSize, kPageSize, 0, 0, guest().limits, nullptr), a);
  EXPECT_EQ(*mm().Mremap(a, kPageSize, 2 * kPageSize, 0, 0, guest().limits, nullptr), a);
  EXPECT_EQ(guest().LoadOr(a + kPageSize), 0);
  EXPECT_EQ(mm().Mremap(below, kPageSize, 2 * kPageSize, 0, 0, guest().limits, nullptr).error(), kENOMEM);
  guest().Store(below, 8);
  const GuestAddr moved = *mm().Mremap(below, kPageSize, 3 * kPageSize, MREMAP_MAYMOVE, 0, guest().limits, nullptr);
  EXPECT_NE(moved, below);
  EXPECT_EQ(guest().LoadOr(moved), 8);
  EXPECT_EQ(guest().LoadOr(moved + 2 * kPageSize), 0);
  EXPECT_EQ(guest().LoadOr(below), -SIGSEGV);
  EXPECT_EQ(mm().Mremap(0x1000, kPageSize, kPageSize, 0, 0, guest().limits, nullptr).error(), kEFAULT);
}

TEST_F(MmTest, MremapDontunmapLeavesZeros) {
  const GuestAddr a = guest().Map(kPageSize, kRw);
  guest().Store(a, 5);
  const GuestAddr b =
      *mm().Mremap(a, kPageSize, kPageSize, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0, guest().limits, nullptr);
  EXPECT_EQ(guest().LoadOr(b), 5);
  EXPECT_EQ(guest().LoadOr(a), 0);
}

TEST_F(MmTest, StackGrowsToItsLimit) {
  guest().limits.stack = 1 << 20;
  const GuestAddr top = 0x7fffff000000;
  guest().Map(4 * kPageSize, kRw, kAnon | MAP_GROWSDOWN | MAP_FIXED, top - 4 * kPageSize);
  EXPECT_EQ(guest().Store(top - 4 * kPageSize - 1, 1), 0);
  EXPECT_EQ(guest().Store(top - (1 << 20), 1), 0);
  EXPECT_EQ(guest().Store(top - (1 << 20) - 1, 1), SIGSEGV);
  EXPECT_EQ(mm().CopyOut(top - (1 << 20) - 1, "a", 1), 0u);
}

TEST_F(MmTest, StackKeepsItsGuardGap) {
  const GuestAddr top = 0x7fffff000000;
  guest().Map(kPageSize, kRw, kAnon | MAP_GROWSDOWN | MAP_FIXED, top - kPageSize);
  guest().Map(kPageSize, kRw, kAnon | MAP_FIXED, top - (2 << 20));
  EXPECT_EQ(guest().Store(top - (2 << 20) + kPageSize + kStackGuardGap, 1), 0);
  EXPECT_EQ(guest().Store(top - (2 << 20) + kStackGuardGap, 1), SIGSEGV);
}

TEST_F(MmTest, Brk) {
  const GuestAddr start = mm().Brk(0, guest().limits, nullptr);
  EXPECT_EQ(start, 0x10000000u);
  EXPECT_EQ(mm().Brk(start + 100, guest().limits, nullptr), start + 100);
  EXPECT_EQ(guest().Store(start + 99, 1), 0);
  EXPECT_EQ(mm().Brk(start + (1 << 20), guest().limits, nullptr), start + (1 << 20));
  EXPECT_EQ(guest().LoadOr(start + 99), 1);
  const auto low = guest().space().Find(start), high = guest().space().Find(start + 255 * kPageSize);
  EXPECT_EQ(low->offset + 255 * kPageSize, high->offset);
  EXPECT_EQ(mm().Brk(start, guest().limits, nullptr), start);
  EXPECT_EQ(guest().LoadOr(start), -SIGSEGV);
  guest().limits.data = 1 << 20;
  EXPECT_EQ(mm().Brk(start + (2 << 20), guest().limits, nullptr), start);
}

TEST_F(MmTest, LimitsAndOvercommit) {
  guest().limits.as = 1 << 20;
  EXPECT_EQ(guest().TryMap(2 << 20, kRw, kAnon).error(), kENOMEM);
  guest().limits.as = ~0ull;
  EXPECT_EQ(guest().TryMap(2ull << 40, kRw, kAnon).error(), kENOMEM);
  const GuestAddr a = guest().Map(2ull << 40, kRw, kAnon | MAP_NORESERVE);
  EXPECT_EQ(guest().Store(a + (1ull << 40), 1), 0);
  EXPECT_EQ(guest().TryMap(0, kRw, kAnon).error(), kEINVAL);
  EXPECT_EQ(guest().TryMap(kPageSize, kRw, MAP_ANONYMOUS).error(), kEINVAL);
  EXPECT_EQ(guest().TryMap(kPageSize, kRw, kAnon | MAP_FIXED, a + 1).error(), kEINVAL);
  EXPECT_EQ(guest().TryMap(kPageSize, kRw, kAnon | MAP_FIXED, kPageSize).error(), kEPERM);
  EXPECT_EQ(guest().TryMap(kPageSize, kRw, kAnon | MAP_FIXED_NOREPLACE, a).error(), kEEXIST);
}

// What the stub has of [start, end), in pages.
uint64_t MappedPages(TestGuest& guest, GuestAddr start, GuestAddr end) {
  uint64_t n = 0;
  for (GuestAddr at = start; at < end; at += kPageSize) n += guest.space().Find(at).has_value();
  return n;
}

TEST_F(MmTest, WhoWorksThroughALargeAreaGetsWindowsThatGrow) {
  if (!memory_->huge_pages()) GTEST_SKIP() << "no huge pages on a tmpfs";
  constexpr uint64_t kHuge = MemoryFile::kHugePage, kLength = 64 << 20;
  const GuestAddr a = guest().Map(kLength, kRw);
  EXPECT_EQ(a % kHuge, 0u);
  EXPECT_EQ(MappedPages(guest(), a, a + kLength), kHuge / kPageSize);
  EXPECT_NE((guest().space().Find(a)->offset - a) % kHuge, 0u);
  int steps = 0;
  for (uint64_t at = 0, mapped = 0; at < kLength; at += kPageSize) {
    ASSERT_EQ(guest().Store(a + at, static_cast<uint8_t>(at / kPageSize)), 0);
    if (at < mapped) continue;
    mapped = MappedPages(guest(), a, a + kLength) * kPageSize;
    ++steps;
  }
  EXPECT_LE(steps, 8);
  for (uint64_t at = kHuge; at < kLength; at += kHuge)
    EXPECT_EQ((guest().space().Find(a + at)->offset - a) % kHuge, 0u);
  for (uint64_t at = 0; at < kLength; at += kPageSize) ASSERT_EQ(guest().LoadOr(a + at), (at / kPageSize) % 256);
}

TEST_F(MmTest, WhoTouchesALargeAreaHereAndThereGetsPages) {
  if (!memory_->huge_pages()) GTEST_SKIP() << "no huge pages on a tmpfs";
  constexpr uint64_t kHuge = MemoryFile::kHugePage, kLength = 64 << 20;
  const GuestAddr a = guest().Map(kLength, kRw);
  ASSERT_EQ(guest().Store(a + kLength / 2, 1), 0);
  EXPECT_EQ(MappedPages(guest(), a, a + kLength), kLength / kPageSize);
  for (uint64_t at = 0; at < kLength; at += kHuge) EXPECT_NE((guest().space().Find(a + at)->offset - a) % kHuge, 0u);
  // Stacks are used from one end, and never in full.
  const GuestAddr stack = guest().Map(kLength, kRw, kAnon | MAP_STACK);
  EXPECT_EQ(MappedPages(guest(), stack, stack + kLength), kLength / kPageSize);
  EXPECT_NE((guest().space().Find(stack)->offset - stack) % kHuge, 0u);
}

TEST_F(MmTest, MlockCountsAndLimits) {
  guest().limits.memlock = 4 * kPageSize;
  const GuestAddr a = guest().Map(8 * kPageSize, kRw);
  EXPECT_TRUE(mm().Mlock(a, 4 * kPageSize, false, guest().limits, nullptr).ok());
  EXPECT_TRUE(mm().Mlock(a, 4 * kPageSize, false, guest().limits, nullptr).ok());
  EXPECT_EQ(mm().Usage().locked, 4 * kPageSize);
  EXPECT_EQ(mm().Mlock(a + 4 * kPageSize, 1, false, guest().limits, nullptr).error(), kENOMEM);
  EXPECT_EQ(mm().Madvise(a, kPageSize, MADV_DONTNEED, nullptr).error(), kEINVAL);
  EXPECT_TRUE(mm().Munlock(a, 8 * kPageSize).ok());
  EXPECT_EQ(mm().Usage().locked, 0u);
}

TEST_F(MmTest, MincoreSeesTouchedPages) {
  const GuestAddr a = guest().Map(4 * kPageSize, kRw);
  guest().Store(a + 2 * kPageSize, 1);
  std::vector<uint8_t> pages;
  ASSERT_TRUE(mm().Mincore(a, 4 * kPageSize, pages).ok());
  EXPECT_EQ(pages, (std::vector<uint8_t>{0, 0, 1, 0}));
  EXPECT_EQ(mm().Mincore(a, 1ull << 30, pages).error(), kENOMEM);
}

TEST_F(MmTest, VisitAndUsage) {
  const GuestAddr a = guest().Map(4 * kPageSize, kRw);
  guest().Map(2 * kPageSize, PROT_READ | PROT_EXEC, kAnon | MAP_FIXED, a + 8 * kPageSize);
  int areas = 0;
  mm().VisitVmas(0, [&](const VmaInfo& info) {
    ++areas;
    EXPECT_GT(info.vma.length(), 0u);
    return true;
  });
  EXPECT_EQ(areas, 2);
  const MmUsage usage = mm().Usage();
  EXPECT_EQ(usage.size, 6 * kPageSize);
  EXPECT_EQ(usage.data, 4 * kPageSize);
  EXPECT_EQ(usage.exec, 2 * kPageSize);
}

}  // namespace
}  // namespace moat
