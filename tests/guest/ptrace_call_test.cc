// ptrace(2): system-call stops and single steps.
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "tests/guest/support/mapping.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/tracee.h"

#ifndef PTRACE_SYSEMU
#define PTRACE_SYSEMU 31
#endif

namespace moat::guest {
namespace {

constexpr long kNoCall = 10000;  // a number that no call has

TEST(PtraceCall, EntryAndExit) {
  Tracee t([] { (void)dup2(1234, 5678); });
  ASSERT_TRUE(t.GoToCall(SYS_dup2));
  user_regs_struct regs = t.Regs();
  EXPECT_EQ(regs.rdi, 1234u);
  EXPECT_EQ(regs.rsi, 5678u);
  EXPECT_EQ(static_cast<long>(regs.rax), -ENOSYS);
  EXPECT_EQ(regs.rcx, regs.rip);
  EXPECT_EQ(t.Message(), 1u);
  siginfo_t info = t.Info();
  EXPECT_EQ(info.si_signo, SIGTRAP);
  EXPECT_EQ(info.si_code, SIGTRAP | 0x80);
  EXPECT_EQ(t.Go(PTRACE_SYSCALL), kCallStop);
  regs = t.Regs();
  EXPECT_EQ(regs.orig_rax, static_cast<unsigned long>(SYS_dup2));
  EXPECT_EQ(static_cast<long>(regs.rax), -EBADF);
  EXPECT_EQ(t.Message(), 2u);
  EXPECT_EQ(t.Go(), Exited(0));
}
TEST(PtraceCall, WithoutSysgood) {
  Tracee t([] { (void)getppid(); }, 0);
  EXPECT_EQ(t.Go(PTRACE_SYSCALL), Stopped(SIGTRAP));
  EXPECT_EQ(t.Info().si_code, SIGTRAP);
}
TEST(PtraceCall, NumberAndArgumentsChanged) {
  Tracee t([] { _exit(static_cast<int>(syscall(SYS_getppid) == 77 ? 3 : 4)); });
  ASSERT_TRUE(t.GoToCall(SYS_getppid));
  user_regs_struct regs = t.Regs();
  regs.orig_rax = SYS_dup2;
  regs.rdi = 1;
  regs.rsi = 77;
  t.SetRegs(regs);
  EXPECT_EQ(t.Go(PTRACE_SYSCALL), kCallStop);
  EXPECT_EQ(t.Regs().rax, 77u);
  EXPECT_EQ(t.Go(), Exited(3));
}
TEST(PtraceCall, SkippedByNumber) {
  Tracee t([] { _exit(static_cast<int>(syscall(SYS_getppid) == 55 ? 3 : 4)); });
  ASSERT_TRUE(t.GoToCall(SYS_getppid));
  ASSERT_OK(t.Request(PTRACE_POKEUSER, offsetof(user, regs.orig_rax), static_cast<uintptr_t>(-1)));
  EXPECT_EQ(t.Go(PTRACE_SYSCALL), kCallStop);
  EXPECT_EQ(static_cast<long>(t.Regs().rax), -ENOSYS);
  ASSERT_OK(t.Request(PTRACE_POKEUSER, offsetof(user, regs.rax), 55));
  EXPECT_EQ(t.Go(), Exited(3));
}
TEST(PtraceCall, ResultSetBeforeASkippedCallStays) {
  Tracee t([] { _exit(static_cast<int>(syscall(SYS_getppid) == 56 ? 3 : 4)); });
  ASSERT_TRUE(t.GoToCall(SYS_getppid));
  user_regs_struct regs = t.Regs();
  regs.orig_rax = ~0ull;
  regs.rax = 56;
  t.SetRegs(regs);
  EXPECT_EQ(t.Go(), Exited(3));
}
TEST(PtraceCall, UnknownNumberAnswersEnosys) {
  Tracee t([] { _exit(syscall(kNoCall) == -1 && errno == ENOSYS ? 3 : 4); });
  ASSERT_TRUE(t.GoToCall(kNoCall));
  EXPECT_EQ(t.Go(PTRACE_SYSCALL), kCallStop);
  EXPECT_EQ(static_cast<long>(t.Regs().rax), -ENOSYS);
  EXPECT_EQ(t.Go(), Exited(3));
}
TEST(PtraceCall, ResultChanged) {
  Tracee t([] { _exit(static_cast<int>(syscall(SYS_getuid) == 4242 ? 3 : 4)); });
  ASSERT_TRUE(t.GoToCall(SYS_getuid));
  ASSERT_EQ(t.Go(PTRACE_SYSCALL), kCallStop);
  ASSERT_OK(t.Request(PTRACE_POKEUSER, offsetof(user, regs.rax), 4242));
  EXPECT_EQ(t.Go(), Exited(3));
}
// Calls of one site that has been fast before.
TEST(PtraceCall, HotSitesStopToo) {
  Tracee t([] {
    for (int i = 0; i < 400; ++i) (void)syscall(SYS_getpid);
    raise(SIGUSR1);
    for (int i = 0; i < 300; ++i) (void)syscall(SYS_getpid);
  });
  ASSERT_EQ(t.Go(), Stopped(SIGUSR1));
  int seen = 0;
  for (;;) {
    const int status = t.Go(PTRACE_SYSCALL);
    if (WIFEXITED(status)) break;
    ASSERT_EQ(status, kCallStop);
    const user_regs_struct regs = t.Regs();
    if (regs.orig_rax != SYS_getpid) continue;
    EXPECT_EQ(regs.rcx, regs.rip);
    if (static_cast<long>(regs.rax) == -ENOSYS) {
      ++seen;
    } else {
      EXPECT_EQ(regs.rax, static_cast<unsigned long>(t.pid()));
    }
  }
  EXPECT_EQ(seen, 300);
}
TEST(PtraceCall, AttachedToAFastCaller) {
  Mapping shared(kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  volatile int* count = shared.as<int>();
  Tracee t(Spawn([&] {
    for (;;) {
      (void)syscall(SYS_getpid);
      *count = *count + 1;
    }
  }));
  ASSERT_TRUE(Eventually([&] { return *count > 2000; }));
  ASSERT_OK(t.Request(PTRACE_SEIZE, 0, PTRACE_O_TRACESYSGOOD));
  ASSERT_OK(t.Request(PTRACE_INTERRUPT));
  ASSERT_EQ(t.Wait(), EventStop(PTRACE_EVENT_STOP));
  for (int i = 0; i < 20; ++i) {
    const int before = *count;
    ASSERT_TRUE(t.GoToCall(SYS_getpid));
    ASSERT_EQ(t.Go(PTRACE_SYSCALL), kCallStop);
    EXPECT_LE(*count, before + 1);
  }
}
TEST(PtraceCall, Sysemu) {
  Tracee t([] { _exit(syscall(kNoCall, 9) == 31 ? 3 : 4); });
  // Whatever the C library does on the way is answered with -ENOSYS.
  for (;;) {
    ASSERT_EQ(t.Go(PTRACE_SYSEMU), kCallStop);
    user_regs_struct regs = t.Regs();
    if (regs.orig_rax != kNoCall) continue;
    EXPECT_EQ(regs.rdi, 9u);
    regs.rax = 31;
    t.SetRegs(regs);
    break;
  }
  EXPECT_EQ(t.Go(), Exited(3));
}
TEST(PtraceCall, GetSyscallInfo) {
  Tracee t([] { (void)dup2(1234, 5678); });
  __ptrace_syscall_info info = {};
  EXPECT_EQ(t.Request(0x420e, sizeof info, &info), 24);
  EXPECT_EQ(info.op, PTRACE_SYSCALL_INFO_NONE);
  ASSERT_TRUE(t.GoToCall(SYS_dup2));
  const user_regs_struct regs = t.Regs();
  EXPECT_EQ(t.Request(0x420e, sizeof info, &info), 80);
  EXPECT_EQ(info.op, PTRACE_SYSCALL_INFO_ENTRY);
  EXPECT_EQ(info.arch, 0xc000003eu);
  EXPECT_EQ(info.instruction_pointer, regs.rip);
  EXPECT_EQ(info.stack_pointer, regs.rsp);
  EXPECT_EQ(info.entry.nr, static_cast<unsigned long>(SYS_dup2));
  EXPECT_EQ(info.entry.args[1], 5678u);
  ASSERT_EQ(t.Go(PTRACE_SYSCALL), kCallStop);
  EXPECT_EQ(t.Request(0x420e, sizeof info, &info), 33);
  EXPECT_EQ(info.op, PTRACE_SYSCALL_INFO_EXIT);
  EXPECT_EQ(info.exit.rval, -EBADF);
  EXPECT_EQ(info.exit.is_error, 1);
  info.op = 99;
  info.stack_pointer = 1;
  EXPECT_EQ(t.Request(0x420e, 4, &info), 33);
  EXPECT_EQ(info.op, PTRACE_SYSCALL_INFO_EXIT);
  EXPECT_EQ(info.stack_pointer, 1u);
}
TEST(PtraceCall, InterruptedCallIsRestarted) {
  int fds[2];
  ASSERT_OK(pipe(fds));
  Tracee t([&] {
    char c;
    _exit(read(fds[0], &c, 1) == 1 && c == 'x' ? 3 : 4);
  });
  ASSERT_TRUE(t.GoToCall(SYS_read));
  ASSERT_OK(t.Request(PTRACE_SYSCALL));
  ASSERT_TRUE(Sleeps(t.pid()));
  kill(t.pid(), SIGWINCH);
  ASSERT_EQ(t.Wait(), kCallStop);
  EXPECT_EQ(static_cast<long>(t.Regs().rax), -512);  // ERESTARTSYS
  const unsigned long behind = t.Regs().rip;
  ASSERT_EQ(t.Go(PTRACE_SYSCALL), Stopped(SIGWINCH));
  ASSERT_EQ(t.Go(PTRACE_SYSCALL), kCallStop);
  EXPECT_EQ(t.Regs().orig_rax, static_cast<unsigned long>(SYS_read));
  EXPECT_EQ(t.Regs().rip, behind);
  ASSERT_EQ(write(fds[1], "x", 1), 1);
  ASSERT_EQ(t.Go(PTRACE_SYSCALL), kCallStop);
  EXPECT_EQ(t.Regs().rax, 1u);
  EXPECT_EQ(t.Go(), Exited(3));
}
// A debugger that calls a function in its program must be able to forget the call.
TEST(PtraceCall, NoRestartWithoutACallNumber) {
  int fds[2];
  ASSERT_OK(pipe(fds));
  Tracee t([&] {
    char c;
    const long result = syscall(SYS_read, fds[0], &c, 1);
    _exit(result == -1 && errno == 512 ? 3 : 4);
  });
  ASSERT_TRUE(t.GoToCall(SYS_read));
  ASSERT_OK(t.Request(PTRACE_CONT));
  ASSERT_TRUE(Sleeps(t.pid()));
  kill(t.pid(), SIGWINCH);
  ASSERT_EQ(t.Wait(), Stopped(SIGWINCH));
  ASSERT_OK(t.Request(PTRACE_POKEUSER, offsetof(user, regs.orig_rax), static_cast<uintptr_t>(-1)));
  EXPECT_EQ(t.Go(), Exited(3));
}

// --- single steps ---
constexpr uint8_t kSteps[] = {
    0x90,                          // 0: nop
    0xb8, 0x27, 0x00, 0x00, 0x00,  // 1: mov $39, %eax (getpid)
    0x0f, 0x05,                    // 6: syscall
    0x89, 0xc3,                    // 8: mov %eax, %ebx
    0xff, 0xc3,                    // 10: inc %ebx
    0xcc,                          // 12: int3
    0x90,                          // 13
};
class StepTest : public testing::Test {
 protected:
  StepTest() : code_(kPage, PROT_READ | PROT_WRITE | PROT_EXEC) {
    memcpy(code_.data(), kSteps, sizeof kSteps);
    EXPECT_OK(mprotect(code_.data(), kPage, PROT_READ | PROT_EXEC));
  }
  // Takes the tracee to the code.
  void Enter(Tracee& t, size_t offset = 0) const {
    user_regs_struct regs = t.Regs();
    regs.rip = Address(code_.data()) + offset;
    regs.orig_rax = ~0ull;
    t.SetRegs(regs);
  }
  unsigned long Offset(const Tracee& t) const { return t.Regs().rip - Address(code_.data()); }
  Mapping code_;
};

TEST_F(StepTest, EachInstruction) {
  Tracee t([] {});
  Enter(t);
  for (unsigned long expected : {1ul, 6ul, 8ul, 10ul, 12ul}) {
    ASSERT_EQ(t.Go(PTRACE_SINGLESTEP), Stopped(SIGTRAP));
    EXPECT_EQ(Offset(t), expected);
    EXPECT_EQ(t.Regs().eflags & 0x100, 0u) << "the trap flag is not the program's";
    // Behind a call the kernel itself stops the step.
    EXPECT_EQ(t.Info().si_code, expected == 8 ? TRAP_BRKPT : TRAP_TRACE);
    EXPECT_EQ(Address(t.Info().si_addr), t.Regs().rip);
  }
  EXPECT_EQ(t.Regs().rax, static_cast<unsigned long>(t.pid()));
  EXPECT_EQ(t.Regs().rbx, static_cast<unsigned long>(t.pid()) + 1);
  ASSERT_EQ(t.Go(PTRACE_SINGLESTEP), Stopped(SIGTRAP));
  EXPECT_EQ(Offset(t), 13u);
  EXPECT_EQ(t.Info().si_code, SI_KERNEL);
}
TEST_F(StepTest, ThenFree) {
  Tracee t([] {});
  Enter(t);
  ASSERT_EQ(t.Go(PTRACE_SINGLESTEP), Stopped(SIGTRAP));
  ASSERT_EQ(t.Go(), Stopped(SIGTRAP));
  EXPECT_EQ(Offset(t), 13u);
}
TEST_F(StepTest, FromCallStopToItsEnd) {
  Tracee t([] {});
  Enter(t);
  ASSERT_EQ(t.Go(PTRACE_SYSCALL), kCallStop);
  EXPECT_EQ(Offset(t), 8u);
  ASSERT_EQ(t.Go(PTRACE_SINGLESTEP), Stopped(SIGTRAP));
  EXPECT_EQ(Offset(t), 8u);
  EXPECT_EQ(t.Regs().rax, static_cast<unsigned long>(t.pid()));
}
TEST_F(StepTest, EmulatingCalls) {
  constexpr long kSysemuSinglestep = 32;
  Tracee t([] {});
  Enter(t);
  ASSERT_EQ(t.Go(kSysemuSinglestep), Stopped(SIGTRAP));
  EXPECT_EQ(Offset(t), 1u);
  ASSERT_EQ(t.Go(kSysemuSinglestep), Stopped(SIGTRAP));
  EXPECT_EQ(Offset(t), 6u);
  ASSERT_EQ(t.Go(kSysemuSinglestep), kCallStop);
  EXPECT_EQ(Offset(t), 8u);
  user_regs_struct regs = t.Regs();
  EXPECT_EQ(static_cast<long>(regs.rax), -ENOSYS);
  regs.rax = 41;
  t.SetRegs(regs);
  ASSERT_EQ(t.Go(kSysemuSinglestep), Stopped(SIGTRAP));
  EXPECT_EQ(Offset(t), 10u);
  EXPECT_EQ(t.Regs().rbx, 41u);
}
TEST_F(StepTest, IntoAHandler) {
  Tracee t([] {
    ScopedAction usr1(SIGUSR1, SignalLog::Record);
    raise(SIGUSR1);
    EXPECT_EQ(SignalLog::count, 1);
  });
  ASSERT_EQ(t.Go(), Stopped(SIGUSR1));
  const unsigned long sp = t.Regs().rsp;
  ASSERT_EQ(t.Go(PTRACE_SINGLESTEP, SIGUSR1), Stopped(SIGTRAP));
  EXPECT_EQ(t.Regs().rip, Address(reinterpret_cast<void*>(&SignalLog::Record)));
  EXPECT_EQ(t.Regs().rdi, static_cast<unsigned long>(SIGUSR1));
  EXPECT_LT(t.Regs().rsp, sp);
  EXPECT_EQ(t.Go(), Exited(0));
}
TEST_F(StepTest, BlockedTrapIsSeen) {
  Tracee t([] {
    const sigset_t all = SignalSet({SIGTRAP});
    sigprocmask(SIG_BLOCK, &all, nullptr);
    raise(SIGUSR1);
    _exit(3);
  });
  ASSERT_EQ(t.Go(), Stopped(SIGUSR1));
  ASSERT_EQ(t.Go(PTRACE_SINGLESTEP), Stopped(SIGTRAP));
  EXPECT_EQ(t.Go(), Exited(3));
}
TEST_F(StepTest, ThroughHotCalls) {
  Tracee t([] {
    for (int i = 0; i < 400; ++i) (void)syscall(SYS_getppid);
    raise(SIGUSR1);
    for (int i = 0; i < 3; ++i) (void)syscall(SYS_getppid);
    raise(SIGUSR2);
  });
  ASSERT_EQ(t.Go(), Stopped(SIGUSR1));
  int calls = 0;
  for (int i = 0; i < 3000; ++i) {
    const unsigned long before = t.Regs().rip;
    long word = t.Peek(reinterpret_cast<void*>(before));
    const int status = t.Go(PTRACE_SINGLESTEP);
    if (status == Stopped(SIGUSR2)) break;
    ASSERT_EQ(status, Stopped(SIGTRAP));
    if ((word & 0xffff) != 0x050f) continue;
    EXPECT_EQ(t.Regs().rip, before + 2);
    if (t.Regs().orig_rax == SYS_getppid) {
      ++calls;
      EXPECT_EQ(t.Regs().rax, static_cast<unsigned long>(getpid()));
    }
  }
  EXPECT_EQ(calls, 3);
}

}  // namespace
}  // namespace moat::guest
