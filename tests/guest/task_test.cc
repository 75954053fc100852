// prctl(2), rlimits, membarrier(2), pidfds, personality(2), scheduling calls, resource usage.
#include <fcntl.h>
#include <linux/membarrier.h>
#include <linux/securebits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/times.h>
#include <unistd.h>

#include <thread>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

namespace moat::guest {
namespace {

TEST(Prctl, Name) {
  EXPECT_TRUE(PassesInChild([] {
    char name[16] = {};
    ASSERT_OK(prctl(PR_SET_NAME, "a-very-long-thread-name"));
    ASSERT_OK(prctl(PR_GET_NAME, name));
    EXPECT_STREQ(name, "a-very-long-thr");
    EXPECT_EQ(ReadFile("/proc/self/comm"), "a-very-long-thr\n");
    EXPECT_FAIL(prctl(PR_GET_NAME, BadPointer()), EFAULT);
  }));
}
TEST(Prctl, Pdeathsig) {
  EXPECT_TRUE(PassesInChild([] {
    int signal = -1;
    ASSERT_OK(prctl(PR_SET_PDEATHSIG, SIGUSR1));
    ASSERT_OK(prctl(PR_GET_PDEATHSIG, &signal));
    EXPECT_EQ(signal, SIGUSR1);
    EXPECT_FAIL(prctl(PR_SET_PDEATHSIG, 100), EINVAL);
  }));
}
TEST(Prctl, NoNewPrivsIsForGood) {
  EXPECT_TRUE(PassesInChild([] {
    EXPECT_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
    ASSERT_OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    EXPECT_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
    EXPECT_FAIL(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
    EXPECT_FAIL(prctl(PR_SET_NO_NEW_PRIVS, 1, 1, 0, 0), EINVAL);
    EXPECT_TRUE(PassesInChild([] { EXPECT_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1); }));
    EXPECT_EQ(ProcField("/proc/self/status", "NoNewPrivs"), "1");
  }));
}
TEST(Prctl, Dumpable) {
  EXPECT_TRUE(PassesInChild([] {
    EXPECT_EQ(prctl(PR_GET_DUMPABLE), 1);
    ASSERT_OK(prctl(PR_SET_DUMPABLE, 0));
    EXPECT_EQ(prctl(PR_GET_DUMPABLE), 0);
    EXPECT_FAIL(prctl(PR_SET_DUMPABLE, 7), EINVAL);
  }));
}
TEST(Prctl, Subreaper) {
  EXPECT_TRUE(PassesInChild([] {
    int value = -1;
    ASSERT_OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
    ASSERT_OK(prctl(PR_GET_CHILD_SUBREAPER, &value));
    EXPECT_EQ(value, 1);
  }));
}
TEST(Prctl, Timerslack) {
  EXPECT_TRUE(PassesInChild([] {
    ASSERT_OK(prctl(PR_SET_TIMERSLACK, 12345));
    EXPECT_EQ(prctl(PR_GET_TIMERSLACK), 12345);
    ASSERT_OK(prctl(PR_SET_TIMERSLACK, 0));
    EXPECT_EQ(prctl(PR_GET_TIMERSLACK), 50'000);
  }));
}
TEST(Prctl, TimerslackDefaultIsTheMakersSlack) {
  EXPECT_TRUE(PassesInChild([] {
    ASSERT_OK(prctl(PR_SET_TIMERSLACK, 70000));
    EXPECT_TRUE(PassesInChild([] {
      EXPECT_EQ(prctl(PR_GET_TIMERSLACK), 70000);
      ASSERT_OK(prctl(PR_SET_TIMERSLACK, 90000));
      ASSERT_OK(prctl(PR_SET_TIMERSLACK, 0));
      EXPECT_EQ(prctl(PR_GET_TIMERSLACK), 70000);
    }));
    ASSERT_OK(prctl(PR_SET_TIMERSLACK, 0));
    EXPECT_EQ(prctl(PR_GET_TIMERSLACK), 50000);
  }));
}
TEST(Prctl, UnusedArgumentsAreZero) {
  EXPECT_FAIL(prctl(PR_GET_THP_DISABLE, 1, 0, 0, 0), EINVAL);
  EXPECT_FAIL(prctl(PR_GET_THP_DISABLE, 0, 0, 1, 0), EINVAL);
  EXPECT_FAIL(prctl(PR_GET_SPECULATION_CTRL, PR_SPEC_STORE_BYPASS, 1, 0, 0), EINVAL);
  EXPECT_FAIL(prctl(PR_GET_SPECULATION_CTRL, 1000, 0, 0, 1), EINVAL);
  EXPECT_FAIL(prctl(PR_GET_SPECULATION_CTRL, 1000, 0, 0, 0), ENODEV);
}
TEST(Prctl, KeepcapsAndSecurebits) {
  EXPECT_TRUE(PassesInChild([] {
    EXPECT_EQ(prctl(PR_GET_KEEPCAPS), 0);
    ASSERT_OK(prctl(PR_SET_KEEPCAPS, 1));
    EXPECT_EQ(prctl(PR_GET_KEEPCAPS), 1);
    EXPECT_EQ(prctl(PR_GET_SECUREBITS), SECBIT_KEEP_CAPS);
    EXPECT_FAIL(prctl(PR_SET_KEEPCAPS, 2), EINVAL);
  }));
}
TEST(Prctl, Unknown) { EXPECT_FAIL(prctl(0x7fff), EINVAL); }
TEST(Prctl, VmaNameOrEinval) {
  const Mapping m(kPage);
  if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, m.data(), kPage, "named") == -1) {
    EXPECT_EQ(errno, EINVAL);  // a kernel built without it
  } else {
    EXPECT_NE(ReadFile("/proc/self/maps").find("[anon:named]"), std::string::npos);
  }
}

TEST(Rlimit, GetAndLower) {
  EXPECT_TRUE(PassesInChild([] {
    rlimit limit;
    ASSERT_OK(getrlimit(RLIMIT_NOFILE, &limit));
    const rlimit lower = {64, limit.rlim_max};
    ASSERT_OK(setrlimit(RLIMIT_NOFILE, &lower));
    ASSERT_OK(getrlimit(RLIMIT_NOFILE, &limit));
    EXPECT_EQ(limit.rlim_cur, 64u);
  }));
}
TEST(Rlimit, SoftAboveHardIsRefused) {
  const rlimit bad = {100, 50};
  EXPECT_FAIL(setrlimit(RLIMIT_NOFILE, &bad), EINVAL);
}
TEST(Rlimit, UserCannotRaiseHard) {
  EXPECT_TRUE(PassesInChild([] {
    const rlimit low = {64, 64}, high = {65, 65};
    ASSERT_OK(setrlimit(RLIMIT_NOFILE, &low));
    BecomeUser(1000);
    EXPECT_FAIL(setrlimit(RLIMIT_NOFILE, &high), EPERM);
  }));
}
TEST(Rlimit, InheritedByFork) {
  EXPECT_TRUE(PassesInChild([] {
    const rlimit low = {77, 77};
    ASSERT_OK(setrlimit(RLIMIT_NOFILE, &low));
    EXPECT_TRUE(PassesInChild([] {
      rlimit now;
      ASSERT_OK(getrlimit(RLIMIT_NOFILE, &now));
      EXPECT_EQ(now.rlim_cur, 77u);
    }));
    EXPECT_NE(ReadFile("/proc/self/limits").find("77                   77"), std::string::npos);
  }));
}
TEST(Rlimit, PrlimitOfAChild) {
  const PausedChild child;
  const rlimit wanted = {55, 60};
  rlimit old, now;
  ASSERT_OK(prlimit(child.pid(), RLIMIT_NOFILE, &wanted, &old));
  ASSERT_OK(prlimit(child.pid(), RLIMIT_NOFILE, nullptr, &now));
  EXPECT_EQ(now.rlim_cur, 55u);
  EXPECT_EQ(now.rlim_max, 60u);
}
TEST(Rlimit, Errors) {
  rlimit limit;
  EXPECT_FAIL(getrlimit(static_cast<__rlimit_resource>(99), &limit), EINVAL);
  EXPECT_FAIL(prlimit(999'999, RLIMIT_NOFILE, nullptr, &limit), ESRCH);
  EXPECT_FAIL(syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, nullptr, BadPointer()), EFAULT);
}
TEST(Rlimit, CpuTimeKills) {
  const int status = StatusOf([] {
    const rlimit limit = {1, 2};
    ASSERT_OK(setrlimit(RLIMIT_CPU, &limit));
    for (volatile unsigned spin = 0;;) spin = spin + 1;
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGXCPU);
}

TEST(Membarrier, QueryAndGlobal) {
  const int commands = Membarrier(MEMBARRIER_CMD_QUERY);
  ASSERT_OK(commands);
  EXPECT_TRUE(commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED);
  if (commands & MEMBARRIER_CMD_GLOBAL) {
    EXPECT_OK(Membarrier(MEMBARRIER_CMD_GLOBAL));
  }
}
TEST(Membarrier, PrivateNeedsRegistration) {
  EXPECT_TRUE(PassesInChild([] {
    EXPECT_FAIL(Membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED), EPERM);
    ASSERT_OK(Membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED));
    EXPECT_OK(Membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED));
  }));
}
TEST(Membarrier, RseqNeedsRegistration) {
  EXPECT_TRUE(PassesInChild([] {
    EXPECT_FAIL(Membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ), EPERM);
    ASSERT_OK(Membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ));
    EXPECT_OK(Membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ));
    EXPECT_OK(Membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, MEMBARRIER_CMD_FLAG_CPU, 0));
    EXPECT_OK(Membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, MEMBARRIER_CMD_FLAG_CPU, 1 << 20));
    EXPECT_FAIL(Membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ, 2), EINVAL);
  }));
}
TEST(Membarrier, Errors) {
  EXPECT_FAIL(Membarrier(1 << 30), EINVAL);
  EXPECT_FAIL(Membarrier(MEMBARRIER_CMD_QUERY, 1), EINVAL);
}

TEST(Pidfd, PollsReadableAtExit) {
  const pid_t child = Spawn([] { usleep(20'000); });
  const ScopedFd fd(PidfdOpen(child));
  ASSERT_OK(fd.get());
  EXPECT_EQ(fcntl(fd.get(), F_GETFD), FD_CLOEXEC);
  pollfd p = {fd.get(), POLLIN, 0};
  EXPECT_EQ(poll(&p, 1, 0), 0);
  EXPECT_EQ(poll(&p, 1, 5000), 1);
  EXPECT_EQ(WaitStatus(child), 0);
}
TEST(Pidfd, SendSignal) {
  const pid_t child = Spawn([] {
    for (;;) pause();
  });
  const ScopedFd fd(PidfdOpen(child));
  EXPECT_OK(PidfdSendSignal(fd.get(), 0));
  ASSERT_OK(PidfdSendSignal(fd.get(), SIGTERM));
  EXPECT_EQ(WTERMSIG(WaitStatus(child)), SIGTERM);
  EXPECT_FAIL(PidfdSendSignal(fd.get(), 0), ESRCH);
}
TEST(Pidfd, ADirectoryOfProcStandsForItsProcess) {
  const PausedChild child;
  const std::string path = "/proc/" + std::to_string(child.pid());
  const ScopedFd process(open(path.c_str(), O_RDONLY | O_DIRECTORY));
  ASSERT_OK(process.get());
  EXPECT_OK(PidfdSendSignal(process.get(), 0));
  const ScopedFd thread(open((path + "/task/" + std::to_string(child.pid())).c_str(), O_RDONLY | O_DIRECTORY));
  EXPECT_FAIL(PidfdSendSignal(thread.get(), 0), EBADF);
  const ScopedFd file(open((path + "/status").c_str(), O_RDONLY));
  EXPECT_FAIL(PidfdSendSignal(file.get(), 0), EBADF);
  const ScopedFd place(open(path.c_str(), O_PATH));
  EXPECT_FAIL(PidfdSendSignal(place.get(), 0), EBADF);
}
TEST(Pidfd, Waitid) {
  const pid_t child = Spawn([] { _exit(12); });
  const ScopedFd fd(PidfdOpen(child));
  siginfo_t info = {};
  ASSERT_OK(waitid(static_cast<idtype_t>(P_PIDFD), fd.get(), &info, WEXITED));
  EXPECT_EQ(info.si_status, 12);
  EXPECT_EQ(info.si_pid, child);
}
TEST(Pidfd, NonblockingWaitid) {
  const PausedChild child;
  const ScopedFd fd(PidfdOpen(child.pid(), O_NONBLOCK));
  siginfo_t info;
  EXPECT_FAIL(waitid(static_cast<idtype_t>(P_PIDFD), fd.get(), &info, WEXITED), EAGAIN);
}
TEST(Pidfd, Getfd) {
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]), w(p[1]);
  const PausedChild child;
  const ScopedFd fd(PidfdOpen(child.pid())), copy(PidfdGetfd(fd.get(), w.get()));
  ASSERT_OK(copy.get());
  ASSERT_EQ(write(copy.get(), "x", 1), 1);
  char b;
  EXPECT_EQ(read(r.get(), &b, 1), 1);
  EXPECT_FAIL(PidfdGetfd(fd.get(), 5000), EBADF);
  EXPECT_FAIL(PidfdGetfd(r.get(), 0), EBADF);
  EXPECT_FAIL(PidfdGetfd(fd.get(), 0, 1), EINVAL);
}
TEST(Pidfd, Errors) {
  EXPECT_FAIL(PidfdOpen(-1), EINVAL);
  EXPECT_FAIL(PidfdOpen(999'999), ESRCH);
  EXPECT_FAIL(PidfdOpen(getpid(), 0x1), EINVAL);
  const ScopedFd null(open("/dev/null", O_RDWR));
  EXPECT_FAIL(PidfdSendSignal(null.get(), 0), EBADF);
}

TEST(Personality, QueryAndSet) {
  EXPECT_TRUE(PassesInChild([] {
    const int old = personality(0xffffffff);
    EXPECT_EQ(personality(old | ADDR_NO_RANDOMIZE), old);
    EXPECT_EQ(personality(0xffffffff), old | ADDR_NO_RANDOMIZE);
  }));
}

TEST(Usage, SelfGrows) {
  rusage a, b;
  ASSERT_OK(getrusage(RUSAGE_SELF, &a));
  volatile unsigned spin = 0;
  for (unsigned i = 0; i < 40'000'000; ++i) spin = spin + i;
  ASSERT_OK(getrusage(RUSAGE_SELF, &b));
  EXPECT_GT(b.ru_utime.tv_sec * 1'000'000 + b.ru_utime.tv_usec, a.ru_utime.tv_sec * 1'000'000 + a.ru_utime.tv_usec);
  EXPECT_GT(b.ru_maxrss, 0);
}
TEST(Usage, ChildrenAreAddedWhenReaped) {
  EXPECT_TRUE(PassesInChild([] {
    rusage usage;
    ASSERT_OK(getrusage(RUSAGE_CHILDREN, &usage));
    EXPECT_EQ(usage.ru_utime.tv_sec * 1'000'000 + usage.ru_utime.tv_usec, 0);
    WaitStatus(Spawn([] {
      volatile unsigned spin = 0;
      for (unsigned i = 0; i < 40'000'000; ++i) spin = spin + i;
    }));
    ASSERT_OK(getrusage(RUSAGE_CHILDREN, &usage));
    EXPECT_GT(usage.ru_utime.tv_sec * 1'000'000 + usage.ru_utime.tv_usec, 1'000);
  }));
}
TEST(Usage, ChildrenThatReapThemselvesAreNotAdded) {
  EXPECT_TRUE(PassesInChild([] {
    signal(SIGCHLD, SIG_IGN);
    const pid_t child = Spawn([] {
      const Mapping large(64 << 20);
      memset(large.data(), 1, large.size());
    });
    ASSERT_TRUE(Eventually([&] { return kill(child, 0) == -1 && errno == ESRCH; }));
    rusage children;
    ASSERT_OK(getrusage(RUSAGE_CHILDREN, &children));
    EXPECT_EQ(children.ru_maxrss, 0);
  }));
}
TEST(Usage, Errors) {
  rusage usage;
  EXPECT_FAIL(getrusage(static_cast<__rusage_who>(7), &usage), EINVAL);
  EXPECT_FAIL(syscall(SYS_getrusage, RUSAGE_SELF, BadPointer()), EFAULT);
}
TEST(Usage, Times) {
  tms t;
  const clock_t a = times(&t);
  EXPECT_NE(a, static_cast<clock_t>(-1));
  usleep(30'000);
  EXPECT_GE(times(nullptr), a + 2);
}

}  // namespace
}  // namespace moat::guest
