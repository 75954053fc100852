// Real-time signals: sigqueue(3), rt_sigqueueinfo(2), sigtimedwait(2), queue order and limits.
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <thread>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"

namespace moat::guest {
namespace {

class SignalQueue : public testing::Test {
 protected:
  SignalQueue() : block_({SIGRTMIN, SIGRTMIN + 1, SIGRTMIN + 2, SIGUSR1, SIGUSR2}) { SignalLog::Reset(); }
  static int Send(int signal, int value) { return sigqueue(getpid(), signal, {.sival_int = value}); }
  // Waits for any of `signals`; the signal, with its info in info_.
  int Take(std::initializer_list<int> signals, long nanoseconds = 2'000'000'000) {
    const sigset_t set = SignalSet(signals);
    const timespec timeout = {nanoseconds / 1'000'000'000, nanoseconds % 1'000'000'000};
    return sigtimedwait(&set, &info_, &timeout);
  }
  ScopedBlock block_;
  siginfo_t info_ = {};
};

TEST_F(SignalQueue, ValueAndCode) {
  ASSERT_OK(Send(SIGRTMIN, 1234));
  ASSERT_EQ(Take({SIGRTMIN}), SIGRTMIN);
  EXPECT_EQ(info_.si_code, SI_QUEUE);
  EXPECT_EQ(info_.si_value.sival_int, 1234);
  EXPECT_EQ(info_.si_pid, getpid());
}
TEST_F(SignalQueue, RealTimeSignalsQueueInOrder) {
  for (int i = 0; i < 10; ++i) ASSERT_OK(Send(SIGRTMIN, i));
  for (int i = 0; i < 10; ++i) {
    ASSERT_EQ(Take({SIGRTMIN}), SIGRTMIN);
    EXPECT_EQ(info_.si_value.sival_int, i);
  }
  EXPECT_FAIL(Take({SIGRTMIN}, 0), EAGAIN);
}
TEST_F(SignalQueue, LowestNumberFirst) {
  ASSERT_OK(Send(SIGRTMIN + 2, 2));
  ASSERT_OK(Send(SIGRTMIN, 0));
  ASSERT_OK(Send(SIGRTMIN + 1, 1));
  ASSERT_OK(raise(SIGUSR1));
  EXPECT_EQ(Take({SIGUSR1, SIGRTMIN, SIGRTMIN + 1, SIGRTMIN + 2}), SIGUSR1);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Take({SIGUSR1, SIGRTMIN, SIGRTMIN + 1, SIGRTMIN + 2}), SIGRTMIN + i);
}
TEST_F(SignalQueue, StandardSignalKeepsTheFirstInfo) {
  ASSERT_OK(Send(SIGUSR1, 1));
  ASSERT_OK(Send(SIGUSR1, 2));
  ASSERT_EQ(Take({SIGUSR1}), SIGUSR1);
  EXPECT_EQ(info_.si_value.sival_int, 1);
  EXPECT_FAIL(Take({SIGUSR1}, 0), EAGAIN);
}
TEST_F(SignalQueue, HandlersRunForEachQueued) {
  const ScopedAction action(SIGRTMIN, SignalLog::Record);
  for (int i = 0; i < 5; ++i) ASSERT_OK(Send(SIGRTMIN, i));
  const sigset_t set = SignalSet({SIGRTMIN});
  ASSERT_EQ(pthread_sigmask(SIG_UNBLOCK, &set, nullptr), 0);
  EXPECT_EQ(SignalLog::count, 5);
  for (int i = 0; i < 5; ++i) EXPECT_EQ(SignalLog::info[i].si_value.sival_int, i);
}
TEST_F(SignalQueue, ThreadSignalBeforeProcessSignal) {
  ASSERT_OK(kill(getpid(), SIGUSR1));
  siginfo_t mine = {};
  mine.si_code = SI_QUEUE;
  mine.si_value.sival_int = 9;
  ASSERT_OK(RtTgsigqueueinfo(getpid(), gettid(), SIGUSR1, &mine));
  ASSERT_EQ(Take({SIGUSR1}), SIGUSR1);
  EXPECT_EQ(info_.si_code, SI_QUEUE);
  ASSERT_EQ(Take({SIGUSR1}), SIGUSR1);
  EXPECT_EQ(info_.si_code, SI_USER);
}
TEST_F(SignalQueue, TimedwaitTimesOut) {
  timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  EXPECT_FAIL(Take({SIGUSR1}, 20'000'000), EAGAIN);
  clock_gettime(CLOCK_MONOTONIC, &b);
  EXPECT_GE((b.tv_sec - a.tv_sec) * 1'000'000'000 + b.tv_nsec - a.tv_nsec, 19'000'000);
}
TEST_F(SignalQueue, TimedwaitWakesBySignal) {
  std::thread sender([] {
    usleep(10'000);
    Send(SIGRTMIN, 3);
  });
  EXPECT_EQ(Take({SIGRTMIN}), SIGRTMIN);
  sender.join();
}
TEST_F(SignalQueue, TimedwaitInterruptedByOtherHandler) {
  const pid_t child = Spawn([&] {
    const ScopedAction action(SIGHUP, [](int) {});
    EXPECT_FAIL(Take({SIGUSR1}, 10'000'000'000), EINTR);
  });
  ASSERT_TRUE(Sleeps(child));
  usleep(10'000);
  ASSERT_OK(kill(child, SIGHUP));
  EXPECT_EQ(WaitStatus(child), 0);
}
TEST_F(SignalQueue, TimedwaitErrors) {
  const sigset_t set = SignalSet({SIGUSR1});
  const timespec bad = {0, 1'000'000'000};
  EXPECT_FAIL(sigtimedwait(&set, nullptr, &bad), EINVAL);
  EXPECT_FAIL(syscall(SYS_rt_sigtimedwait, &set, nullptr, nullptr, 4), EINVAL);
  EXPECT_FAIL(syscall(SYS_rt_sigtimedwait, BadPointer(), nullptr, nullptr, 8), EFAULT);
}
TEST_F(SignalQueue, SigwaitReturnsTheNumber) {
  ASSERT_OK(raise(SIGUSR2));
  const sigset_t set = SignalSet({SIGUSR2});
  int signal = 0;
  EXPECT_EQ(sigwait(&set, &signal), 0);
  EXPECT_EQ(signal, SIGUSR2);
}
TEST_F(SignalQueue, SigqueueinfoKeepsUserData) {
  siginfo_t mine = {};
  mine.si_code = -100;
  mine.si_pid = 4321;
  mine.si_value.sival_ptr = reinterpret_cast<void*>(0x1122334455667788);
  ASSERT_OK(RtSigqueueinfo(getpid(), SIGRTMIN, &mine));
  ASSERT_EQ(Take({SIGRTMIN}), SIGRTMIN);
  EXPECT_EQ(info_.si_code, -100);
  EXPECT_EQ(info_.si_pid, 4321);
  EXPECT_EQ(info_.si_value.sival_ptr, reinterpret_cast<void*>(0x1122334455667788));
}
TEST_F(SignalQueue, ForgedCodesAreForOneselfOnly) {
  const PausedChild child;
  siginfo_t mine = {};
  mine.si_code = SI_USER;
  EXPECT_FAIL(RtSigqueueinfo(child.pid(), SIGUSR1, &mine), EPERM);
  mine.si_code = SI_TKILL;
  EXPECT_FAIL(RtSigqueueinfo(child.pid(), SIGUSR1, &mine), EPERM);
  EXPECT_OK(RtSigqueueinfo(getpid(), SIGUSR1, &mine));
  Take({SIGUSR1});
}
TEST_F(SignalQueue, QueueErrors) {
  EXPECT_FAIL(sigqueue(999'999, SIGUSR1, {}), ESRCH);
  EXPECT_FAIL(sigqueue(getpid(), 65, {}), EINVAL);
  EXPECT_FAIL(RtSigqueueinfo(getpid(), SIGUSR1, reinterpret_cast<siginfo_t*>(BadPointer())), EFAULT);
}
TEST_F(SignalQueue, PendingLimit) {
  EXPECT_TRUE(PassesInChild([] {
    const rlimit limit = {4, 4};
    ASSERT_OK(setrlimit(RLIMIT_SIGPENDING, &limit));
    BecomeUser(23456);
    int sent = 0;
    while (sent < 100 && Send(SIGRTMIN, sent) == 0) ++sent;
    EXPECT_EQ(sent, 4);
    EXPECT_EQ(errno, EAGAIN);
    EXPECT_OK(kill(getpid(), SIGUSR1));  // without queue entry, but delivered all the same
  }));
}
TEST_F(SignalQueue, ThousandQueued) {
  for (int i = 0; i < 1000; ++i) ASSERT_OK(Send(SIGRTMIN, i));
  for (int i = 0; i < 1000; ++i) {
    ASSERT_EQ(Take({SIGRTMIN}), SIGRTMIN);
    ASSERT_EQ(info_.si_value.sival_int, i);
  }
}
TEST_F(SignalQueue, AcrossProcesses) {
  int p[2];
  ASSERT_OK(pipe(p));
  const pid_t child = Spawn([&] {
    write(p[1], "x", 1);
    ASSERT_EQ(Take({SIGRTMIN + 1}), SIGRTMIN + 1);
    EXPECT_EQ(info_.si_value.sival_int, -5);
    EXPECT_EQ(info_.si_pid, getppid());
  });
  char b;
  ASSERT_EQ(read(p[0], &b, 1), 1);
  ASSERT_OK(sigqueue(child, SIGRTMIN + 1, {.sival_int = -5}));
  EXPECT_EQ(WaitStatus(child), 0);
  close(p[0]);
  close(p[1]);
}

}  // namespace
}  // namespace moat::guest
