// ptrace(2): stops in general, and signal-delivery stops.
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"
#include "tests/guest/support/tracee.h"

namespace moat::guest {
namespace {

void Nothing(int) {}

TEST(PtraceStop, NotATracee) {
  PausedChild child;
  EXPECT_FAIL(Ptrace(PTRACE_CONT, child.pid()), ESRCH);
  EXPECT_FAIL(Ptrace(PTRACE_KILL, child.pid()), ESRCH);
  EXPECT_FAIL(Ptrace(PTRACE_INTERRUPT, child.pid()), ESRCH);
  EXPECT_FAIL(Ptrace(PTRACE_CONT, 0x7fff0000), ESRCH);
}
TEST(PtraceStop, RunningTracee) {
  Tracee t([] { pause(); });
  ASSERT_OK(t.Request(PTRACE_CONT));
  user_regs_struct regs;
  EXPECT_FAIL(t.Request(PTRACE_GETREGS, 0, &regs), ESRCH);
  EXPECT_FAIL(t.Request(PTRACE_CONT), ESRCH);
}
TEST(PtraceStop, UnknownRequestAndSignal) {
  Tracee t([] {});
  EXPECT_FAIL(t.Request(0x1234), EIO);
  EXPECT_FAIL(t.Request(PTRACE_CONT, 0, 65), EIO);
  EXPECT_FAIL(t.Request(PTRACE_SETOPTIONS, 0, 0x1000), EINVAL);
  EXPECT_FAIL(t.Request(PTRACE_LISTEN), EIO);
  EXPECT_FAIL(t.Request(PTRACE_INTERRUPT), EIO);
  EXPECT_EQ(t.Go(), Exited(0));
}
TEST(PtraceStop, StateAndTracerInProc) {
  Tracee t([] {});
  const std::string status = "/proc/" + std::to_string(t.pid()) + "/status";
  EXPECT_EQ(ProcField(status, "State"), "t (tracing stop)");
  EXPECT_EQ(ProcField(status, "TracerPid"), std::to_string(getpid()));
  EXPECT_EQ(ProcField("/proc/self/status", "TracerPid"), "0");
  EXPECT_EQ(t.Go(), Exited(0));
}
TEST(PtraceStop, SigchldOfAStop) {
  ScopedBlock block({SIGCHLD});
  Tracee t([] { raise(SIGUSR1); });
  const sigset_t set = SignalSet({SIGCHLD});
  const timespec now = {};
  siginfo_t info;
  ASSERT_OK(sigtimedwait(&set, &info, &now));
  ASSERT_OK(t.Request(PTRACE_CONT));
  ASSERT_OK(sigwaitinfo(&set, &info));
  EXPECT_EQ(info.si_code, CLD_TRAPPED);
  EXPECT_EQ(info.si_status, SIGUSR1);
  EXPECT_EQ(info.si_pid, t.pid());
  EXPECT_EQ(t.Wait(), Stopped(SIGUSR1));
}
TEST(PtraceStop, WaitidOfAStop) {
  Tracee t([] { raise(SIGUSR1); });
  ASSERT_OK(t.Request(PTRACE_CONT));
  siginfo_t info = {};
  ASSERT_OK(waitid(P_PID, static_cast<id_t>(t.pid()), &info, WSTOPPED | WNOWAIT));
  EXPECT_EQ(info.si_code, CLD_TRAPPED);
  EXPECT_EQ(info.si_status, SIGUSR1);
  ASSERT_OK(waitid(P_ALL, 0, &info, WSTOPPED | WNOWAIT));
  EXPECT_EQ(info.si_pid, t.pid());
  EXPECT_EQ(t.Wait(), Stopped(SIGUSR1));
  int status;
  EXPECT_EQ(waitpid(t.pid(), &status, WNOHANG), 0);  // told once
}

// --- signals ---
TEST(PtraceSignal, SuppressedChangedInjected) {
  Tracee t([] {
    ScopedAction usr2(SIGUSR2, SignalLog::Record);
    raise(SIGTERM);  // suppressed
    EXPECT_EQ(SignalLog::count, 0);
    raise(SIGTERM);  // becomes SIGUSR2
    EXPECT_EQ(SignalLog::count, 1);
    EXPECT_EQ(SignalLog::info[0].si_code, SI_USER);
    EXPECT_EQ(SignalLog::info[0].si_pid, getppid());
  });
  ASSERT_EQ(t.Go(), Stopped(SIGTERM));
  EXPECT_EQ(t.Info().si_code, SI_TKILL);
  EXPECT_EQ(t.Info().si_pid, t.pid());
  ASSERT_EQ(t.Go(), Stopped(SIGTERM));
  EXPECT_EQ(t.Go(PTRACE_CONT, SIGUSR2), Exited(0));
}
TEST(PtraceSignal, DeadlyOneDelivered) {
  Tracee t([] { raise(SIGTERM); });
  ASSERT_EQ(t.Go(), Stopped(SIGTERM));
  EXPECT_EQ(t.Go(PTRACE_CONT, SIGTERM), SIGTERM);
}
TEST(PtraceSignal, IgnoredOnesAreSeen) {
  Tracee t([] {
    signal(SIGUSR1, SIG_IGN);
    raise(SIGUSR1);
    raise(SIGWINCH);
  });
  ASSERT_EQ(t.Go(), Stopped(SIGUSR1));
  ASSERT_EQ(t.Go(PTRACE_CONT, SIGUSR1), Stopped(SIGWINCH));
  EXPECT_EQ(t.Go(PTRACE_CONT, SIGWINCH), Exited(0));
}
TEST(PtraceSignal, SiginfoChanged) {
  Tracee t([] {
    ScopedAction usr1(SIGUSR1, SignalLog::Record);
    raise(SIGUSR1);
    EXPECT_EQ(SignalLog::count, 1);
    EXPECT_EQ(SignalLog::info[0].si_code, SI_QUEUE);
    EXPECT_EQ(SignalLog::info[0].si_value.sival_int, 1357);
  });
  ASSERT_EQ(t.Go(), Stopped(SIGUSR1));
  siginfo_t info = t.Info();
  info.si_code = SI_QUEUE;
  info.si_value.sival_int = 1357;
  ASSERT_OK(t.Request(PTRACE_SETSIGINFO, 0, &info));
  EXPECT_EQ(t.Go(PTRACE_CONT, SIGUSR1), Exited(0));
}
TEST(PtraceSignal, BlockedOneWaits) {
  Tracee t([] {
    ScopedAction usr1(SIGUSR1, SignalLog::Record);
    ScopedBlock block({SIGUSR1});
    raise(SIGWINCH);
    EXPECT_EQ(SignalLog::count, 0);
    sigset_t pending;
    sigpending(&pending);
    EXPECT_TRUE(sigismember(&pending, SIGUSR1));
  });
  ASSERT_EQ(t.Go(), Stopped(SIGWINCH));
  // Injected while blocked: it stays pending, and is seen once more when it is delivered.
  ASSERT_EQ(t.Go(PTRACE_CONT, SIGUSR1), Stopped(SIGUSR1));
  EXPECT_EQ(t.Go(PTRACE_CONT, SIGUSR1), Exited(0));
}
TEST(PtraceSignal, Mask) {
  Tracee t([] {
    sigset_t now;
    sigprocmask(SIG_SETMASK, nullptr, &now);
    _exit(sigismember(&now, SIGUSR2) ? 3 : 4);
  });
  uint64_t mask = 0;
  EXPECT_FAIL(t.Request(PTRACE_GETSIGMASK, 4, &mask), EINVAL);
  ASSERT_OK(t.Request(PTRACE_GETSIGMASK, 8, &mask));
  EXPECT_EQ(mask & 1ull << (SIGUSR2 - 1), 0u);
  mask |= 1ull << (SIGUSR2 - 1) | 1ull << (SIGKILL - 1);
  ASSERT_OK(t.Request(PTRACE_SETSIGMASK, 8, &mask));
  ASSERT_OK(t.Request(PTRACE_GETSIGMASK, 8, &mask));
  EXPECT_EQ(mask & 1ull << (SIGKILL - 1), 0u);
  EXPECT_EQ(t.Go(), Exited(3));
}
TEST(PtraceSignal, PeekQueue) {
  Tracee t([] {
    ScopedBlock block({SIGRTMIN});
    for (int i = 0; i < 3; ++i) {
      siginfo_t info = {};
      info.si_code = SI_QUEUE;
      info.si_value.sival_int = i;
      RtTgsigqueueinfo(getpid(), getpid(), SIGRTMIN, &info);
    }
    sigval value = {.sival_int = 9};
    sigqueue(getpid(), SIGRTMIN, value);
    raise(SIGWINCH);
    _exit(3);
  });
  ASSERT_EQ(t.Go(), Stopped(SIGWINCH));
  siginfo_t infos[8];
  __ptrace_peeksiginfo_args args = {1, 0, 8};
  ASSERT_EQ(Ptrace(PTRACE_PEEKSIGINFO, t.pid(), Address(&args), infos), 2);
  EXPECT_EQ(infos[0].si_value.sival_int, 1);
  EXPECT_EQ(infos[1].si_value.sival_int, 2);
  args = {0, PTRACE_PEEKSIGINFO_SHARED, 8};
  ASSERT_EQ(Ptrace(PTRACE_PEEKSIGINFO, t.pid(), Address(&args), infos), 1);
  EXPECT_EQ(infos[0].si_value.sival_int, 9);
  args = {0, 8, 1};
  EXPECT_FAIL(Ptrace(PTRACE_PEEKSIGINFO, t.pid(), Address(&args), infos), EINVAL);
  args = {0, 0, -1};
  EXPECT_FAIL(Ptrace(PTRACE_PEEKSIGINFO, t.pid(), Address(&args), infos), EINVAL);
}
TEST(PtraceSignal, Fault) {
  Tracee t([] { *reinterpret_cast<volatile int*>(8) = 1; });
  ASSERT_EQ(t.Go(), Stopped(SIGSEGV));
  const siginfo_t info = t.Info();
  EXPECT_EQ(info.si_code, SEGV_MAPERR);
  EXPECT_EQ(info.si_addr, reinterpret_cast<void*>(8));
  EXPECT_EQ(static_cast<long>(t.Regs().orig_rax), -1);
  EXPECT_EQ(t.Go(PTRACE_CONT, SIGSEGV) & 0x7f, SIGSEGV);
}
TEST(PtraceSignal, KillEndsAStop) {
  Tracee t([] {});
  ASSERT_OK(kill(t.pid(), SIGKILL));
  EXPECT_EQ(t.Wait(), SIGKILL);
}
TEST(PtraceSignal, KillRequest) {
  Tracee t([] {});
  ASSERT_OK(t.Request(PTRACE_KILL));
  EXPECT_EQ(t.Wait(), SIGKILL);
}
TEST(PtraceSignal, HandlerRunsWhenResumed) {
  Tracee t([] {
    ScopedAction usr1(SIGUSR1, SignalLog::Record);
    raise(SIGUSR1);
    _exit(SignalLog::count == 1 ? 3 : 4);
  });
  ASSERT_EQ(t.Go(), Stopped(SIGUSR1));
  EXPECT_EQ(t.Go(PTRACE_CONT, SIGUSR1), Exited(3));
}
TEST(PtraceSignal, SuspendedMaskComesBack) {
  Tracee t([] {
    ScopedAction usr1(SIGUSR1, Nothing);
    ScopedBlock block({SIGUSR1, SIGUSR2});
    sigset_t none;
    sigemptyset(&none);
    EXPECT_FAIL(sigsuspend(&none), EINTR);
    sigset_t now;
    sigprocmask(SIG_SETMASK, nullptr, &now);
    EXPECT_TRUE(sigismember(&now, SIGUSR2));
  });
  ASSERT_OK(t.Request(PTRACE_CONT));
  ASSERT_TRUE(Sleeps(t.pid()));
  kill(t.pid(), SIGUSR1);
  ASSERT_EQ(t.Wait(), Stopped(SIGUSR1));
  EXPECT_EQ(t.Go(PTRACE_CONT, SIGUSR1), Exited(0));
}

}  // namespace
}  // namespace moat::guest
