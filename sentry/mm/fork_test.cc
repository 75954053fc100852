// fork(2): copy-on-write, pages that are copied at once, areas that the child does not get.
#include <signal.h>

#include "sentry/mm/memory_manager.h"
#include "sentry/mm/test_machine.h"

namespace moat {
namespace {

constexpr int kRw = PROT_READ | PROT_WRITE;

TEST_F(MmTest, LastReferenceIsReusedWithoutCopy) {
  const GuestAddr a = guest().Map(16 * kPageSize, kRw);
  guest().Store(a, 1);
  const uint64_t where = guest().space().Find(a)->offset;
  { auto child = guest().Fork(); }
  EXPECT_EQ(guest().Store(a, 2), 0);
  EXPECT_EQ(guest().space().Find(a)->offset, where);
  EXPECT_EQ(guest().space().Find(a + 15 * kPageSize)->prot, kRw);
}

TEST_F(MmTest, CopiesOfNeighboursAreNeighbours) {
  const GuestAddr a = guest().Map(64 * kPageSize, kRw);
  auto child = guest().Fork();
  // The first copy lies alone; with the second, places for all that may follow are reserved together.
  for (int i = 0; i < 64; ++i) EXPECT_EQ(child->Store(a + i * kPageSize, 1), 0);
  const uint64_t window = 8, second = child->space().Find(a + window * kPageSize)->offset;
  for (uint64_t i = window; i < 64; ++i)
    EXPECT_EQ(child->space().Find(a + i * kPageSize)->offset, second + (i - window) * kPageSize);
}

TEST_F(MmTest, LoneCopiesReusePagesOfTheDead) {
  const GuestAddr a = guest().Map(64 * kPageSize, kRw);
  guest().Store(a + 20 * kPageSize, 5);
  uint64_t where = 0;
  for (int round = 0; round < 5; ++round) {
    auto child = guest().Fork();
    EXPECT_EQ(child->LoadOr(a + 16 * kPageSize), 0) << "bytes of the last one";
    EXPECT_EQ(child->LoadOr(a + 17 * kPageSize), 0);
    EXPECT_EQ(child->LoadOr(a + 20 * kPageSize), 5);
    EXPECT_EQ(child->Store(a + 16 * kPageSize, 9), 0);
    EXPECT_EQ(child->Store(a + 17 * kPageSize, 7), 0);
    // By a fault in the first round, at once in the others.
    const uint64_t copy = child->space().Find(a + 16 * kPageSize)->offset;
    if (round > 1) EXPECT_EQ(copy, where);
    where = copy;
  }
}

TEST_F(MmTest, SharedAnonymousMemorySurvivesFork) {
  const GuestAddr a = guest().Map(2 * kPageSize, kRw, MAP_SHARED | MAP_ANONYMOUS);
  auto child = guest().Fork();
  EXPECT_EQ(child->Store(a + kPageSize, 9), 0);
  EXPECT_EQ(guest().LoadOr(a + kPageSize), 9);
  WordIdentity mine = *mm().IdentifyWord(a + kPageSize), theirs = *child->mm().IdentifyWord(a + kPageSize);
  EXPECT_TRUE(mine.mappable && mine.mappable == theirs.mappable);
  EXPECT_EQ(mine.offset, theirs.offset);
}

TEST_F(MmTest, DontforkAndWipeonfork) {
  const GuestAddr a = guest().Map(3 * kPageSize, kRw);
  for (int i = 0; i < 3; ++i) guest().Store(a + i * kPageSize, 1);
  EXPECT_TRUE(mm().Madvise(a, kPageSize, MADV_DONTFORK, nullptr).ok());
  EXPECT_TRUE(mm().Madvise(a + kPageSize, kPageSize, MADV_WIPEONFORK, nullptr).ok());
  auto child = guest().Fork();
  EXPECT_EQ(child->LoadOr(a), -SIGSEGV);
  EXPECT_EQ(child->LoadOr(a + kPageSize), 0);
  EXPECT_EQ(child->LoadOr(a + 2 * kPageSize), 1);
  EXPECT_EQ(guest().LoadOr(a), 1);
}

TEST_F(MmTest, KeptPagesStayWritableOverFork) {
  const GuestAddr a = guest().Map(4 * kPageSize, kRw);
  guest().Store(a + kPageSize, 1);
  ASSERT_TRUE(mm().KeepWritable(a + kPageSize + 32, 32, nullptr).ok());
  auto child = guest().Fork();
  EXPECT_TRUE(mm().WritableNow(a + kPageSize + 32, 32));
  EXPECT_FALSE(mm().WritableNow(a, 1));
  EXPECT_TRUE(child->mm().WritableNow(a + kPageSize, 32));
  EXPECT_NE(guest().space().Find(a + kPageSize)->offset, child->space().Find(a + kPageSize)->offset);
  guest().Store(a + kPageSize, 2);
  EXPECT_EQ(child->LoadOr(a + kPageSize), 1);
  // Kept twice, let go twice.
  ASSERT_TRUE(mm().KeepWritable(a + kPageSize, 32, nullptr).ok());
  mm().StopKeeping(a + kPageSize, 32);
  { auto second = guest().Fork(); }
  EXPECT_TRUE(mm().WritableNow(a + kPageSize, 32));
  mm().StopKeeping(a + kPageSize + 32, 32);
  auto third = guest().Fork();
  EXPECT_FALSE(mm().WritableNow(a + kPageSize, 32));
}

TEST_F(MmTest, WhatIsStoredToAfterForksIsCopiedAhead) {
  const GuestAddr a = guest().Map(64 * kPageSize, kRw);
  const GuestAddr parents = a + 3 * kPageSize, childs = a + 7 * kPageSize, both = a + 8 * kPageSize;
  const auto use = [&](TestGuest& child, uint8_t value) {
    EXPECT_EQ(guest().Store(parents, value), 0);
    EXPECT_EQ(child.Store(childs, value + 1), 0);
    EXPECT_EQ(guest().Store(both, value + 2), 0);
    EXPECT_EQ(child.Store(both, value + 3), 0);
  };
  { use(*guest().Fork(), 1); }
  auto child = guest().Fork();
  for (const GuestAddr page : {parents, both}) {
    EXPECT_TRUE(mm().WritableNow(page, 1));
    EXPECT_TRUE(child->mm().WritableNow(page, 1));
  }
  EXPECT_TRUE(child->mm().WritableNow(childs, 1));
  EXPECT_FALSE(child->mm().WritableNow(a, 1));
  EXPECT_FALSE(mm().WritableNow(a, 1));
  EXPECT_EQ(child->space().Find(both)->offset, child->space().Find(childs)->offset + kPageSize) << "one mapping";
  // What each reads is its own or what was there at the fork.
  EXPECT_EQ(child->LoadOr(parents), 1);
  EXPECT_EQ(child->LoadOr(childs), 0);
  EXPECT_EQ(child->LoadOr(both), 3);
  use(*child, 10);
  EXPECT_EQ(child->LoadOr(parents), 1);
  EXPECT_EQ(guest().LoadOr(childs), 0);
  EXPECT_EQ(guest().LoadOr(both), 12);
  EXPECT_EQ(child->LoadOr(both), 13);
  // Areas that the child does not get, or not as they are; and memory that became read-only.
  ASSERT_TRUE(mm().Madvise(parents, kPageSize, MADV_DONTFORK, nullptr).ok());
  ASSERT_TRUE(mm().Madvise(childs, kPageSize, MADV_WIPEONFORK, nullptr).ok());
  ASSERT_TRUE(mm().Mprotect(both, kPageSize, PROT_READ, guest().limits, nullptr).ok());
  auto third = guest().Fork();
  EXPECT_EQ(third->LoadOr(parents), -SIGSEGV);
  EXPECT_EQ(third->LoadOr(childs), 0);
  EXPECT_EQ(third->LoadOr(both), 12);
  EXPECT_EQ(third->Store(both, 1), SIGSEGV);
}

TEST_F(MmTest, NothingIsCopiedAheadWhileOthersMayStore) {
  const GuestAddr a = guest().Map(4 * kPageSize, kRw);
  { EXPECT_EQ(guest().Fork()->Store(a, 1), 0); }
  const RefPtr<MemoryManager> of_another_thread(&mm());
  auto child = guest().Fork();
  EXPECT_FALSE(child->mm().WritableNow(a, 1));
}

TEST_F(MmTest, HabitsAreFewAndForgotten) {
  const GuestAddr a = guest().Map(256 * kPageSize, kRw);
  const auto ahead = [&](TestGuest& child) {
    int n = 0;
    for (int i = 0; i < 256; ++i) n += child.mm().WritableNow(a + i * kPageSize, 1) ? 1 : 0;
    return n;
  };
  {  // every other page, so that each is copied alone
    auto child = guest().Fork();
    for (int i = 0; i < 256; i += 2) EXPECT_EQ(child->Store(a + i * kPageSize, 1), 0);
  }
  int forks = 1;
  for (; ahead(*guest().Fork()) == ForkHabits::kNotedStores; ++forks) ASSERT_LT(forks, 1000);
  EXPECT_EQ(ahead(*guest().Fork()), 0);
  EXPECT_GT(forks, 10);
}

TEST_F(MmTest, KeepingBreaksCopyOnWriteAndNeedsTheRight) {
  const GuestAddr a = guest().Map(2 * kPageSize, kRw);
  guest().Store(a, 1);
  auto child = guest().Fork();
  EXPECT_FALSE(child->mm().WritableNow(a, 32));
  ASSERT_TRUE(child->mm().KeepWritable(a, 32, nullptr).ok());
  EXPECT_TRUE(child->mm().WritableNow(a, 32));
  const GuestAddr read_only = guest().Map(kPageSize, PROT_READ);
  EXPECT_EQ(mm().KeepWritable(read_only, 32, nullptr).error(), kEFAULT);
  EXPECT_EQ(mm().KeepWritable(0, 32, nullptr).error(), kEFAULT);
  EXPECT_EQ(mm().KeepWritable(~uint64_t{31}, 32, nullptr).error(), kEFAULT);
  // A page of an area that the child does not get.
  ASSERT_TRUE(mm().KeepWritable(a, 32, nullptr).ok());
  ASSERT_TRUE(mm().Madvise(a, kPageSize, MADV_DONTFORK, nullptr).ok());
  auto without = guest().Fork();
  EXPECT_EQ(without->LoadOr(a), -SIGSEGV);
}

TEST_F(MmTest, ForkCostsOperationsBySegment) {
  guest().Map(512ull << 20, kRw);
  const int before = guest().space().operations();
  auto child = guest().Fork();
  EXPECT_LE(guest().space().operations() - before, 1);
  EXPECT_LE(child->space().operations(), 1);
}

TEST_F(MmTest, DontneedZerosInPlaceAndAfterFork) {
  const GuestAddr a = guest().Map(4 * kPageSize, kRw);
  guest().Store(a, 5);
  EXPECT_TRUE(mm().Madvise(a, 4 * kPageSize, MADV_DONTNEED, nullptr).ok());
  EXPECT_EQ(guest().LoadOr(a), 0);
  guest().Store(a, 6);
  auto child = guest().Fork();
  EXPECT_TRUE(mm().Madvise(a, 4 * kPageSize, MADV_DONTNEED, nullptr).ok());
  EXPECT_EQ(guest().LoadOr(a), 0);
  EXPECT_EQ(child->LoadOr(a), 6);
}

}  // namespace
}  // namespace moat
