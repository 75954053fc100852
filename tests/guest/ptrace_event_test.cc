// ptrace(2): event stops, tracees that are inherited, execve and the end of tracees.
#include <errno.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <sys/prctl.h>

#include <atomic>
#include <thread>

#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"
#include "tests/guest/support/tracee.h"

namespace moat::guest {
namespace {

MOAT_ROLE(ptrace_exit_5) { return 5; }

TEST(PtraceEvent, Fork) {
  Tracee t(
      [] {
        const pid_t child = fork();
        if (child == 0) _exit(6);
        WaitStatus(child);
      },
      PTRACE_O_TRACEFORK);
  ASSERT_EQ(t.Go(), EventStop(PTRACE_EVENT_FORK));
  EXPECT_EQ(t.Info().si_code, SIGTRAP | PTRACE_EVENT_FORK << 8);
  Tracee child(static_cast<pid_t>(t.Message()));
  ASSERT_EQ(child.Wait(), Stopped(SIGSTOP));
  EXPECT_EQ(ProcField("/proc/" + std::to_string(child.pid()) + "/status", "TracerPid"), std::to_string(getpid()));
  // The tracee's parent has it as a child as well, once the tracer is done with it.
  ASSERT_OK(t.Request(PTRACE_CONT));
  EXPECT_EQ(child.Go(), Exited(6));
  EXPECT_EQ(t.Wait(), Stopped(SIGCHLD));
  EXPECT_EQ(t.Go(), Exited(0));
}
TEST(PtraceEvent, ForkWithoutTheOption) {
  Tracee t([] {
    const pid_t child = fork();
    if (child == 0) _exit(0);
    WaitStatus(child);
    signal(SIGCHLD, SIG_IGN);
  });
  int status = t.Go();
  if (status == Stopped(SIGCHLD)) status = t.Go();
  EXPECT_EQ(status, Exited(0));
}
TEST(PtraceEvent, SeizedForkBeginsInAnEventStop) {
  Tracee t(Spawn([] {
    raise(SIGSTOP);
    if (fork() == 0) _exit(6);
    WaitStatus(-1);
  }));
  ASSERT_EQ(NextStatus(t.pid(), WUNTRACED), Stopped(SIGSTOP));
  ASSERT_OK(t.Request(PTRACE_SEIZE, 0, PTRACE_O_TRACEFORK));
  ASSERT_EQ(t.Wait(), EventStop(PTRACE_EVENT_STOP, SIGSTOP));
  ASSERT_OK(t.Request(PTRACE_CONT));
  ASSERT_OK(kill(t.pid(), SIGCONT));
  int status = t.Wait();
  while (status == EventStop(PTRACE_EVENT_STOP) || status == Stopped(SIGCONT)) status = t.Go();
  ASSERT_EQ(status, EventStop(PTRACE_EVENT_FORK));
  Tracee child(static_cast<pid_t>(t.Message()));
  ASSERT_EQ(child.Wait(), EventStop(PTRACE_EVENT_STOP));
  EXPECT_EQ(child.Go(), Exited(6));
}
TEST(PtraceEvent, VforkAndItsEnd) {
  Tracee t(
      [] {
        const pid_t child = vfork();
        if (child == 0) _exit(0);
        _exit(3);
      },
      PTRACE_O_TRACEVFORK | PTRACE_O_TRACEVFORKDONE);
  ASSERT_EQ(t.Go(), EventStop(PTRACE_EVENT_VFORK));
  const auto id = static_cast<pid_t>(t.Message());
  Tracee child(id);
  ASSERT_EQ(child.Wait(), Stopped(SIGSTOP));
  ASSERT_OK(t.Request(PTRACE_CONT));
  EXPECT_EQ(child.Go(), Exited(0));
  int status = t.Wait();
  ASSERT_EQ(status, EventStop(PTRACE_EVENT_VFORK_DONE));
  EXPECT_EQ(t.Message(), static_cast<unsigned long>(id));
  status = t.Go();
  if (status == Stopped(SIGCHLD)) status = t.Go();
  EXPECT_EQ(status, Exited(3));
}
TEST(PtraceEvent, ThreadsAreTraced) {
  Tracee t(
      [] {
        std::thread([] {}).join();
        raise(SIGSTOP);  // a thread that nobody has waited for shows the group's status once there is one
        _exit(3);
      },
      PTRACE_O_TRACECLONE);
  ASSERT_EQ(t.Go(), EventStop(PTRACE_EVENT_CLONE));
  const auto thread = static_cast<pid_t>(t.Message());
  ASSERT_EQ(NextStatus(thread), Stopped(SIGSTOP));
  ASSERT_OK(t.Request(PTRACE_CONT));
  ASSERT_OK(Ptrace(PTRACE_CONT, thread));
  // Its end is reported like a process's.
  EXPECT_EQ(NextStatus(thread), Exited(0));
  EXPECT_FAIL(Ptrace(PTRACE_CONT, thread), ESRCH);
  ASSERT_EQ(t.Wait(), Stopped(SIGSTOP));
  EXPECT_EQ(t.Go(), Exited(3));
}
TEST(PtraceEvent, ProcessWaitsForItsThreadsReports) {
  Tracee t(
      [] {
        std::thread([] { pause(); }).detach();
        while (!Sleeps(getpid(), getpid() + 1, 0.1)) sched_yield();
        _exit(3);
      },
      PTRACE_O_TRACECLONE);
  ASSERT_EQ(t.Go(), EventStop(PTRACE_EVENT_CLONE));
  const auto thread = static_cast<pid_t>(t.Message());
  ASSERT_EQ(NextStatus(thread), Stopped(SIGSTOP));
  ASSERT_OK(t.Request(PTRACE_CONT));
  ASSERT_OK(Ptrace(PTRACE_CONT, thread));
  siginfo_t info = {};
  ASSERT_OK(waitid(P_PID, static_cast<id_t>(thread), &info, WEXITED | WNOWAIT | __WALL));
  int status;
  EXPECT_EQ(waitpid(t.pid(), &status, WNOHANG | __WALL), 0) << "before its thread";
  EXPECT_EQ(NextStatus(thread), Exited(3));
  EXPECT_EQ(t.Wait(), Exited(3));
}
TEST(PtraceEvent, Untraced) {
  Tracee t(
      [] {
        clone_args args = {};
        args.flags = CLONE_UNTRACED;
        args.exit_signal = SIGCHLD;
        const pid_t child = Clone3(&args);
        if (child == 0) _exit(0);
        _exit(WaitStatus(child) == 0 ? 3 : 4);
      },
      PTRACE_O_TRACEFORK | PTRACE_O_TRACECLONE);
  int status = t.Go();
  if (status == Stopped(SIGCHLD)) status = t.Go();
  EXPECT_EQ(status, Exited(3));
}
TEST(PtraceEvent, ClonePtrace) {
  Tracee t([] {
    clone_args args = {};
    args.flags = CLONE_PTRACE;
    args.exit_signal = SIGCHLD;
    const pid_t child = Clone3(&args);
    if (child == 0) _exit(7);
    WaitStatus(child);
  });
  ASSERT_OK(t.Request(PTRACE_CONT));
  int status;
  const pid_t child = waitpid(-1, &status, __WALL);
  ASSERT_NE(child, t.pid());
  EXPECT_EQ(status, Stopped(SIGSTOP));
  Tracee other(child);
  EXPECT_EQ(other.Go(), Exited(7));
}
TEST(PtraceEvent, Exit) {
  Tracee t([] { _exit(9); }, PTRACE_O_TRACEEXIT);
  ASSERT_EQ(t.Go(), EventStop(PTRACE_EVENT_EXIT));
  EXPECT_EQ(t.Message(), 9ul << 8);
  EXPECT_EQ(t.Regs().orig_rax, static_cast<unsigned long>(SYS_exit_group));
  EXPECT_EQ(ProcField("/proc/" + std::to_string(t.pid()) + "/status", "State"), "t (tracing stop)");
  EXPECT_EQ(t.Go(), Exited(9));
}
TEST(PtraceEvent, ExitOfASignal) {
  Tracee t([] { raise(SIGTERM); }, PTRACE_O_TRACEEXIT);
  ASSERT_EQ(t.Go(), Stopped(SIGTERM));
  ASSERT_EQ(t.Go(PTRACE_CONT, SIGTERM), EventStop(PTRACE_EVENT_EXIT));
  EXPECT_EQ(t.Message(), static_cast<unsigned long>(SIGTERM));
  EXPECT_EQ(t.Go(), SIGTERM);
}
TEST(PtraceEvent, ADyingProcessDropsSignals) {
  Tracee t([] { _exit(9); }, PTRACE_O_TRACEEXIT);
  ASSERT_EQ(t.Go(), EventStop(PTRACE_EVENT_EXIT));
  ASSERT_OK(kill(t.pid(), SIGKILL));
  usleep(20'000);
  int status;
  EXPECT_EQ(waitpid(t.pid(), &status, WNOHANG), 0);
  EXPECT_EQ(t.Go(), Exited(9));
}

// --- execve ---
TEST(PtraceExec, TrapWithoutTheOption) {
  Tracee t([] { ExecRole("ptrace_exit_5"); });
  ASSERT_EQ(t.Go(), Stopped(SIGTRAP));
  EXPECT_EQ(t.Info().si_code, SI_USER);
  EXPECT_EQ(t.Go(), Exited(5));
}
TEST(PtraceExec, Event) {
  Tracee t([] { ExecRole("ptrace_exit_5"); }, PTRACE_O_TRACEEXEC);
  ASSERT_EQ(t.Go(), EventStop(PTRACE_EVENT_EXEC));
  EXPECT_EQ(t.Message(), static_cast<unsigned long>(t.pid()));
  const user_regs_struct regs = t.Regs();
  EXPECT_EQ(regs.orig_rax, static_cast<unsigned long>(SYS_execve));
  EXPECT_EQ(t.Peek(reinterpret_cast<void*>(regs.rsp)) > 0, true);  // argc
  EXPECT_EQ(t.Go(), Exited(5));
}
TEST(PtraceExec, CallStopsAroundIt) {
  Tracee t([] { ExecRole("ptrace_exit_5"); }, PTRACE_O_TRACEEXEC | PTRACE_O_TRACESYSGOOD);
  ASSERT_TRUE(t.GoToCall(SYS_execve));
  ASSERT_EQ(t.Go(PTRACE_SYSCALL), EventStop(PTRACE_EVENT_EXEC));
  ASSERT_EQ(t.Go(PTRACE_SYSCALL), kCallStop);
  EXPECT_EQ(t.Regs().rax, 0u);
  EXPECT_EQ(t.Go(), Exited(5));
}
TEST(PtraceExec, RegistersOfTheNewProgram) {
  Tracee t([] { ExecRole("ptrace_exit_5"); }, PTRACE_O_TRACEEXEC);
  ASSERT_EQ(t.Go(), EventStop(PTRACE_EVENT_EXEC));
  user_fpregs_struct fp;
  ASSERT_OK(t.Request(PTRACE_GETFPREGS, 0, &fp));
  EXPECT_EQ(fp.mxcsr, 0x1f80u);
  EXPECT_EQ(fp.cwd, 0x37fu);
  // A step there is the program's first instruction.
  const unsigned long entry = t.Regs().rip;
  ASSERT_EQ(t.Go(PTRACE_SINGLESTEP), Stopped(SIGTRAP));  // the call's end
  EXPECT_EQ(t.Regs().rip, entry);
  ASSERT_EQ(t.Go(PTRACE_SINGLESTEP), Stopped(SIGTRAP));
  EXPECT_NE(t.Regs().rip, entry);
  EXPECT_EQ(t.Go(), Exited(5));
}
TEST(PtraceExec, ByAThread) {
  Tracee t(
      [] {
        std::thread([] { ExecRole("ptrace_exit_5"); }).detach();
        for (;;) pause();
      },
      PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC | PTRACE_O_TRACEEXIT);
  ASSERT_EQ(t.Go(), EventStop(PTRACE_EVENT_CLONE));
  const auto thread = static_cast<pid_t>(t.Message());
  ASSERT_EQ(NextStatus(thread), Stopped(SIGSTOP));
  ASSERT_OK(t.Request(PTRACE_CONT));
  ASSERT_OK(Ptrace(PTRACE_CONT, thread));
  // The leader ends, and the thread comes back with its id.
  ASSERT_EQ(t.Wait(), EventStop(PTRACE_EVENT_EXIT));
  ASSERT_OK(t.Request(PTRACE_CONT));
  ASSERT_EQ(t.Wait(), EventStop(PTRACE_EVENT_EXEC));
  EXPECT_EQ(t.Message(), static_cast<unsigned long>(thread));
  int status;
  EXPECT_FAIL(waitpid(thread, &status, __WALL | WNOHANG), ECHILD);
  ASSERT_EQ(t.Go(), EventStop(PTRACE_EVENT_EXIT));
  EXPECT_EQ(t.Go(), Exited(5));
}

// --- seccomp ---
int InstallTrace(int number, uint16_t data) {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(number), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE | uint32_t{data}),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {4, filter};
  prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  return static_cast<int>(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}
TEST(PtraceSeccomp, WithoutTheOptionEnosys) {
  Tracee t([] {
    ASSERT_OK(InstallTrace(SYS_getppid, 11));
    EXPECT_FAIL(syscall(SYS_getppid), ENOSYS);
  });
  EXPECT_EQ(t.Go(), Exited(0));
}
TEST(PtraceSeccomp, EventWithItsData) {
  Tracee t(
      [] {
        ASSERT_OK(InstallTrace(SYS_getppid, 11));
        EXPECT_EQ(syscall(SYS_getppid), getppid());
        EXPECT_EQ(syscall(SYS_getppid), 99);
        EXPECT_EQ(syscall(SYS_getppid), getpid());
      },
      PTRACE_O_TRACESECCOMP);
  ASSERT_EQ(t.Go(), EventStop(PTRACE_EVENT_SECCOMP));
  EXPECT_EQ(t.Message(), 11u);
  EXPECT_EQ(t.Regs().orig_rax, static_cast<unsigned long>(SYS_getppid));
  __ptrace_syscall_info info = {};
  EXPECT_GE(t.Request(0x420e, sizeof info, &info), 84);
  EXPECT_EQ(info.op, PTRACE_SYSCALL_INFO_SECCOMP);
  EXPECT_EQ(info.seccomp.ret_data, 11u);
  // The comparison's own getppid, in either order.
  ASSERT_EQ(t.Go(), EventStop(PTRACE_EVENT_SECCOMP));
  ASSERT_EQ(t.Go(), EventStop(PTRACE_EVENT_SECCOMP));
  user_regs_struct regs = t.Regs();
  regs.orig_rax = ~0ull;  // skipped, with a result
  regs.rax = 99;
  t.SetRegs(regs);
  ASSERT_EQ(t.Go(), EventStop(PTRACE_EVENT_SECCOMP));
  regs = t.Regs();
  regs.orig_rax = SYS_getpid;  // another call
  t.SetRegs(regs);
  EXPECT_EQ(t.Go(), Exited(0));
}
TEST(PtraceSeccomp, CallStopComesFirst) {
  Tracee t(
      [] {
        ASSERT_OK(InstallTrace(SYS_getsid, 1));
        (void)syscall(SYS_getsid, 0);
      },
      PTRACE_O_TRACESECCOMP | PTRACE_O_TRACESYSGOOD);
  ASSERT_TRUE(t.GoToCall(SYS_getsid));
  ASSERT_EQ(t.Go(PTRACE_SYSCALL), EventStop(PTRACE_EVENT_SECCOMP));
  ASSERT_EQ(t.Go(PTRACE_SYSCALL), kCallStop);
  EXPECT_EQ(t.Message(), 2u);
  EXPECT_EQ(t.Go(), Exited(0));
}

}  // namespace
}  // namespace moat::guest
