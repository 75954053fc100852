// ptrace(2): attaching, seizing, group stops, and the end of tracers.
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>

#include <thread>

#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"
#include "tests/guest/support/tracee.h"

namespace moat::guest {
namespace {

std::string StateOf(pid_t pid) { return ProcField("/proc/" + std::to_string(pid) + "/status", "State").substr(0, 1); }
std::string TracerOf(pid_t pid) { return ProcField("/proc/" + std::to_string(pid) + "/status", "TracerPid"); }
pid_t Pausing() {
  const pid_t pid = Spawn([] {
    for (;;) pause();
  });
  EXPECT_TRUE(Sleeps(pid));
  return pid;
}

TEST(PtraceAttach, StopsAndDetaches) {
  Tracee t(Pausing());
  ASSERT_OK(t.Request(PTRACE_ATTACH));
  ASSERT_EQ(t.Wait(), Stopped(SIGSTOP));
  EXPECT_EQ(TracerOf(t.pid()), std::to_string(getpid()));
  EXPECT_FAIL(t.Request(PTRACE_ATTACH), EPERM);
  EXPECT_FAIL(t.Request(PTRACE_DETACH, 0, 99), EIO);
  ASSERT_OK(t.Request(PTRACE_DETACH));
  EXPECT_EQ(TracerOf(t.pid()), "0");
  EXPECT_TRUE(Sleeps(t.pid()));
  EXPECT_FAIL(t.Request(PTRACE_DETACH), ESRCH);
}
TEST(PtraceAttach, DetachWithASignal) {
  Tracee t(Pausing());
  ASSERT_OK(t.Request(PTRACE_ATTACH));
  ASSERT_EQ(t.Wait(), Stopped(SIGSTOP));
  ASSERT_OK(t.Request(PTRACE_DETACH, 0, SIGTERM));
  EXPECT_EQ(t.Wait(), SIGTERM);
}
TEST(PtraceAttach, DetachFromARunningOneIsAnError) {
  Tracee t(Pausing());
  ASSERT_OK(t.Request(PTRACE_SEIZE));
  EXPECT_FAIL(t.Request(PTRACE_DETACH), ESRCH);
}
TEST(PtraceAttach, OneselfAndOwnThreads) {
  EXPECT_FAIL(Ptrace(PTRACE_ATTACH, getpid()), EPERM);
  pid_t tid = 0;
  Mapping gate(kPage);
  std::thread thread([&] {
    __atomic_store_n(&tid, static_cast<pid_t>(syscall(SYS_gettid)), __ATOMIC_SEQ_CST);
    while (__atomic_load_n(gate.as<int>(), __ATOMIC_SEQ_CST) == 0) sched_yield();
  });
  ASSERT_TRUE(Eventually([&] { return __atomic_load_n(&tid, __ATOMIC_SEQ_CST) != 0; }));
  EXPECT_FAIL(Ptrace(PTRACE_ATTACH, tid), EPERM);
  __atomic_store_n(gate.as<int>(), 1, __ATOMIC_SEQ_CST);
  thread.join();
}
TEST(PtraceAttach, TracemeTwice) {
  Tracee t([] { EXPECT_FAIL(Ptrace(PTRACE_TRACEME, 0), EPERM); });
  EXPECT_EQ(t.Go(), Exited(0));
}
TEST(PtraceAttach, Zombie) {
  const pid_t pid = Spawn([] {});
  siginfo_t info;
  ASSERT_OK(waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT));
  EXPECT_FAIL(Ptrace(PTRACE_ATTACH, pid), EPERM);
  EXPECT_EQ(WaitStatus(pid), 0);
}
TEST(PtraceAttach, InterruptedSleepGoesOn) {
  int fds[2];
  ASSERT_OK(pipe(fds));
  Tracee t(Spawn([&] {
    char c;
    EXPECT_EQ(read(fds[0], &c, 1), 1);
  }));
  ASSERT_TRUE(Sleeps(t.pid()));
  ASSERT_OK(t.Request(PTRACE_ATTACH));
  ASSERT_EQ(t.Wait(), Stopped(SIGSTOP));
  ASSERT_OK(t.Request(PTRACE_DETACH));
  ASSERT_TRUE(Sleeps(t.pid()));
  ASSERT_EQ(write(fds[1], "x", 1), 1);
  EXPECT_EQ(t.Wait(), Exited(0));
}
// A program that was stopped by its shell.
TEST(PtraceAttach, ToAStoppedOne) {
  Tracee t(Pausing());
  ASSERT_OK(kill(t.pid(), SIGSTOP));
  ASSERT_EQ(NextStatus(t.pid(), WUNTRACED), Stopped(SIGSTOP));
  ASSERT_OK(t.Request(PTRACE_ATTACH));
  int status = 0;
  ASSERT_EQ(waitpid(t.pid(), &status, WNOHANG), t.pid()) << "it is in a stop when the call returns";
  EXPECT_EQ(status, Stopped(SIGSTOP));
  siginfo_t info;
  EXPECT_FAIL(t.Request(PTRACE_GETSIGINFO, 0, &info), EINVAL) << "a group stop has no siginfo";
  ASSERT_EQ(t.Go(), Stopped(SIGSTOP));  // of PTRACE_ATTACH
  EXPECT_EQ(t.Info().si_signo, SIGSTOP);
  // The group's stop is still in effect, and has it again when the tracer leaves.
  ASSERT_OK(t.Request(PTRACE_DETACH));
  EXPECT_TRUE(Eventually([&] { return StateOf(t.pid()) == "T"; }));
  ASSERT_OK(kill(t.pid(), SIGCONT));
  EXPECT_TRUE(Sleeps(t.pid()));
}
TEST(PtraceAttach, GroupStopAndRestart) {
  Tracee t(Pausing());
  ASSERT_OK(t.Request(PTRACE_ATTACH));
  ASSERT_EQ(t.Wait(), Stopped(SIGSTOP));
  // Injected, the signal stops the group, which is another stop.
  ASSERT_EQ(t.Go(PTRACE_CONT, SIGSTOP), Stopped(SIGSTOP));
  siginfo_t info;
  EXPECT_FAIL(t.Request(PTRACE_GETSIGINFO, 0, &info), EINVAL);
  ASSERT_OK(kill(t.pid(), SIGCONT));
  // SIGCONT does not end it: the tracer does. Then the signal is delivered.
  EXPECT_EQ(StateOf(t.pid()), "t");
  ASSERT_EQ(t.Go(), Stopped(SIGCONT));
  ASSERT_OK(t.Request(PTRACE_CONT, 0, SIGCONT));
  EXPECT_TRUE(Sleeps(t.pid()));
}
TEST(PtraceAttach, SecondGroupStopWhileTheFirstLasts) {
  Tracee t(Pausing());
  ASSERT_OK(t.Request(PTRACE_ATTACH));
  ASSERT_EQ(t.Wait(), Stopped(SIGSTOP));
  ASSERT_EQ(t.Go(PTRACE_CONT, SIGSTOP), Stopped(SIGSTOP));
  ASSERT_OK(t.Request(PTRACE_CONT));
  ASSERT_OK(kill(t.pid(), SIGTSTP));
  ASSERT_EQ(t.Wait(), Stopped(SIGTSTP));
  EXPECT_EQ(t.Info().si_signo, SIGTSTP);
  ASSERT_EQ(t.Go(PTRACE_CONT, SIGSTOP), Stopped(SIGSTOP));
  siginfo_t info;
  EXPECT_FAIL(t.Request(PTRACE_GETSIGINFO, 0, &info), EINVAL);
}

// --- PTRACE_SEIZE ---
TEST(PtraceSeize, Arguments) {
  PausedChild child;
  EXPECT_FAIL(Ptrace(PTRACE_SEIZE, child.pid(), 1), EIO);
  EXPECT_FAIL(Ptrace(PTRACE_SEIZE, child.pid(), 0, 0x1000), EIO);
}
TEST(PtraceSeize, DoesNotStopAndInterruptDoes) {
  Tracee t(Pausing());
  ASSERT_OK(t.Request(PTRACE_SEIZE, 0, PTRACE_O_TRACESYSGOOD));
  int status;
  EXPECT_EQ(waitpid(t.pid(), &status, WNOHANG), 0);
  EXPECT_EQ(StateOf(t.pid()), "S");
  ASSERT_OK(t.Request(PTRACE_INTERRUPT));
  ASSERT_EQ(t.Wait(), EventStop(PTRACE_EVENT_STOP));
  EXPECT_EQ(t.Info().si_signo, SIGTRAP);
  EXPECT_EQ(t.Info().si_code, SIGTRAP | PTRACE_EVENT_STOP << 8);
  EXPECT_EQ(t.Info().si_pid, t.pid());
  ASSERT_OK(t.Request(PTRACE_CONT));
  EXPECT_TRUE(Sleeps(t.pid()));
  EXPECT_EQ(waitpid(t.pid(), &status, WNOHANG), 0);
}
TEST(PtraceSeize, InterruptInAStopIsRemembered) {
  Tracee t(Pausing());
  ASSERT_OK(t.Request(PTRACE_SEIZE));
  ASSERT_OK(kill(t.pid(), SIGWINCH));
  ASSERT_EQ(t.Wait(), Stopped(SIGWINCH));
  ASSERT_OK(t.Request(PTRACE_INTERRUPT));
  ASSERT_EQ(t.Go(), EventStop(PTRACE_EVENT_STOP));
}
TEST(PtraceSeize, InterruptOfBusyCode) {
  Mapping shared(kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  volatile int* count = shared.as<int>();
  Tracee t(Spawn([&] {
    for (;;) *count = *count + 1;
  }));
  ASSERT_TRUE(Eventually([&] { return *count > 1000; }));
  ASSERT_OK(t.Request(PTRACE_SEIZE));
  for (int i = 0; i < 5; ++i) {
    ASSERT_OK(t.Request(PTRACE_INTERRUPT));
    ASSERT_EQ(t.Wait(), EventStop(PTRACE_EVENT_STOP));
    EXPECT_EQ(static_cast<long>(t.Regs().orig_rax), -1);
    const int before = *count;
    usleep(2000);
    EXPECT_EQ(*count, before);
    ASSERT_OK(t.Request(PTRACE_CONT));
  }
}
TEST(PtraceSeize, GroupStopListenContinue) {
  Tracee t(Pausing());
  ASSERT_OK(t.Request(PTRACE_SEIZE));
  ASSERT_OK(kill(t.pid(), SIGSTOP));
  ASSERT_EQ(t.Wait(), Stopped(SIGSTOP));
  ASSERT_EQ(t.Go(PTRACE_CONT, SIGSTOP), EventStop(PTRACE_EVENT_STOP, SIGSTOP));
  ASSERT_OK(t.Request(PTRACE_LISTEN));
  // Listening: stopped, but not at the tracer's orders.
  user_regs_struct regs;
  EXPECT_FAIL(t.Request(PTRACE_GETREGS, 0, &regs), ESRCH);
  ASSERT_OK(kill(t.pid(), SIGCONT));
  ASSERT_EQ(t.Wait(), EventStop(PTRACE_EVENT_STOP));
  ASSERT_EQ(t.Go(), Stopped(SIGCONT));
  ASSERT_OK(t.Request(PTRACE_CONT, 0, SIGCONT));
  EXPECT_TRUE(Sleeps(t.pid()));
}
TEST(PtraceSeize, InterruptWhileListening) {
  Tracee t(Pausing());
  ASSERT_OK(t.Request(PTRACE_SEIZE));
  ASSERT_OK(kill(t.pid(), SIGSTOP));
  ASSERT_EQ(t.Wait(), Stopped(SIGSTOP));
  ASSERT_EQ(t.Go(PTRACE_CONT, SIGSTOP), EventStop(PTRACE_EVENT_STOP, SIGSTOP));
  ASSERT_OK(t.Request(PTRACE_LISTEN));
  ASSERT_OK(t.Request(PTRACE_INTERRUPT));
  EXPECT_EQ(t.Wait(), EventStop(PTRACE_EVENT_STOP, SIGSTOP));
}
TEST(PtraceSeize, KillWhileListening) {
  Tracee t(Pausing());
  ASSERT_OK(t.Request(PTRACE_SEIZE));
  ASSERT_OK(kill(t.pid(), SIGSTOP));
  ASSERT_EQ(t.Wait(), Stopped(SIGSTOP));
  ASSERT_EQ(t.Go(PTRACE_CONT, SIGSTOP), EventStop(PTRACE_EVENT_STOP, SIGSTOP));
  ASSERT_OK(t.Request(PTRACE_LISTEN));
  ASSERT_OK(kill(t.pid(), SIGKILL));
  EXPECT_EQ(t.Wait(), SIGKILL);
}

// --- who waits for whom ---
// Somebody else than the parent traces.
TEST(PtraceParent, TracerFirstThenParent) {
  int go[2], ready[2], looked[2];
  for (int* ends : {go, ready, looked}) ASSERT_OK(pipe(ends));
  const pid_t child = Spawn([&] {
    char c;
    if (read(go[0], &c, 1) == 1) _exit(8);
  });
  const pid_t tracer = Spawn([&] {
    ASSERT_OK(Ptrace(PTRACE_SEIZE, child));
    ASSERT_EQ(write(ready[1], "r", 1), 1);
    siginfo_t info = {};
    ASSERT_OK(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT));
    EXPECT_EQ(info.si_status, 8);
    // The parent does not see it yet.
    ASSERT_EQ(write(ready[1], "r", 1), 1);
    char c;
    ASSERT_EQ(read(looked[0], &c, 1), 1);
    EXPECT_EQ(NextStatus(child), Exited(8));
    int status;
    EXPECT_FAIL(waitpid(child, &status, 0), ECHILD);
  });
  char c;
  ASSERT_EQ(read(ready[0], &c, 1), 1);
  ASSERT_EQ(write(go[1], "g", 1), 1);
  ASSERT_EQ(read(ready[0], &c, 1), 1);
  int status;
  EXPECT_EQ(waitpid(child, &status, WNOHANG), 0);
  ASSERT_EQ(write(looked[1], "l", 1), 1);
  EXPECT_EQ(WaitStatus(child), Exited(8));
  EXPECT_EQ(WaitStatus(tracer), 0);
}
TEST(PtraceParent, SeesGroupStopsOfAnothersTracee) {
  int ready[2];
  ASSERT_OK(pipe(ready));
  const pid_t child = Pausing();
  const pid_t tracer = Spawn([&] {
    ASSERT_OK(Ptrace(PTRACE_SEIZE, child));
    ASSERT_EQ(write(ready[1], "r", 1), 1);
    EXPECT_EQ(NextStatus(child), Stopped(SIGSTOP));
    ASSERT_OK(Ptrace(PTRACE_CONT, child, 0, SIGSTOP));
    EXPECT_EQ(NextStatus(child), EventStop(PTRACE_EVENT_STOP, SIGSTOP));
    ASSERT_OK(Ptrace(PTRACE_LISTEN, child));
    ASSERT_EQ(write(ready[1], "l", 1), 1);
    EXPECT_EQ(NextStatus(child), SIGKILL);
  });
  char c;
  ASSERT_EQ(read(ready[0], &c, 1), 1);
  ASSERT_OK(kill(child, SIGSTOP));
  EXPECT_EQ(NextStatus(child, WUNTRACED), Stopped(SIGSTOP));
  ASSERT_EQ(read(ready[0], &c, 1), 1);
  ASSERT_OK(kill(child, SIGKILL));
  EXPECT_EQ(WaitStatus(tracer), 0);
  EXPECT_EQ(WaitStatus(child), SIGKILL);
}
TEST(PtraceParent, TracersEndLetsTraceesGo) {
  const pid_t child = Pausing();
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(Ptrace(PTRACE_ATTACH, child));
    ASSERT_EQ(NextStatus(child), Stopped(SIGSTOP));
  }));
  EXPECT_EQ(TracerOf(child), "0");
  EXPECT_TRUE(Eventually([&] { return StateOf(child) == "S"; }));
  ASSERT_OK(kill(child, SIGTERM));
  EXPECT_EQ(WaitStatus(child), SIGTERM);
}
TEST(PtraceParent, ExitKill) {
  const pid_t child = Pausing();
  EXPECT_TRUE(PassesInChild([&] { ASSERT_OK(Ptrace(PTRACE_SEIZE, child, 0, PTRACE_O_EXITKILL)); }));
  EXPECT_EQ(WaitStatus(child), SIGKILL);
}
TEST(PtraceParent, TracersEndHandsAZombieOn) {
  const pid_t child = Pausing();
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(Ptrace(PTRACE_SEIZE, child));
    ASSERT_OK(kill(child, SIGKILL));
    siginfo_t info;
    ASSERT_OK(waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT));
  }));
  EXPECT_EQ(WaitStatus(child), SIGKILL);
}
TEST(PtraceParent, IgnoredSigchldDoesNotReapTracees) {
  EXPECT_TRUE(PassesInChild([] {
    signal(SIGCHLD, SIG_IGN);
    const pid_t child = fork();
    if (child == 0) {
      Ptrace(PTRACE_TRACEME, 0);
      raise(SIGSTOP);
      _exit(4);
    }
    ASSERT_EQ(NextStatus(child), Stopped(SIGSTOP));
    ASSERT_OK(Ptrace(PTRACE_CONT, child));
    EXPECT_EQ(NextStatus(child), Exited(4));
  }));
}
TEST(PtraceParent, OnlyTheTracingThreadMayAsk) {
  Tracee t(Pausing());
  ASSERT_OK(t.Request(PTRACE_ATTACH));
  ASSERT_EQ(t.Wait(), Stopped(SIGSTOP));
  std::thread([&] {
    EXPECT_FAIL(t.Request(PTRACE_CONT), ESRCH);
    int status;
    EXPECT_FAIL(waitpid(t.pid(), &status, WNOHANG | __WNOTHREAD | __WALL), ECHILD);
  }).join();
  ASSERT_OK(t.Request(PTRACE_CONT));
}
TEST(PtraceParent, EndOfTheTracingThread) {
  Tracee t(Pausing());
  std::thread([&] {
    ASSERT_OK(t.Request(PTRACE_ATTACH));
    ASSERT_EQ(NextStatus(t.pid()), Stopped(SIGSTOP));
  }).join();
  EXPECT_TRUE(Eventually([&] { return TracerOf(t.pid()) == "0"; }));
  EXPECT_TRUE(Sleeps(t.pid()));
}
// A tracer may be a tracee.
TEST(PtraceParent, Chain) {
  Tracee outer([] {
    Tracee inner([] { raise(SIGUSR1); });
    ASSERT_EQ(inner.Go(), Stopped(SIGUSR1));
    EXPECT_EQ(inner.Go(), Exited(0));
  });
  int status = outer.Go();
  while (status == Stopped(SIGCHLD)) status = outer.Go(PTRACE_CONT, SIGCHLD);
  EXPECT_EQ(status, Exited(0));
}

}  // namespace
}  // namespace moat::guest
