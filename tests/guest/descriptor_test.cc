// dup(2), fcntl(2) on descriptors, close(2), close_range(2), ioctl(2) on descriptors.
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>

#include "tests/guest/support/child.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

class Descriptor : public testing::Test {
 protected:
  void SetUp() override {
    fd_.Reset(open(dir_.File("f", "0123456789").c_str(), O_RDWR));
    ASSERT_OK(fd_.get());
  }
  static bool IsOpen(int fd) { return fcntl(fd, F_GETFD) != -1; }
  int fd() const { return fd_.get(); }
  TempDir dir_;
  ScopedFd fd_;
};

TEST_F(Descriptor, DupSharesOffsetAndStatusFlags) {
  const ScopedFd copy(dup(fd()));
  ASSERT_OK(copy.get());
  ASSERT_EQ(lseek(fd(), 3, SEEK_SET), 3);
  EXPECT_EQ(lseek(copy.get(), 0, SEEK_CUR), 3);
  ASSERT_OK(fcntl(fd(), F_SETFL, O_APPEND));
  EXPECT_TRUE(fcntl(copy.get(), F_GETFL) & O_APPEND);
}
TEST_F(Descriptor, DupDoesNotShareCloexec) {
  ASSERT_OK(fcntl(fd(), F_SETFD, FD_CLOEXEC));
  const ScopedFd copy(dup(fd()));
  EXPECT_EQ(fcntl(copy.get(), F_GETFD), 0);
  EXPECT_EQ(fcntl(fd(), F_GETFD), FD_CLOEXEC);
}
TEST_F(Descriptor, Dup2ReplacesTheTarget) {
  const ScopedFd other(open("/dev/null", O_RDWR));
  const int number = other.get();
  EXPECT_EQ(dup2(fd(), number), number);
  struct stat a, b;
  ASSERT_OK(fstat(fd(), &a));
  ASSERT_OK(fstat(number, &b));
  EXPECT_EQ(a.st_ino, b.st_ino);
}
TEST_F(Descriptor, Dup2OntoItself) {
  ASSERT_OK(fcntl(fd(), F_SETFD, FD_CLOEXEC));
  EXPECT_EQ(dup2(fd(), fd()), fd());
  EXPECT_EQ(fcntl(fd(), F_GETFD), FD_CLOEXEC);
  EXPECT_FAIL(dup2(500, 500), EBADF);
}
TEST_F(Descriptor, DupErrors) {
  EXPECT_FAIL(dup(-1), EBADF);
  EXPECT_FAIL(dup2(-1, 100), EBADF);
  EXPECT_FAIL(dup2(fd(), -1), EBADF);
  EXPECT_FAIL(dup3(fd(), fd(), 0), EINVAL);
  EXPECT_FAIL(dup3(fd(), 100, O_APPEND), EINVAL);
  rlimit limit;
  ASSERT_OK(getrlimit(RLIMIT_NOFILE, &limit));
  EXPECT_FAIL(dup2(fd(), static_cast<int>(limit.rlim_cur)), EBADF);
}
TEST_F(Descriptor, Dup3Cloexec) {
  const ScopedFd copy(dup3(fd(), 100, O_CLOEXEC));
  ASSERT_EQ(copy.get(), 100);
  EXPECT_EQ(fcntl(100, F_GETFD), FD_CLOEXEC);
}
TEST_F(Descriptor, FDupfdStartsAtTheMinimum) {
  const ScopedFd copy(fcntl(fd(), F_DUPFD, 200)), next(fcntl(fd(), F_DUPFD_CLOEXEC, 200));
  EXPECT_EQ(copy.get(), 200);
  EXPECT_EQ(next.get(), 201);
  EXPECT_EQ(fcntl(200, F_GETFD), 0);
  EXPECT_EQ(fcntl(201, F_GETFD), FD_CLOEXEC);
  EXPECT_FAIL(fcntl(fd(), F_DUPFD, -1), EINVAL);
  EXPECT_FAIL(fcntl(fd(), F_DUPFD, 1 << 30), EINVAL);
}
TEST_F(Descriptor, SetflChangesOnlySomeFlags) {
  ASSERT_OK(fcntl(fd(), F_SETFL, O_RDONLY | O_APPEND | O_NONBLOCK | O_EXCL));
  const int flags = fcntl(fd(), F_GETFL);
  EXPECT_EQ(flags & O_ACCMODE, O_RDWR);
  EXPECT_TRUE(flags & O_APPEND);
  EXPECT_TRUE(flags & O_NONBLOCK);
  ASSERT_OK(fcntl(fd(), F_SETFL, 0));
  EXPECT_FALSE(fcntl(fd(), F_GETFL) & (O_APPEND | O_NONBLOCK));
}
TEST_F(Descriptor, FcntlErrors) {
  EXPECT_FAIL(fcntl(-1, F_GETFD), EBADF);
  EXPECT_FAIL(fcntl(fd(), 9999), EINVAL);
}
TEST_F(Descriptor, CloseTwice) {
  const int copy = dup(fd());
  EXPECT_OK(close(copy));
  EXPECT_FAIL(close(copy), EBADF);
  EXPECT_FAIL(close(-1), EBADF);
}
TEST_F(Descriptor, CloexecClosesOnExec) {
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_EQ(dup3(fd(), 50, O_CLOEXEC), 50);
    ASSERT_EQ(dup2(fd(), 51), 51);
    ExecRole("check_fds", {"closed:50", "open:51"});
    ADD_FAILURE() << "exec: " << ErrnoName(errno);
  }));
}
MOAT_ROLE(check_fds) {
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    const bool want_open = arg[0] == 'o';
    const int fd = atoi(arg.c_str() + arg.find(':') + 1);
    if ((fcntl(fd, F_GETFD) != -1) != want_open) return i;
  }
  return 0;
}

TEST_F(Descriptor, CloseRange) {
  for (int n : {300, 301, 305, 310}) ASSERT_EQ(dup2(fd(), n), n);
  ASSERT_OK(close_range(300, 305, 0));
  EXPECT_FALSE(IsOpen(300));
  EXPECT_FALSE(IsOpen(305));
  EXPECT_TRUE(IsOpen(310));
  ASSERT_OK(close_range(306, ~0u, 0));
  EXPECT_FALSE(IsOpen(310));
}
TEST_F(Descriptor, CloseRangeCloexec) {
  for (int n : {300, 301}) ASSERT_EQ(dup2(fd(), n), n);
  ASSERT_OK(close_range(300, 400, CLOSE_RANGE_CLOEXEC));
  EXPECT_EQ(fcntl(300, F_GETFD), FD_CLOEXEC);
  ASSERT_OK(close_range(300, 301, 0));
}
TEST_F(Descriptor, CloseRangeErrors) {
  EXPECT_FAIL(close_range(10, 9, 0), EINVAL);
  EXPECT_FAIL(close_range(300, 400, 0x80), EINVAL);
}
TEST_F(Descriptor, CloseRangeUnshareLeavesOtherThreadsAlone) {
  ASSERT_EQ(dup2(fd(), 300), 300);
  std::thread([] {
    EXPECT_OK(close_range(300, 400, CLOSE_RANGE_UNSHARE));
    EXPECT_FALSE(IsOpen(300));
  }).join();
  EXPECT_TRUE(IsOpen(300));
  close(300);
}
TEST_F(Descriptor, CloseRangeUnshareLeavesTheTableForGood) {
  // What the child leaves behind is the parent's alone, so that the next child shares a table of two again.
  EXPECT_TRUE(PassesInChild([this] {
    ASSERT_EQ(dup2(fd(), 300), 300);
    for (int i = 0; i < 3; ++i) {
      clone_args args = {};
      args.flags = CLONE_FILES;
      args.exit_signal = SIGCHLD;
      const pid_t child = Clone3(&args);
      if (child == 0) {
        const bool fine = close_range(300, 400, CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC) == 0 && IsOpen(300);
        _exit(fine ? 0 : 1);
      }
      EXPECT_EQ(WaitStatus(child), 0);
      ASSERT_TRUE(IsOpen(300));
      EXPECT_EQ(fcntl(300, F_GETFD), 0);
      ASSERT_OK(close_range(900, 901, CLOSE_RANGE_UNSHARE));  // nobody to leave
    }
  }));
}
TEST_F(Descriptor, ThreadsShareTheTable) {
  int made = -1;
  std::thread([&] { made = dup(fd()); }).join();
  EXPECT_TRUE(IsOpen(made));
  EXPECT_OK(close(made));
}
TEST_F(Descriptor, ForkCopiesTheTable) {
  EXPECT_TRUE(PassesInChild([&] { EXPECT_OK(close(fd())); }));
  EXPECT_TRUE(IsOpen(fd()));
}

TEST_F(Descriptor, IoctlCloexecAndNonblock) {
  ASSERT_OK(ioctl(fd(), FIOCLEX));
  EXPECT_EQ(fcntl(fd(), F_GETFD), FD_CLOEXEC);
  ASSERT_OK(ioctl(fd(), FIONCLEX));
  EXPECT_EQ(fcntl(fd(), F_GETFD), 0);
  int on = 1;
  ASSERT_OK(ioctl(fd(), FIONBIO, &on));
  EXPECT_TRUE(fcntl(fd(), F_GETFL) & O_NONBLOCK);
}
TEST_F(Descriptor, IoctlErrors) {
  int n;
  EXPECT_FAIL(ioctl(-1, FIONREAD, &n), EBADF);
  EXPECT_FAIL(ioctl(fd(), 0x1234, &n), ENOTTY);
  EXPECT_FAIL(ioctl(fd(), TCGETS, &n), ENOTTY);
}
TEST_F(Descriptor, IoctlsOfEveryFileSystem) {
  int block = 0;
  ASSERT_OK(ioctl(fd(), FIGETBSZ, &block));
  EXPECT_GE(block, 512);
  EXPECT_EQ(block & (block - 1), 0);
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]), w(p[1]);
  const ScopedFd null(open("/dev/null", O_RDWR));
  const ScopedFd dir = dir_.Open();
  const ScopedFd other(open(dir_.File("g").c_str(), O_RDWR));
  const ScopedFd read_only(open(dir_.Join("g").c_str(), O_RDONLY));
  EXPECT_FAIL(ioctl(other.get(), FICLONE, -1), EBADF);
  EXPECT_FAIL(ioctl(other.get(), FICLONE, r.get()), EXDEV);
  EXPECT_FAIL(ioctl(other.get(), FICLONE, dir.get()), EISDIR);
  EXPECT_FAIL(ioctl(read_only.get(), FICLONE, fd()), EBADF);
  file_clone_range range = {-1, 0, 0, 0};
  EXPECT_FAIL(ioctl(other.get(), FICLONERANGE, &range), EBADF);
  EXPECT_FAIL(ioctl(other.get(), FICLONERANGE, 8), EFAULT);
  if (ioctl(other.get(), FICLONE, fd()) == -1) EXPECT_EQ(errno, EOPNOTSUPP);  // unless it shares extents
}
TEST_F(Descriptor, FionreadOfFileIsTheRest) {
  int n = -1;
  ASSERT_EQ(lseek(fd(), 4, SEEK_SET), 4);
  ASSERT_OK(ioctl(fd(), FIONREAD, &n));
  EXPECT_EQ(n, 6);
}
TEST_F(Descriptor, OwnerOfSignals) {
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]), w(p[1]);
  EXPECT_EQ(fcntl(r.get(), F_GETOWN), 0);
  ASSERT_OK(fcntl(r.get(), F_SETOWN, getpid()));
  EXPECT_EQ(fcntl(r.get(), F_GETOWN), getpid());
  const f_owner_ex thread = {F_OWNER_TID, gettid()};
  ASSERT_OK(fcntl(r.get(), F_SETOWN_EX, &thread));
  f_owner_ex got;
  ASSERT_OK(fcntl(r.get(), F_GETOWN_EX, &got));
  EXPECT_EQ(got.type, F_OWNER_TID);
  EXPECT_EQ(got.pid, gettid());
}
TEST_F(Descriptor, AsyncPipeSendsSigio) {
  SignalLog::Reset();
  const ScopedAction action(SIGIO, SignalLog::Record);
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]), w(p[1]);
  ASSERT_OK(fcntl(r.get(), F_SETOWN, getpid()));
  ASSERT_OK(fcntl(r.get(), F_SETFL, O_ASYNC | O_NONBLOCK));
  ASSERT_EQ(write(w.get(), "x", 1), 1);
  EXPECT_TRUE(Eventually([] { return SignalLog::count > 0; }));
}
TEST_F(Descriptor, SignalOfChoiceCarriesTheDescriptor) {
  SignalLog::Reset();
  const ScopedAction action(SIGRTMIN + 1, SignalLog::Record);
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]), w(p[1]);
  ASSERT_OK(fcntl(r.get(), F_SETSIG, SIGRTMIN + 1));
  EXPECT_EQ(fcntl(r.get(), F_GETSIG), SIGRTMIN + 1);
  ASSERT_OK(fcntl(r.get(), F_SETOWN, getpid()));
  ASSERT_OK(fcntl(r.get(), F_SETFL, O_ASYNC | O_NONBLOCK));
  ASSERT_EQ(write(w.get(), "x", 1), 1);
  ASSERT_TRUE(Eventually([] { return SignalLog::count > 0; }));
  EXPECT_EQ(SignalLog::info[0].si_fd, r.get());
  EXPECT_EQ(SignalLog::info[0].si_code, POLL_IN);
}
TEST_F(Descriptor, CreatedQueryTellsWhoMadeTheFile) {
  constexpr int kCreatedQuery = 1024 + 4;  // F_CREATED_QUERY, since Linux 6.12
  const std::string path = dir_.Join("new");
  const ScopedFd made(open(path.c_str(), O_CREAT | O_RDWR, 0600));
  if (fcntl(made.get(), kCreatedQuery) == -1 && errno == EINVAL) GTEST_SKIP() << "this Linux is older";
  EXPECT_EQ(fcntl(made.get(), kCreatedQuery), 1);
  const ScopedFd again(open(path.c_str(), O_CREAT | O_RDWR, 0600));
  EXPECT_EQ(fcntl(again.get(), kCreatedQuery), 0);
  const ScopedFd nameless(open(dir_.path().c_str(), O_TMPFILE | O_RDWR, 0600));
  EXPECT_EQ(fcntl(nameless.get(), kCreatedQuery), 0);
}
TEST_F(Descriptor, KcmpFindsSameOpenFile) {
  const ScopedFd copy(dup(fd()));
  const ScopedFd other(open(dir_.Join("f").c_str(), O_RDWR));
  EXPECT_EQ(syscall(SYS_kcmp, getpid(), getpid(), 0, fd(), copy.get()), 0);
  EXPECT_NE(syscall(SYS_kcmp, getpid(), getpid(), 0, fd(), other.get()), 0);
}

}  // namespace
}  // namespace moat::guest
