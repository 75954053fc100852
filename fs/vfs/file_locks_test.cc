#include "fs/vfs/file_locks.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <random>

#include "fs/vfs/test_world.h"

namespace moat {
namespace {

RangeLock Lock(uint64_t start, uint64_t end, bool exclusive, int32_t pid) {
  return {start, end, exclusive, LockOwner::Process(pid)};
}

TEST(FileLocks, ReadersShareAndWritersExclude) {
  FileLockList l;
  EXPECT_TRUE(l.SetRange(Lock(0, 9, false, 1), false).ok());
  EXPECT_TRUE(l.SetRange(Lock(5, 14, false, 2), false).ok());
  EXPECT_EQ(l.SetRange(Lock(9, 9, true, 2), false).error(), kEAGAIN);
  EXPECT_TRUE(l.SetRange(Lock(10, 14, true, 2), false).ok());
  RangeLock found;
  ASSERT_TRUE(l.FindConflict(Lock(0, kLockToEnd, false, 1), &found));
  EXPECT_EQ(found.start, 10u);
  EXPECT_EQ(found.owner.pid, 2);
}

TEST(FileLocks, UnlockSplitsAndNeighboursJoin) {
  FileLockList l;
  ASSERT_TRUE(l.SetRange(Lock(0, 99, true, 1), false).ok());
  l.ClearRange(40, 59, LockOwner::Process(1));
  EXPECT_EQ(l.Snapshot().size(), 2u);
  EXPECT_TRUE(l.SetRange(Lock(40, 59, true, 2), false).ok());
  l.ReleaseProcess(2);
  ASSERT_TRUE(l.SetRange(Lock(40, 59, true, 1), false).ok());
  ASSERT_EQ(l.Snapshot().size(), 1u);
  EXPECT_EQ(l.Snapshot()[0].end, 99u);
}

TEST(FileLocks, ACycleOfWaitersIsADeadlock) {
  FileLockList a, b;
  ASSERT_TRUE(a.SetRange(Lock(0, 0, true, 1), false).ok());
  ASSERT_TRUE(b.SetRange(Lock(0, 0, true, 2), false).ok());
  EXPECT_EQ(b.SetRange(Lock(0, 0, true, 1), true).error(), kEAGAIN);
  EXPECT_EQ(a.SetRange(Lock(0, 0, true, 2), true).error(), kEDEADLK);
  FileLockList::StopWaiting(LockOwner::Process(1));
  EXPECT_EQ(a.SetRange(Lock(0, 0, true, 2), true).error(), kEAGAIN);
  FileLockList::StopWaiting(LockOwner::Process(2));
}

TEST(FileLocks, AHolderThatDoesNotAnswerLosesItsLease) {
  TestWorld w;
  ASSERT_EQ(Errno::kOK, w.Make("f"));
  RefPtr<File> holder = w.Open("f", O_RDONLY).value();
  FileLockList& locks = holder->inode()->locks();
  ASSERT_TRUE(locks.SetLease(holder.get(), F_WRLCK).ok());
  int32_t before = lease_break_time.exchange(1);
  Nanos begin = MonotonicNow();
  RefPtr<Inode> leased;
  VfsContext ctx = w.Ctx();
  ctx.leased = &leased;
  EXPECT_EQ(kEAGAIN, vfs::Open(ctx, w.cwd, "f", {.flags = O_WRONLY}).error());
  EXPECT_EQ(holder->inode(), leased);
  Deadline deadline;
  EXPECT_TRUE(locks.BreakPending(&deadline));
  EXPECT_GE(deadline, begin + kNanosPerSec);
  EXPECT_EQ(kEAGAIN, locks.SetLease(holder.get(), F_RDLCK).error()) << "a writer waits";
  while (locks.BreakPending(&deadline)) usleep(20'000);
  EXPECT_GE(MonotonicNow(), begin + kNanosPerSec);
  EXPECT_EQ(F_UNLCK, locks.GetLease(holder.get()));
  EXPECT_TRUE(w.Open("f", O_WRONLY).ok());
  // For ever.
  lease_break_time = 0;
  ASSERT_TRUE(locks.SetLease(holder.get(), F_RDLCK).ok());
  EXPECT_EQ(kEAGAIN, locks.BreakLeases(true).error());
  EXPECT_TRUE(locks.BreakPending(&deadline));
  EXPECT_EQ(kNoDeadline, deadline);
  lease_break_time = before;
}

TEST(FileLocks, Flock) {
  FileLockList l;
  const File* a = reinterpret_cast<const File*>(0x10);
  const File* b = reinterpret_cast<const File*>(0x20);
  EXPECT_TRUE(l.Flock(a, false).ok());
  EXPECT_TRUE(l.Flock(b, false).ok());
  EXPECT_EQ(l.Flock(a, true).error(), kEAGAIN);
  // The conversion has lost the old lock, as on Linux.
  EXPECT_TRUE(l.Flock(b, true).ok());
  l.ReleaseDescription(b);
  EXPECT_TRUE(l.Flock(a, true).ok());
  l.Unflock(a);
}

// Random ranges of three owners against an array with one cell a byte.
TEST(FileLocks, RangesBehaveLikeAnArray) {
  constexpr int kBytes = 24, kOwners = 3;
  FileLockList l;
  int model[kOwners][kBytes] = {};  // 0 none, 1 shared, 2 exclusive
  std::mt19937 random(3);
  for (int step = 0; step < 20000; ++step) {
    uint32_t owner = random() % kOwners, start = random() % kBytes;
    uint32_t end = start + random() % (kBytes - start);
    int kind = static_cast<int>(random() % 3);
    if (kind == 0) {
      l.ClearRange(start, end, LockOwner::Process(static_cast<int32_t>(owner) + 1));
    } else {
      bool conflict = false;
      for (uint32_t o = 0; o < kOwners; ++o) {
        for (uint32_t i = start; o != owner && i <= end; ++i) {
          conflict |= model[o][i] == 2 || (kind == 2 && model[o][i] == 1);
        }
      }
      Errno e = l.SetRange(Lock(start, end, kind == 2, static_cast<int32_t>(owner) + 1), false).error();
      ASSERT_EQ(e, conflict ? kEAGAIN : Errno::kOK) << step;
      if (conflict) continue;
    }
    for (uint32_t i = start; i <= end; ++i) model[owner][i] = kind;
  }
}

}  // namespace
}  // namespace moat
