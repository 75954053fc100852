// signalfd(2).
#include <fcntl.h>
#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <thread>

#include "platform/base/scoped_fd.h"
#include "tests/guest/support/child.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"

namespace moat::guest {
namespace {

class SignalFd : public testing::Test {
 protected:
  SignalFd() : block_({SIGUSR1, SIGUSR2, SIGCHLD, SIGRTMIN}) {}
  void Make(std::initializer_list<int> signals, int flags = SFD_NONBLOCK) {
    const sigset_t set = SignalSet(signals);
    fd_.Reset(signalfd(-1, &set, flags));
    ASSERT_OK(fd_.get());
  }
  signalfd_siginfo Take() {
    signalfd_siginfo info = {};
    EXPECT_EQ(read(fd_.get(), &info, sizeof info), static_cast<ssize_t>(sizeof info)) << ErrnoName(errno);
    return info;
  }
  bool Ready() {
    pollfd p = {fd_.get(), POLLIN, 0};
    return poll(&p, 1, 0) == 1;
  }
  ScopedBlock block_;
  ScopedFd fd_;
};

TEST_F(SignalFd, ReadsAPendingSignal) {
  Make({SIGUSR1});
  EXPECT_FALSE(Ready());
  ASSERT_OK(kill(getpid(), SIGUSR1));
  EXPECT_TRUE(Ready());
  const signalfd_siginfo info = Take();
  EXPECT_EQ(info.ssi_signo, static_cast<uint32_t>(SIGUSR1));
  EXPECT_EQ(info.ssi_pid, static_cast<uint32_t>(getpid()));
  EXPECT_EQ(info.ssi_code, SI_USER);
  EXPECT_FALSE(Ready());
}
TEST_F(SignalFd, EmptyNonblocking) {
  Make({SIGUSR1});
  signalfd_siginfo info;
  EXPECT_FAIL(read(fd_.get(), &info, sizeof info), EAGAIN);
}
TEST_F(SignalFd, OtherSignalsStayPending) {
  Make({SIGUSR1});
  ASSERT_OK(raise(SIGUSR2));
  EXPECT_FALSE(Ready());
  const sigset_t two = SignalSet({SIGUSR2});
  EXPECT_EQ(sigwaitinfo(&two, nullptr), SIGUSR2);
}
TEST_F(SignalFd, SeveralInOneRead) {
  Make({SIGUSR1, SIGUSR2});
  ASSERT_OK(raise(SIGUSR2));
  ASSERT_OK(raise(SIGUSR1));
  signalfd_siginfo info[4];
  EXPECT_EQ(read(fd_.get(), info, sizeof info), static_cast<ssize_t>(2 * sizeof info[0]));
  EXPECT_EQ(info[0].ssi_signo, static_cast<uint32_t>(SIGUSR1));
}
TEST_F(SignalFd, QueuedValue) {
  Make({SIGRTMIN});
  ASSERT_OK(sigqueue(getpid(), SIGRTMIN, {.sival_int = 77}));
  const signalfd_siginfo info = Take();
  EXPECT_EQ(info.ssi_int, 77);
  EXPECT_EQ(info.ssi_code, SI_QUEUE);
}
TEST_F(SignalFd, ChildExit) {
  Make({SIGCHLD}, 0);
  const pid_t child = Spawn([] { _exit(5); });
  const signalfd_siginfo info = Take();
  EXPECT_EQ(info.ssi_pid, static_cast<uint32_t>(child));
  EXPECT_EQ(info.ssi_code, CLD_EXITED);
  EXPECT_EQ(info.ssi_status, 5);
  WaitStatus(child);
}
TEST_F(SignalFd, BlockedReadWakes) {
  Make({SIGUSR1}, 0);
  std::thread sender([] {
    usleep(10'000);
    kill(getpid(), SIGUSR1);
  });
  EXPECT_EQ(Take().ssi_signo, static_cast<uint32_t>(SIGUSR1));
  sender.join();
}
TEST_F(SignalFd, ChangeTheMask) {
  Make({SIGUSR1});
  const sigset_t two = SignalSet({SIGUSR2});
  EXPECT_EQ(signalfd(fd_.get(), &two, 0), fd_.get());
  ASSERT_OK(raise(SIGUSR2));
  EXPECT_TRUE(Ready());
  EXPECT_EQ(Take().ssi_signo, static_cast<uint32_t>(SIGUSR2));
}
TEST_F(SignalFd, ReaderSeesItsOwnSignalsAfterFork) {
  Make({SIGUSR1});
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(raise(SIGUSR1));
    EXPECT_EQ(Take().ssi_pid, static_cast<uint32_t>(getpid()));
  }));
  EXPECT_FALSE(Ready());
}
TEST_F(SignalFd, Errors) {
  const sigset_t set = SignalSet({SIGUSR1});
  EXPECT_FAIL(signalfd(-1, &set, 0x1), EINVAL);
  EXPECT_FAIL(signalfd(1000, &set, 0), EBADF);
  const ScopedFd null(open("/dev/null", O_RDWR));
  EXPECT_FAIL(signalfd(null.get(), &set, 0), EINVAL);
  EXPECT_FAIL(syscall(SYS_signalfd4, -1, &set, size_t{4}, 0), EINVAL);
  Make({SIGUSR1});
  char small[16];
  EXPECT_FAIL(read(fd_.get(), small, sizeof small), EINVAL);
}

}  // namespace
}  // namespace moat::guest
