// poll(2), ppoll(2), select(2), pselect(2).
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#include <thread>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

class Poll : public testing::Test {
 protected:
  void SetUp() override {
    int p[2];
    ASSERT_OK(pipe2(p, O_NONBLOCK));
    r_.Reset(p[0]);
    w_.Reset(p[1]);
  }
  int r() const { return r_.get(); }
  int w() const { return w_.get(); }
  void Write() { ASSERT_EQ(write(w(), "x", 1), 1); }
  static double Now() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
  }
  static fd_set Set(std::initializer_list<int> fds) {
    fd_set set;
    FD_ZERO(&set);
    for (int fd : fds) FD_SET(fd, &set);
    return set;
  }
  ScopedFd r_, w_;
};

TEST_F(Poll, CountsReadyDescriptors) {
  Write();
  pollfd p[] = {{r(), POLLIN, 0}, {w(), POLLOUT, 0}, {w(), POLLIN, 0}};
  EXPECT_EQ(poll(p, 3, 0), 2);
  EXPECT_EQ(p[0].revents, POLLIN);
  EXPECT_EQ(p[1].revents, POLLOUT);
  EXPECT_EQ(p[2].revents, 0);
}
TEST_F(Poll, NegativeDescriptorIsIgnored) {
  pollfd p = {-1, POLLIN, 77};
  EXPECT_EQ(poll(&p, 1, 0), 0);
  EXPECT_EQ(p.revents, 0);
}
TEST_F(Poll, ClosedDescriptorIsNval) {
  pollfd p = {900, POLLIN, 0};
  EXPECT_EQ(poll(&p, 1, 5000), 1);
  EXPECT_EQ(p.revents, POLLNVAL);
}
TEST_F(Poll, RegularFileIsAlwaysReady) {
  const TempDir dir;
  const ScopedFd fd(open(dir.File("f").c_str(), O_RDWR));
  pollfd p = {fd.get(), POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM, 0};
  EXPECT_EQ(poll(&p, 1, 0), 1);
  EXPECT_EQ(p.revents, POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM);
}
TEST_F(Poll, TimeoutWithNoDescriptors) {
  const double start = Now();
  EXPECT_EQ(poll(nullptr, 0, 20), 0);
  EXPECT_GE(Now() - start, 0.019);
}
TEST_F(Poll, WakesOnData) {
  std::thread writer([&] {
    usleep(10'000);
    Write();
  });
  pollfd p = {r(), POLLIN, 0};
  EXPECT_EQ(poll(&p, 1, -1), 1);
  writer.join();
}
TEST_F(Poll, WakesOnHangupWithoutInterest) {
  std::thread closer([&] {
    usleep(10'000);
    w_.Reset();
  });
  pollfd p = {r(), 0, 0};
  EXPECT_EQ(poll(&p, 1, 5000), 1);
  EXPECT_EQ(p.revents, POLLHUP);
  closer.join();
}
TEST_F(Poll, Errors) {
  EXPECT_FAIL(poll(reinterpret_cast<pollfd*>(BadPointer()), 1, 0), EFAULT);
  rlimit limit;
  ASSERT_OK(getrlimit(RLIMIT_NOFILE, &limit));
  EXPECT_FAIL(syscall(SYS_poll, nullptr, limit.rlim_cur + 1, 0), EINVAL);
}
TEST_F(Poll, InterruptedDespiteRestart) {
  const pid_t child = Spawn([&] {
    const ScopedAction action(
        SIGUSR1, [](int, siginfo_t*, void*) {}, SA_RESTART);
    pollfd p = {r(), POLLIN, 0};
    EXPECT_FAIL(poll(&p, 1, 10'000), EINTR);
  });
  ASSERT_TRUE(Sleeps(child));
  usleep(10'000);
  ASSERT_OK(kill(child, SIGUSR1));
  EXPECT_EQ(WaitStatus(child), 0);
}
TEST_F(Poll, ContinuesAfterStopAndCont) {  // no handler runs, so the wait is restarted with the rest of its time
  // Longer on a busy machine, until it is stopped while it waits.
  for (int time = 200; time < 10'000; time *= 2) {
    const pid_t child = Spawn([&] {
      pollfd p = {r(), POLLIN, 0};
      const double start = Now();
      EXPECT_EQ(poll(&p, 1, time), 0);
      EXPECT_GE(Now() - start, 0.00095 * time);
    });
    const bool waits = Sleeps(child, child, 0.0005 * time);
    ASSERT_OK(kill(child, SIGSTOP));
    int status;
    ASSERT_OK(waitpid(child, &status, WUNTRACED));
    const bool stopped = WIFSTOPPED(status);
    if (stopped) {
      ASSERT_OK(kill(child, SIGCONT));
      EXPECT_EQ(WaitStatus(child), 0);
    }
    if (waits && stopped) return;
  }
  FAIL() << "it was never seen waiting";
}
TEST_F(Poll, PpollSwapsTheMask) {
  SignalLog::Reset();
  const ScopedAction action(SIGUSR1, SignalLog::Record);
  const ScopedBlock block({SIGUSR1});
  ASSERT_OK(raise(SIGUSR1));
  EXPECT_EQ(poll(nullptr, 0, 1), 0);
  const sigset_t none = SignalSet({});
  const timespec timeout = {5, 0};
  EXPECT_FAIL(ppoll(nullptr, 0, &timeout, &none), EINTR);
  EXPECT_EQ(SignalLog::count, 1);
  sigset_t now;
  ASSERT_OK(sigprocmask(SIG_BLOCK, nullptr, &now));
  EXPECT_TRUE(sigismember(&now, SIGUSR1));
}
TEST_F(Poll, RawPpollWritesTheRemainingTime) {
  timespec timeout = {10, 0};
  Write();
  pollfd p = {r(), POLLIN, 0};
  EXPECT_EQ(syscall(SYS_ppoll, &p, 1, &timeout, nullptr, 8), 1);
  EXPECT_LE(timeout.tv_sec, 10);
  EXPECT_GE(timeout.tv_sec, 9);
  EXPECT_FAIL(syscall(SYS_ppoll, &p, 1, &timeout, &timeout, 4), EINVAL);  // a mask of the wrong size
  timeout = {0, -1};
  EXPECT_FAIL(syscall(SYS_ppoll, &p, 1, &timeout, nullptr, 8), EINVAL);
}

TEST_F(Poll, StickyTimeoutsStayAsTheyWere) {
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(personality(STICKY_TIMEOUTS));
    timeval tv = {0, 2000};
    EXPECT_EQ(select(0, nullptr, nullptr, nullptr, &tv), 0);
    EXPECT_EQ(tv.tv_usec, 2000);
    timespec ts = {0, 2000000};
    EXPECT_EQ(syscall(SYS_ppoll, nullptr, 0, &ts, nullptr, 0), 0);
    EXPECT_EQ(ts.tv_nsec, 2000000);
  }));
}
TEST_F(Poll, SelectReadAndWriteSets) {
  Write();
  fd_set in = Set({r(), w()}), out = Set({r(), w()});
  timeval zero = {};
  EXPECT_EQ(select(w() + 1, &in, &out, nullptr, &zero), 2);
  EXPECT_TRUE(FD_ISSET(r(), &in));
  EXPECT_FALSE(FD_ISSET(w(), &in));
  EXPECT_FALSE(FD_ISSET(r(), &out));
  EXPECT_TRUE(FD_ISSET(w(), &out));
}
TEST_F(Poll, SelectTimeoutClearsSetsAndTime) {
  fd_set in = Set({r()});
  timeval timeout = {0, 10'000};
  EXPECT_EQ(select(r() + 1, &in, nullptr, nullptr, &timeout), 0);
  EXPECT_FALSE(FD_ISSET(r(), &in));
  EXPECT_EQ(timeout.tv_sec, 0);
  EXPECT_EQ(timeout.tv_usec, 0);
}
TEST_F(Poll, SelectIgnoresBeyondCount) {
  Write();
  fd_set in = Set({r()});
  timeval zero = {};
  EXPECT_EQ(select(r(), &in, nullptr, nullptr, &zero), 0);
}
TEST_F(Poll, SelectHangupIsReadable) {
  w_.Reset();
  fd_set in = Set({r()});
  EXPECT_EQ(select(r() + 1, &in, nullptr, nullptr, nullptr), 1);
}
TEST_F(Poll, SelectErrors) {
  const int closed = dup(r());
  ASSERT_OK(close(closed));
  fd_set in = Set({closed});
  timeval zero = {}, negative = {-1, 0};
  EXPECT_FAIL(select(closed + 1, &in, nullptr, nullptr, &zero), EBADF);
  EXPECT_FAIL(select(-1, nullptr, nullptr, nullptr, &zero), EINVAL);
  EXPECT_FAIL(select(0, nullptr, nullptr, nullptr, &negative), EINVAL);
  EXPECT_FAIL(select(8, reinterpret_cast<fd_set*>(BadPointer()), nullptr, nullptr, &zero), EFAULT);
}
TEST_F(Poll, PselectSwapsTheMaskAndKeepsTheTimeout) {
  SignalLog::Reset();
  const ScopedAction action(SIGUSR1, SignalLog::Record);
  const ScopedBlock block({SIGUSR1});
  ASSERT_OK(raise(SIGUSR1));
  const sigset_t none = SignalSet({});
  const timespec timeout = {5, 0};
  EXPECT_FAIL(pselect(0, nullptr, nullptr, nullptr, &timeout, &none), EINTR);
  EXPECT_EQ(SignalLog::count, 1);
}
TEST_F(Poll, SelectManyDescriptors) {
  std::vector<ScopedFd> copies;
  for (int i = 0; i < 200; ++i) copies.emplace_back(dup(r()));
  Write();
  fd_set in;
  FD_ZERO(&in);
  for (const ScopedFd& fd : copies) FD_SET(fd.get(), &in);
  EXPECT_EQ(select(copies.back().get() + 1, &in, nullptr, nullptr, nullptr), 200);
}
TEST_F(Poll, ListeningSocketBecomesReadable) {
  const ScopedFd listener(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0)), client(socket(AF_UNIX, SOCK_STREAM, 0));
  ASSERT_OK(bind(listener.get(), reinterpret_cast<const sockaddr*>("\1\0"), 2));  // autobind
  ASSERT_OK(listen(listener.get(), 1));
  sockaddr_storage addr;
  socklen_t length = sizeof addr;
  ASSERT_OK(getsockname(listener.get(), reinterpret_cast<sockaddr*>(&addr), &length));
  pollfd p = {listener.get(), POLLIN, 0};
  EXPECT_EQ(poll(&p, 1, 0), 0);
  ASSERT_OK(connect(client.get(), reinterpret_cast<sockaddr*>(&addr), length));
  EXPECT_EQ(poll(&p, 1, 0), 1);
}

}  // namespace
}  // namespace moat::guest
