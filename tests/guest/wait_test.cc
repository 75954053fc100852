// wait4(2), waitid(2), process groups and sessions.
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <thread>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

TEST(Wait, NoChildren) {
  EXPECT_TRUE(PassesInChild([] {
    EXPECT_FAIL(waitpid(-1, nullptr, 0), ECHILD);
    EXPECT_FAIL(waitpid(-1, nullptr, WNOHANG), ECHILD);
    EXPECT_FAIL(waitpid(1, nullptr, 0), ECHILD);
  }));
}
TEST(Wait, ExitStatus) {
  const int status = StatusOf([] { _exit(42); });
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 42);
}
class WaitSignal : public testing::TestWithParam<int> {};
TEST_P(WaitSignal, DeathBySignal) {
  const int status = StatusOf([] {
    signal(GetParam(), SIG_DFL);
    raise(GetParam());
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), GetParam());
}
INSTANTIATE_TEST_SUITE_P(, WaitSignal,
                         testing::Values(SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGKILL, SIGUSR1,
                                         SIGSEGV, SIGPIPE, SIGALRM, SIGTERM, SIGXCPU, SIGVTALRM, SIGPROF, SIGIO, SIGSYS,
                                         34, 64));
TEST(Wait, NohangWhileRunning) {
  const PausedChild child;
  EXPECT_EQ(waitpid(child.pid(), nullptr, WNOHANG), 0);
}
TEST(Wait, ReapsOnce) {
  const pid_t child = Spawn([] {});
  WaitStatus(child);
  EXPECT_FAIL(waitpid(child, nullptr, 0), ECHILD);
}
TEST(Wait, ZombieIsStillSignallable) {
  const pid_t child = Spawn([] {});
  ASSERT_TRUE(Eventually([&] { return ProcField("/proc/" + std::to_string(child) + "/status", "State")[0] == 'Z'; }));
  EXPECT_OK(kill(child, 0));
  EXPECT_OK(kill(child, SIGTERM));
  EXPECT_EQ(WaitStatus(child), 0);
  EXPECT_FAIL(kill(child, 0), ESRCH);
}
TEST(Wait, StopAndContinue) {
  const PausedChild child;
  int status;
  ASSERT_OK(kill(child.pid(), SIGSTOP));
  ASSERT_EQ(waitpid(child.pid(), &status, WUNTRACED), child.pid());
  EXPECT_TRUE(WIFSTOPPED(status));
  EXPECT_EQ(WSTOPSIG(status), SIGSTOP);
  EXPECT_EQ(waitpid(child.pid(), &status, WUNTRACED | WNOHANG), 0);
  ASSERT_OK(kill(child.pid(), SIGCONT));
  ASSERT_EQ(waitpid(child.pid(), &status, WCONTINUED), child.pid());
  EXPECT_TRUE(WIFCONTINUED(status));
}
TEST(Wait, StoppedIsInvisibleWithoutWuntraced) {
  const PausedChild child;
  ASSERT_OK(kill(child.pid(), SIGSTOP));
  ASSERT_TRUE(
      Eventually([&] { return ProcField("/proc/" + std::to_string(child.pid()) + "/status", "State")[0] == 'T'; }));
  EXPECT_EQ(waitpid(child.pid(), nullptr, WNOHANG), 0);
}
TEST(Wait, KillEndsAStoppedChild) {
  const pid_t child = Spawn([] {
    for (;;) pause();
  });
  ASSERT_OK(kill(child, SIGSTOP));
  int status;
  ASSERT_OK(waitpid(child, &status, WUNTRACED));
  ASSERT_OK(kill(child, SIGTERM));  // stays pending while stopped
  EXPECT_EQ(waitpid(child, &status, WNOHANG), 0);
  ASSERT_OK(kill(child, SIGKILL));
  status = WaitStatus(child);
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
}
TEST(Wait, AnyChildAndGroup) {
  EXPECT_TRUE(PassesInChild([] {
    const pid_t a = Spawn([] { _exit(1); });
    const pid_t b = Spawn([] {
      setpgid(0, 0);
      _exit(2);
    });
    setpgid(b, b);
    int status;
    EXPECT_EQ(waitpid(-b, &status, 0), b);
    EXPECT_EQ(WEXITSTATUS(status), 2);
    EXPECT_EQ(waitpid(0, &status, 0), a);
    EXPECT_EQ(WEXITSTATUS(status), 1);
  }));
}
TEST(Wait, Errors) {
  EXPECT_FAIL(waitpid(-1, nullptr, 0x100), EINVAL);
  EXPECT_FAIL(wait4(INT32_MIN, nullptr, 0, nullptr), ESRCH);
  siginfo_t info;
  EXPECT_FAIL(waitid(P_ALL, 0, &info, 0), EINVAL);
  EXPECT_FAIL(waitid(static_cast<idtype_t>(77), 0, &info, WEXITED), EINVAL);
  EXPECT_FAIL(waitid(P_PIDFD, 9999, &info, WEXITED), EBADF);
  const pid_t child = Spawn([] {});
  ASSERT_OK(waitid(P_PID, child, &info, WEXITED | WNOWAIT));
  EXPECT_FAIL(waitpid(child, reinterpret_cast<int*>(BadPointer()), 0), EFAULT);
}
TEST(Wait, WaitidTellsExit) {
  const pid_t child = Spawn([] { _exit(7); });
  siginfo_t info = {};
  ASSERT_OK(waitid(P_PID, child, &info, WEXITED));
  EXPECT_EQ(info.si_signo, SIGCHLD);
  EXPECT_EQ(info.si_code, CLD_EXITED);
  EXPECT_EQ(info.si_status, 7);
  EXPECT_EQ(info.si_pid, child);
  EXPECT_EQ(info.si_uid, getuid());
}
TEST(Wait, WaitidTellsKill) {
  const pid_t child = Spawn([] { raise(SIGKILL); });
  siginfo_t info = {};
  ASSERT_OK(waitid(P_PID, child, &info, WEXITED));
  EXPECT_EQ(info.si_code, CLD_KILLED);
  EXPECT_EQ(info.si_status, SIGKILL);
}
TEST(Wait, WaitidNowaitLeavesIt) {
  const pid_t child = Spawn([] { _exit(3); });
  siginfo_t info = {};
  ASSERT_OK(waitid(P_PID, child, &info, WEXITED | WNOWAIT));
  EXPECT_EQ(info.si_status, 3);
  EXPECT_EQ(WEXITSTATUS(WaitStatus(child)), 3);
}
TEST(Wait, WaitidNohangGivesZeroPid) {
  const PausedChild child;
  siginfo_t info;
  memset(&info, 0xff, sizeof info);
  ASSERT_OK(waitid(P_PID, child.pid(), &info, WEXITED | WNOHANG));
  EXPECT_EQ(info.si_pid, 0);
  EXPECT_EQ(info.si_signo, 0);
}
TEST(Wait, WaitidStopAndContinue) {
  const PausedChild child;
  siginfo_t info = {};
  ASSERT_OK(kill(child.pid(), SIGTSTP));
  ASSERT_OK(waitid(P_PID, child.pid(), &info, WSTOPPED));
  EXPECT_EQ(info.si_code, CLD_STOPPED);
  EXPECT_EQ(info.si_status, SIGTSTP);
  ASSERT_OK(kill(child.pid(), SIGCONT));
  ASSERT_OK(waitid(P_PID, child.pid(), &info, WCONTINUED));
  EXPECT_EQ(info.si_code, CLD_CONTINUED);
}
TEST(Wait, UsageOfTheChild) {
  const pid_t child = Spawn([] {
    volatile unsigned spin = 0;
    for (unsigned i = 0; i < 20'000'000; ++i) spin = spin + i;
  });
  rusage usage = {};
  ASSERT_EQ(wait4(child, nullptr, 0, &usage), child);
  EXPECT_GT(usage.ru_utime.tv_sec * 1'000'000 + usage.ru_utime.tv_usec, 1'000);
}
TEST(Wait, SigchldOnExitAndItsInfo) {
  SignalLog::Reset();
  const ScopedAction action(SIGCHLD, SignalLog::Record);
  const pid_t child = Spawn([] { _exit(11); });
  ASSERT_TRUE(Eventually([] { return SignalLog::count >= 1; }));
  EXPECT_EQ(SignalLog::info[0].si_pid, child);
  EXPECT_EQ(SignalLog::info[0].si_status, 11);
  WaitStatus(child);
}
TEST(Wait, NocldstopSilencesStops) {
  SignalLog::Reset();
  const ScopedAction action(SIGCHLD, SignalLog::Record, SA_NOCLDSTOP);
  const PausedChild child;
  ASSERT_OK(kill(child.pid(), SIGSTOP));
  int status;
  ASSERT_OK(waitpid(child.pid(), &status, WUNTRACED));
  EXPECT_EQ(SignalLog::count, 0);
}
TEST(Wait, IgnoredSigchldReapsByItself) {
  EXPECT_TRUE(PassesInChild([] {
    signal(SIGCHLD, SIG_IGN);
    const pid_t child = Spawn([] { _exit(1); });
    EXPECT_FAIL(waitpid(child, nullptr, 0), ECHILD);
  }));
}
TEST(Wait, NocldwaitReapsByItself) {
  EXPECT_TRUE(PassesInChild([] {
    const ScopedAction action(
        SIGCHLD, [](int, siginfo_t*, void*) {}, SA_NOCLDWAIT);
    const pid_t child = Spawn([] {});
    int result;
    while ((result = waitpid(child, nullptr, 0)) == -1 && errno == EINTR) {
    }
    EXPECT_EQ(result, -1);
    EXPECT_EQ(errno, ECHILD);
  }));
}
TEST(Wait, ThreadsReapEachOthersChildren) {
  const pid_t child = Spawn([] { _exit(4); });
  int status = 0;
  std::thread([&] { status = WaitStatus(child); }).join();
  EXPECT_EQ(WEXITSTATUS(status), 4);
}
TEST(Wait, TheSignalOfAnEndDoesNotCutTheWaitShort) {
  // A handler without SA_RESTART: the child that ended is there to be found before the signal is.
  const ScopedAction action(SIGUSR1, SignalLog::Record);
  for (int i = 0; i < 50; ++i) {
    clone_args args = {};
    args.exit_signal = SIGUSR1;
    const pid_t child = Clone3(&args);
    if (child == 0) _exit(7);
    ASSERT_OK(child);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, __WALL), child) << ErrnoName(errno);
    EXPECT_EQ(WEXITSTATUS(status), 7);
  }
}
TEST(Wait, TheSignalOfAnEndIsThereWhenTheWaitReturns) {
  const ScopedBlock block({SIGUSR1});
  const sigset_t set = SignalSet({SIGUSR1});
  for (int i = 0; i < 50; ++i) {
    clone_args args = {};
    args.exit_signal = SIGUSR1;
    const pid_t child = Clone3(&args);
    if (child == 0) _exit(0);
    ASSERT_EQ(waitpid(child, nullptr, __WALL), child);
    const timespec now = {0, 0};
    ASSERT_EQ(sigtimedwait(&set, nullptr, &now), SIGUSR1) << i;
  }
}
TEST(Wait, SigcontAsTheSignalOfAnEnd) {
  EXPECT_TRUE(PassesInChild([] {
    clone_args args = {};
    args.exit_signal = SIGCONT;
    const pid_t child = Clone3(&args);
    if (child == 0) _exit(3);
    int status = 0;
    ASSERT_EQ(waitpid(child, &status, __WALL), child);
    EXPECT_EQ(WEXITSTATUS(status), 3);
  }));
}
TEST(Wait, WnothreadSeesOnlyItsOwn) {
  const pid_t child = Spawn([] {});
  std::thread([&] { EXPECT_FAIL(waitpid(child, nullptr, __WNOTHREAD), ECHILD); }).join();
  EXPECT_EQ(waitpid(child, nullptr, __WNOTHREAD), child);
}
TEST(Wait, InterruptedBySignal) {
  const PausedChild sleeper;
  const pid_t child = Spawn([] {
    const ScopedAction action(SIGUSR1, [](int) {});
    const pid_t grandchild = fork();
    if (grandchild == 0) {
      for (;;) pause();
    }
    EXPECT_FAIL(waitpid(grandchild, nullptr, 0), EINTR);
    kill(grandchild, SIGKILL);
  });
  ASSERT_TRUE(Sleeps(child));
  usleep(10'000);
  ASSERT_OK(kill(child, SIGUSR1));
  EXPECT_EQ(WaitStatus(child), 0);
}

TEST(Group, SetpgidOfSelfAndChild) {
  EXPECT_TRUE(PassesInChild([] {
    ASSERT_OK(setpgid(0, 0));
    EXPECT_EQ(getpgrp(), getpid());
    const PausedChild child;
    EXPECT_EQ(getpgid(child.pid()), getpid());
    ASSERT_OK(setpgid(child.pid(), child.pid()));
    EXPECT_EQ(getpgid(child.pid()), child.pid());
    EXPECT_OK(setpgid(child.pid(), getpid()));
  }));
}
TEST(Group, SetpgidErrors) {
  EXPECT_FAIL(setpgid(-1, 0), EINVAL);
  EXPECT_FAIL(setpgid(0, -1), EINVAL);
  EXPECT_FAIL(setpgid(getppid(), 0), ESRCH);
  EXPECT_FAIL(setpgid(0, 999'999), EPERM);
  EXPECT_FAIL(getpgid(999'999), ESRCH);
  EXPECT_FAIL(getsid(999'999), ESRCH);
  EXPECT_TRUE(PassesInChild([] {
    ASSERT_OK(setsid());
    EXPECT_FAIL(setpgid(0, 0), EPERM);  // a session leader stays
  }));
}
TEST(Group, SetpgidAfterChildExec) {
  const pid_t child = Spawn([] { ExecRole("wait_role"); });
  ASSERT_TRUE(Eventually(
      [&] { return ReadFile("/proc/" + std::to_string(child) + "/cmdline").find("wait_role") != std::string::npos; }));
  EXPECT_FAIL(setpgid(child, child), EACCES);
  kill(child, SIGKILL);
  WaitStatus(child);
}
MOAT_ROLE(wait_role) {
  for (;;) pause();
}
TEST(Group, SetsidMakesEverythingNew) {
  EXPECT_TRUE(PassesInChild([] {
    EXPECT_EQ(setsid(), getpid());
    EXPECT_EQ(getsid(0), getpid());
    EXPECT_EQ(getpgrp(), getpid());
    EXPECT_FAIL(setsid(), EPERM);
    EXPECT_TRUE(PassesInChild([] { EXPECT_EQ(getsid(0), getppid()); }));
  }));
}
TEST(Group, KillReachesTheGroup) {
  EXPECT_TRUE(PassesInChild([] {
    setpgid(0, 0);
    const pid_t a = Spawn([] {
      for (;;) pause();
    }),
                b = Spawn([] {
                  for (;;) pause();
                });
    signal(SIGTERM, SIG_IGN);
    ASSERT_OK(kill(0, SIGTERM));
    EXPECT_EQ(WTERMSIG(WaitStatus(a)), SIGTERM);
    EXPECT_EQ(WTERMSIG(WaitStatus(b)), SIGTERM);
    EXPECT_FAIL(kill(-999'999, 0), ESRCH);
  }));
}
TEST(Group, KillByNegativePid) {
  const pid_t child = Spawn([] {
    setpgid(0, 0);
    for (;;) pause();
  });
  setpgid(child, child);
  ASSERT_OK(kill(-child, SIGKILL));
  EXPECT_EQ(WTERMSIG(WaitStatus(child)), SIGKILL);
}
TEST(Group, OrphanedStoppedGroupGetsHupAndCont) {
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]);
  ScopedFd w(p[1]);
  const pid_t middle = Spawn([&] {
    setsid();
    const pid_t worker = fork();
    if (worker == 0) {
      signal(SIGHUP, [](int) {});
      setpgid(0, 0);
      static int out = w.get();
      signal(SIGCONT, [](int) { write(out, "C", 1); });
      signal(SIGHUP, [](int) { write(out, "H", 1); });
      raise(SIGSTOP);
      _exit(0);
    }
    int status;
    waitpid(worker, &status, WUNTRACED);
  });
  WaitStatus(middle);
  w.Reset();
  const std::string got = ReadAll(r.get());
  EXPECT_NE(got.find('H'), std::string::npos);
  EXPECT_NE(got.find('C'), std::string::npos);
}

}  // namespace
}  // namespace moat::guest
