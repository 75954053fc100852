// flock(2), POSIX record locks, open file description locks, leases.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <thread>

#include "tests/guest/support/child.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

struct flock Range(short type, off_t start = 0, off_t length = 0, short whence = SEEK_SET) {
  struct flock lock = {};
  lock.l_type = type;
  lock.l_whence = whence;
  lock.l_start = start;
  lock.l_len = length;
  return lock;
}

class FileLock : public testing::Test {
 protected:
  void SetUp() override {
    path_ = dir_.File("f", "0123456789");
    fd_ = Reopen();
  }
  ScopedFd Reopen(int flags = O_RDWR) const { return ScopedFd(open(path_.c_str(), flags | O_CLOEXEC)); }
  static int Set(int fd, struct flock lock, int command = F_SETLK) { return fcntl(fd, command, &lock); }
  // The lock that stops `wanted` on fd.
  static struct flock Get(int fd, struct flock wanted, int command = F_GETLK) {
    EXPECT_OK(fcntl(fd, command, &wanted));
    return wanted;
  }
  int fd() const { return fd_.get(); }
  TempDir dir_;
  std::string path_;
  ScopedFd fd_;
};

TEST_F(FileLock, FlockExclusiveKeepsOthersOut) {
  ASSERT_OK(flock(fd(), LOCK_EX));
  const ScopedFd other = Reopen();
  EXPECT_FAIL(flock(other.get(), LOCK_EX | LOCK_NB), EWOULDBLOCK);
  EXPECT_FAIL(flock(other.get(), LOCK_SH | LOCK_NB), EWOULDBLOCK);
  ASSERT_OK(flock(fd(), LOCK_UN));
  EXPECT_OK(flock(other.get(), LOCK_EX | LOCK_NB));
}
TEST_F(FileLock, FlockSharedIsShared) {
  ASSERT_OK(flock(fd(), LOCK_SH));
  const ScopedFd other = Reopen();
  EXPECT_OK(flock(other.get(), LOCK_SH | LOCK_NB));
  EXPECT_FAIL(flock(other.get(), LOCK_EX | LOCK_NB), EWOULDBLOCK);
}
TEST_F(FileLock, FlockBelongsToTheOpenFile) {
  ASSERT_OK(flock(fd(), LOCK_EX));
  ScopedFd copy(dup(fd()));
  EXPECT_OK(flock(copy.get(), LOCK_EX | LOCK_NB));
  fd_.Reset();
  const ScopedFd other = Reopen();
  EXPECT_FAIL(flock(other.get(), LOCK_EX | LOCK_NB), EWOULDBLOCK);
  copy.Reset();
  EXPECT_OK(flock(other.get(), LOCK_EX | LOCK_NB));
}
TEST_F(FileLock, FlockSurvivesForkUntilAllClose) {
  ASSERT_OK(flock(fd(), LOCK_EX));
  EXPECT_TRUE(PassesInChild([&] { EXPECT_OK(flock(fd(), LOCK_UN)); }));
  const ScopedFd other = Reopen();
  EXPECT_OK(flock(other.get(), LOCK_EX | LOCK_NB));
}
TEST_F(FileLock, FlockUpgradeAndDowngrade) {
  const ScopedFd other = Reopen();
  ASSERT_OK(flock(fd(), LOCK_EX));
  ASSERT_OK(flock(fd(), LOCK_SH | LOCK_NB));
  ASSERT_OK(flock(other.get(), LOCK_SH | LOCK_NB));
  EXPECT_FAIL(flock(fd(), LOCK_EX | LOCK_NB), EWOULDBLOCK);
}
TEST_F(FileLock, FlockBlocksUntilReleased) {
  ASSERT_OK(flock(fd(), LOCK_EX));
  std::atomic<bool> got = false;
  std::atomic<pid_t> tid = 0;
  std::thread waiter([&] {
    const ScopedFd other = Reopen();
    tid = gettid();
    EXPECT_OK(flock(other.get(), LOCK_EX));
    got = true;
  });
  EXPECT_TRUE(Eventually([&] { return tid != 0; }) && Sleeps(getpid(), tid));
  EXPECT_FALSE(got);
  EXPECT_OK(flock(fd(), LOCK_UN));
  waiter.join();
  EXPECT_TRUE(got);
}
TEST_F(FileLock, FlockErrors) {
  EXPECT_FAIL(flock(-1, LOCK_SH), EBADF);
  EXPECT_FAIL(flock(fd(), 0x100), EINVAL);
  const ScopedFd path(open(path_.c_str(), O_PATH));
  EXPECT_FAIL(flock(path.get(), LOCK_SH), EBADF);
}

TEST_F(FileLock, PosixConflictsBetweenProcesses) {
  ASSERT_OK(Set(fd(), Range(F_WRLCK, 0, 5)));
  EXPECT_TRUE(PassesInChild([&] {
    EXPECT_FAIL(Set(fd(), Range(F_WRLCK, 4, 1)), EAGAIN);
    EXPECT_FAIL(Set(fd(), Range(F_RDLCK, 0, 1)), EAGAIN);
    EXPECT_OK(Set(fd(), Range(F_WRLCK, 5, 5)));
  }));
}
TEST_F(FileLock, PosixNeverConflictsWithItself) {
  ASSERT_OK(Set(fd(), Range(F_WRLCK)));
  const ScopedFd other = Reopen();
  EXPECT_OK(Set(other.get(), Range(F_WRLCK)));
}
TEST_F(FileLock, PosixGetlkNamesTheHolder) {
  ASSERT_OK(Set(fd(), Range(F_RDLCK, 2, 3)));
  const pid_t holder = getpid();
  EXPECT_TRUE(PassesInChild([&] {
    const struct flock got = Get(fd(), Range(F_WRLCK));
    EXPECT_EQ(got.l_type, F_RDLCK);
    EXPECT_EQ(got.l_pid, holder);
    EXPECT_EQ(got.l_start, 2);
    EXPECT_EQ(got.l_len, 3);
    EXPECT_EQ(Get(fd(), Range(F_RDLCK)).l_type, F_UNLCK);
  }));
}
TEST_F(FileLock, PosixSplitByUnlockInTheMiddle) {
  ASSERT_OK(Set(fd(), Range(F_WRLCK, 0, 10)));
  ASSERT_OK(Set(fd(), Range(F_UNLCK, 4, 2)));
  EXPECT_TRUE(PassesInChild([&] {
    EXPECT_OK(Set(fd(), Range(F_WRLCK, 4, 2)));
    const struct flock left = Get(fd(), Range(F_WRLCK, 0, 4));
    EXPECT_EQ(left.l_len, 4);
    const struct flock right = Get(fd(), Range(F_WRLCK, 6, 0));
    EXPECT_EQ(right.l_start, 6);
    EXPECT_EQ(right.l_len, 4);
  }));
}
TEST_F(FileLock, PosixMergesNeighbours) {
  ASSERT_OK(Set(fd(), Range(F_WRLCK, 0, 5)));
  ASSERT_OK(Set(fd(), Range(F_WRLCK, 5, 5)));
  EXPECT_TRUE(PassesInChild([&] { EXPECT_EQ(Get(fd(), Range(F_WRLCK)).l_len, 10); }));
}
TEST_F(FileLock, PosixDowngradeOfAPart) {
  ASSERT_OK(Set(fd(), Range(F_WRLCK, 0, 10)));
  ASSERT_OK(Set(fd(), Range(F_RDLCK, 0, 5)));
  EXPECT_TRUE(PassesInChild([&] {
    EXPECT_OK(Set(fd(), Range(F_RDLCK, 0, 5)));
    EXPECT_FAIL(Set(fd(), Range(F_RDLCK, 5, 1)), EAGAIN);
  }));
}
TEST_F(FileLock, PosixNegativeLengthLocksBefore) {
  ASSERT_OK(Set(fd(), Range(F_WRLCK, 6, -2)));
  EXPECT_TRUE(PassesInChild([&] {
    const struct flock got = Get(fd(), Range(F_WRLCK));
    EXPECT_EQ(got.l_start, 4);
    EXPECT_EQ(got.l_len, 2);
  }));
}
TEST_F(FileLock, PosixWhenceEndAndCurrent) {
  ASSERT_EQ(lseek(fd(), 3, SEEK_SET), 3);
  ASSERT_OK(Set(fd(), Range(F_WRLCK, -1, 1, SEEK_CUR)));
  ASSERT_OK(Set(fd(), Range(F_WRLCK, -1, 1, SEEK_END)));
  EXPECT_TRUE(PassesInChild([&] {
    EXPECT_EQ(Get(fd(), Range(F_WRLCK, 0, 5)).l_start, 2);
    EXPECT_EQ(Get(fd(), Range(F_WRLCK, 5, 0)).l_start, 9);
  }));
}
TEST_F(FileLock, PosixDropsOnAnyClose) {
  ASSERT_OK(Set(fd(), Range(F_WRLCK)));
  { const ScopedFd other = Reopen(); }
  EXPECT_TRUE(PassesInChild([&] { EXPECT_OK(Set(fd(), Range(F_WRLCK))); }));
}
TEST_F(FileLock, PosixNotInheritedByFork) {
  ASSERT_OK(Set(fd(), Range(F_WRLCK)));
  EXPECT_TRUE(PassesInChild([&] { EXPECT_FAIL(Set(fd(), Range(F_WRLCK)), EAGAIN); }));
}
TEST_F(FileLock, PosixReleasedAtExit) {
  EXPECT_TRUE(PassesInChild([&] { EXPECT_OK(Set(fd(), Range(F_WRLCK))); }));
  EXPECT_OK(Set(fd(), Range(F_WRLCK)));
}
TEST_F(FileLock, PosixBlocksUntilHolderExits) {
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]);
  ScopedFd w(p[1]);
  const pid_t child = Spawn([&] {
    ASSERT_OK(Set(fd(), Range(F_WRLCK)));
    write(w.get(), "x", 1);
    usleep(30'000);
  });
  char c;
  ASSERT_EQ(read(r.get(), &c, 1), 1);
  EXPECT_OK(Set(fd(), Range(F_WRLCK), F_SETLKW));
  EXPECT_EQ(WaitStatus(child), 0);
}
TEST_F(FileLock, PosixDeadlockIsRefused) {
  ASSERT_OK(Set(fd(), Range(F_WRLCK, 0, 1)));
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]), w(p[1]);
  const pid_t child = Spawn([&] {
    ASSERT_OK(Set(fd(), Range(F_WRLCK, 1, 1)));
    write(w.get(), "x", 1);
    EXPECT_OK(Set(fd(), Range(F_WRLCK, 0, 1), F_SETLKW));
  });
  char c;
  ASSERT_EQ(read(r.get(), &c, 1), 1);
  ASSERT_TRUE(Sleeps(child));
  EXPECT_FAIL(Set(fd(), Range(F_WRLCK, 1, 1), F_SETLKW), EDEADLK);
  ASSERT_OK(Set(fd(), Range(F_UNLCK, 0, 1)));
  EXPECT_EQ(WaitStatus(child), 0);
}
TEST_F(FileLock, PosixNeedsTheAccessMode) {
  const ScopedFd r = Reopen(O_RDONLY), w = Reopen(O_WRONLY);
  EXPECT_FAIL(Set(r.get(), Range(F_WRLCK)), EBADF);
  EXPECT_FAIL(Set(w.get(), Range(F_RDLCK)), EBADF);
}
TEST_F(FileLock, PosixErrors) {
  EXPECT_FAIL(Set(fd(), Range(F_WRLCK, -1, 1)), EINVAL);
  EXPECT_FAIL(Set(fd(), Range(F_WRLCK, 5, -6)), EINVAL);
  EXPECT_FAIL(Set(fd(), Range(77)), EINVAL);
  EXPECT_FAIL(Set(fd(), Range(F_WRLCK, 0, 0, 9)), EINVAL);
  EXPECT_FAIL(Set(-1, Range(F_WRLCK)), EBADF);
  EXPECT_FAIL(fcntl(fd(), F_SETLK, nullptr), EFAULT);
  struct flock query = Range(F_UNLCK);
  EXPECT_FAIL(fcntl(fd(), F_GETLK, &query), EINVAL);
}
TEST_F(FileLock, FlockAndPosixAreIndependent) {
  ASSERT_OK(flock(fd(), LOCK_EX));
  EXPECT_TRUE(PassesInChild([&] {
    const ScopedFd other = Reopen();
    EXPECT_OK(Set(other.get(), Range(F_WRLCK)));
  }));
}

TEST_F(FileLock, OfdConflictsWithinOneProcess) {
  ASSERT_OK(Set(fd(), Range(F_WRLCK, 0, 5), F_OFD_SETLK));
  const ScopedFd other = Reopen();
  EXPECT_FAIL(Set(other.get(), Range(F_WRLCK, 0, 1), F_OFD_SETLK), EAGAIN);
  EXPECT_OK(Set(other.get(), Range(F_WRLCK, 5, 1), F_OFD_SETLK));
}
TEST_F(FileLock, OfdSurvivesCloseOfAnotherOpen) {
  ASSERT_OK(Set(fd(), Range(F_WRLCK), F_OFD_SETLK));
  { const ScopedFd other = Reopen(); }
  const ScopedFd third = Reopen();
  EXPECT_FAIL(Set(third.get(), Range(F_WRLCK), F_OFD_SETLK), EAGAIN);
}
TEST_F(FileLock, OfdSharedWithDupAndChild) {
  ASSERT_OK(Set(fd(), Range(F_WRLCK), F_OFD_SETLK));
  EXPECT_TRUE(PassesInChild([&] { EXPECT_OK(Set(fd(), Range(F_WRLCK), F_OFD_SETLK)); }));
}
TEST_F(FileLock, OfdAndPosixConflict) {
  ASSERT_OK(Set(fd(), Range(F_WRLCK), F_OFD_SETLK));
  const ScopedFd other = Reopen();
  EXPECT_FAIL(Set(other.get(), Range(F_WRLCK)), EAGAIN);
  const struct flock got = Get(other.get(), Range(F_WRLCK));
  EXPECT_EQ(got.l_type, F_WRLCK);
  EXPECT_EQ(got.l_pid, -1);
}
TEST_F(FileLock, OfdPidMustBeZero) {
  struct flock lock = Range(F_WRLCK);
  lock.l_pid = 1;
  EXPECT_FAIL(fcntl(fd(), F_OFD_SETLK, &lock), EINVAL);
}
TEST_F(FileLock, OfdGetlk) {
  ASSERT_OK(Set(fd(), Range(F_RDLCK, 3, 4), F_OFD_SETLK));
  const ScopedFd other = Reopen();
  const struct flock got = Get(other.get(), Range(F_WRLCK), F_OFD_GETLK);
  EXPECT_EQ(got.l_type, F_RDLCK);
  EXPECT_EQ(got.l_start, 3);
  EXPECT_EQ(got.l_len, 4);
}
TEST_F(FileLock, OfdBlockingWait) {
  ASSERT_OK(Set(fd(), Range(F_WRLCK), F_OFD_SETLK));
  std::thread releaser([&] {
    usleep(20'000);
    EXPECT_OK(Set(fd(), Range(F_UNLCK), F_OFD_SETLK));
  });
  const ScopedFd other = Reopen();
  EXPECT_OK(Set(other.get(), Range(F_WRLCK), F_OFD_SETLKW));
  releaser.join();
}
TEST_F(FileLock, BlockedLockIsInterrupted) {
  ASSERT_OK(Set(fd(), Range(F_WRLCK), F_OFD_SETLK));
  const pid_t child = Spawn([&] {
    const ScopedAction action(SIGUSR1, [](int) {});
    const ScopedFd other = Reopen();
    EXPECT_FAIL(Set(other.get(), Range(F_WRLCK), F_SETLKW), EINTR);
  });
  ASSERT_TRUE(Sleeps(child));
  usleep(10'000);
  ASSERT_OK(kill(child, SIGUSR1));
  EXPECT_EQ(WaitStatus(child), 0);
}

TEST_F(FileLock, LeaseState) {
  fd_ = Reopen(O_RDONLY);
  EXPECT_EQ(fcntl(fd(), F_GETLEASE), F_UNLCK);
  ASSERT_OK(fcntl(fd(), F_SETLEASE, F_RDLCK));
  EXPECT_EQ(fcntl(fd(), F_GETLEASE), F_RDLCK);
  ASSERT_OK(fcntl(fd(), F_SETLEASE, F_UNLCK));
  EXPECT_EQ(fcntl(fd(), F_GETLEASE), F_UNLCK);
}
TEST_F(FileLock, LeaseConflicts) {
  const ScopedFd reader = Reopen(O_RDONLY);
  EXPECT_FAIL(fcntl(reader.get(), F_SETLEASE, F_RDLCK), EAGAIN);  // fd() has it open for writing
  EXPECT_FAIL(fcntl(fd(), F_SETLEASE, F_WRLCK), EAGAIN);          // reader has it open
}
TEST_F(FileLock, LeaseBreakSignalsTheHolder) {
  fd_ = Reopen(O_RDONLY);
  SignalLog::Reset();
  const ScopedAction action(SIGIO, SignalLog::Record);
  ASSERT_OK(fcntl(fd(), F_SETLEASE, F_RDLCK));
  EXPECT_FAIL(open(path_.c_str(), O_WRONLY | O_NONBLOCK), EWOULDBLOCK);
  EXPECT_TRUE(Eventually([] { return SignalLog::count > 0; }));
  ASSERT_OK(fcntl(fd(), F_SETLEASE, F_UNLCK));
  const ScopedFd w = Reopen(O_WRONLY);
  EXPECT_OK(w.get());
}

// A child whose open meets a lease of ours; it ends well when `body` passes in it.
class Lease : public FileLock {
 protected:
  void SetUp() override {
    FileLock::SetUp();
    SignalLog::Reset();
    action_ = std::make_unique<ScopedAction>(SIGIO, SignalLog::Record);
  }
  void Hold(int type) {
    fd_ = Reopen(O_RDONLY);
    ASSERT_OK(fcntl(fd(), F_SETLEASE, type));
  }
  void AwaitBreak(pid_t child) {
    ASSERT_TRUE(Eventually([] { return SignalLog::count > 0; }));
    ASSERT_TRUE(Sleeps(child));
  }
  std::unique_ptr<ScopedAction> action_;
};
TEST_F(Lease, OpenWaitsForTheHolder) {
  Hold(F_RDLCK);
  const ScopedFd reader = Reopen(O_RDONLY);
  EXPECT_OK(reader.get());
  const pid_t child = Spawn([&] { EXPECT_OK(Reopen(O_WRONLY).get()); });
  AwaitBreak(child);
  EXPECT_EQ(fcntl(fd(), F_GETLEASE), F_UNLCK) << "what it is to become";
  ASSERT_OK(fcntl(fd(), F_SETLEASE, F_UNLCK));
  EXPECT_EQ(WaitStatus(child), 0);
}
TEST_F(Lease, DowngradeLetsReadersIn) {
  Hold(F_WRLCK);
  const pid_t child = Spawn([&] { EXPECT_OK(Reopen(O_RDONLY).get()); });
  AwaitBreak(child);
  EXPECT_EQ(fcntl(fd(), F_GETLEASE), F_RDLCK);
  ASSERT_OK(fcntl(fd(), F_SETLEASE, F_RDLCK));
  EXPECT_EQ(WaitStatus(child), 0);
  EXPECT_EQ(fcntl(fd(), F_GETLEASE), F_RDLCK);
}
TEST_F(Lease, CloseGivesItUp) {
  Hold(F_WRLCK);
  const pid_t child = Spawn([&] {
    fd_.Reset();  // the child's copy
    EXPECT_OK(Reopen(O_WRONLY).get());
  });
  AwaitBreak(child);
  fd_.Reset();
  EXPECT_EQ(WaitStatus(child), 0);
}
TEST_F(Lease, WaitIsInterrupted) {
  Hold(F_RDLCK);
  const pid_t child = Spawn([&] {
    const ScopedAction action(SIGUSR1, [](int, siginfo_t*, void*) {});
    EXPECT_FAIL(Reopen(O_WRONLY).get(), EINTR);
  });
  AwaitBreak(child);
  usleep(10'000);
  ASSERT_OK(kill(child, SIGUSR1));
  EXPECT_EQ(WaitStatus(child), 0);
}
TEST_F(Lease, TruncateWaits) {
  Hold(F_RDLCK);
  const pid_t child = Spawn([&] { EXPECT_OK(truncate(path_.c_str(), 3)); });
  AwaitBreak(child);
  ASSERT_OK(fcntl(fd(), F_SETLEASE, F_UNLCK));
  EXPECT_EQ(WaitStatus(child), 0);
  EXPECT_EQ(ReadFile(path_), "012");
}
TEST_F(Lease, OwnDescriptorBreaksNothing) {
  fd_ = Reopen(O_RDWR);
  ASSERT_OK(fcntl(fd(), F_SETLEASE, F_WRLCK));
  EXPECT_OK(ftruncate(fd(), 3));
  EXPECT_EQ(write(fd(), "x", 1), 1);
  EXPECT_OK(fchmod(fd(), 0600));
  EXPECT_EQ(fcntl(fd(), F_GETLEASE), F_WRLCK);
  EXPECT_EQ(SignalLog::count, 0);
  EXPECT_FAIL(open(path_.c_str(), O_RDONLY | O_NONBLOCK), EWOULDBLOCK);
  EXPECT_TRUE(Eventually([] { return SignalLog::count > 0; }));
}
TEST_F(Lease, SeveralHoldersAreAwaited) {
  Hold(F_RDLCK);
  const ScopedFd second = Reopen(O_RDONLY);
  ASSERT_OK(fcntl(second.get(), F_SETLEASE, F_RDLCK));
  const pid_t child = Spawn([&] { EXPECT_OK(Reopen(O_RDWR | O_TRUNC).get()); });
  AwaitBreak(child);
  ASSERT_OK(fcntl(fd(), F_SETLEASE, F_UNLCK));
  usleep(20'000);
  EXPECT_EQ(ReadFile(path_), "0123456789") << "not opened yet";
  ASSERT_OK(fcntl(second.get(), F_SETLEASE, F_UNLCK));
  EXPECT_EQ(WaitStatus(child), 0);
  EXPECT_EQ(ReadFile(path_), "");
}

}  // namespace
}  // namespace moat::guest
