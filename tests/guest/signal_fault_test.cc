// Synchronous signals and the register context: SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, sigreturn, FP state.
#include <emmintrin.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/ucontext.h>
#include <unistd.h>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

siginfo_t fault_info;
greg_t fault_error, fault_trap, fault_address;
uintptr_t skip_bytes;

// Records the fault and steps over the instruction.
void Skip(int, siginfo_t* info, void* context) {
  fault_info = *info;
  auto& regs = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  fault_error = regs[REG_ERR];
  fault_trap = regs[REG_TRAPNO];
  fault_address = regs[REG_CR2];
  regs[REG_RIP] += static_cast<greg_t>(skip_bytes);
}

// One-instruction accesses of known length: mov (%rdi),%al is 2 bytes, mov %al,(%rdi) too.
void Load(const void* p) {
  skip_bytes = 2;
  asm volatile(".byte 0x8a, 0x07" : : "D"(p) : "rax", "memory");
}
void Store(void* p) {
  skip_bytes = 2;
  asm volatile(".byte 0x88, 0x07" : : "D"(p), "a"(1) : "memory");
}

class Fault : public testing::Test {
 protected:
  Fault() : segv_(SIGSEGV, Skip), bus_(SIGBUS, Skip), fpe_(SIGFPE, Skip), ill_(SIGILL, Skip), trap_(SIGTRAP, Skip) {
    fault_info = {};
  }
  ScopedAction segv_, bus_, fpe_, ill_, trap_;
};

TEST_F(Fault, UnmappedRead) {
  Load(BadPointer());
  EXPECT_EQ(fault_info.si_signo, SIGSEGV);
  EXPECT_EQ(fault_info.si_code, SEGV_MAPERR);
  EXPECT_EQ(fault_info.si_addr, BadPointer());
  EXPECT_EQ(fault_trap, 14);
  EXPECT_EQ(fault_error & 2, 0);
  EXPECT_EQ(fault_address, reinterpret_cast<greg_t>(BadPointer()));
}
TEST_F(Fault, UnmappedWriteHasTheWriteBit) {
  Store(BadPointer());
  EXPECT_EQ(fault_info.si_code, SEGV_MAPERR);
  EXPECT_EQ(fault_error & 6, 6);
}
TEST_F(Fault, ProtectedWrite) {
  const Mapping m(kPage, PROT_READ);
  Store(m.data() + 5);
  EXPECT_EQ(fault_info.si_signo, SIGSEGV);
  EXPECT_EQ(fault_info.si_code, SEGV_ACCERR);
  EXPECT_EQ(fault_info.si_addr, m.data() + 5);
}
TEST_F(Fault, NoneRead) {
  const Mapping m(kPage, PROT_NONE);
  Load(m.data());
  EXPECT_EQ(fault_info.si_code, SEGV_ACCERR);
}
TEST_F(Fault, NonCanonicalAddress) {
  Load(reinterpret_cast<void*>(0x8000000000000000ull));
  EXPECT_EQ(fault_info.si_signo, SIGSEGV);
  EXPECT_EQ(fault_info.si_code, SI_KERNEL);
  EXPECT_EQ(fault_trap, 13);
}
TEST_F(Fault, KernelAddress) {
  Load(reinterpret_cast<void*>(0xffffffff81000000ull));
  EXPECT_EQ(fault_info.si_signo, SIGSEGV);
}
TEST_F(Fault, BeyondFileIsBusAdrerr) {
  const TempDir dir;
  const ScopedFd fd(open(dir.File("f", "x").c_str(), O_RDWR));
  const Mapping m(2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get());
  Load(m.page(1));
  EXPECT_EQ(fault_info.si_signo, SIGBUS);
  EXPECT_EQ(fault_info.si_code, BUS_ADRERR);
  EXPECT_EQ(fault_info.si_addr, m.page(1));
}
TEST_F(Fault, IntegerDivision) {
  skip_bytes = 2;  // div %ecx
  asm volatile(".byte 0xf7, 0xf1" : : "a"(1), "d"(0), "c"(0));
  EXPECT_EQ(fault_info.si_signo, SIGFPE);
  EXPECT_EQ(fault_info.si_code, FPE_INTDIV);
  EXPECT_EQ(fault_trap, 0);
}
TEST_F(Fault, IllegalInstruction) {
  skip_bytes = 2;
  asm volatile("ud2");
  EXPECT_EQ(fault_info.si_signo, SIGILL);
  EXPECT_EQ(fault_info.si_code, ILL_ILLOPN);
  EXPECT_EQ(fault_trap, 6);
}
TEST_F(Fault, PrivilegedInstruction) {
  skip_bytes = 1;
  asm volatile("hlt");
  EXPECT_EQ(fault_info.si_signo, SIGSEGV);
  EXPECT_EQ(fault_info.si_code, SI_KERNEL);
}
TEST_F(Fault, Breakpoint) {
  skip_bytes = 0;
  asm volatile("int3");
  EXPECT_EQ(fault_info.si_signo, SIGTRAP);
  EXPECT_EQ(fault_info.si_code, SI_KERNEL);
  EXPECT_EQ(fault_trap, 3);
}
TEST_F(Fault, SseException) {
  unsigned old, unmasked;
  asm volatile("stmxcsr %0" : "=m"(old));
  unmasked = old & ~(1u << 9);  // divide by zero
  volatile float one = 1, zero = 0;
  skip_bytes = 4;  // divss %xmm1,%xmm0
  asm volatile("ldmxcsr %0\n movss %1,%%xmm0\n movss %2,%%xmm1\n divss %%xmm1,%%xmm0\n ldmxcsr %3"
               :
               : "m"(unmasked), "m"(one), "m"(zero), "m"(old)
               : "xmm0", "xmm1");
  EXPECT_EQ(fault_info.si_signo, SIGFPE);
  EXPECT_EQ(fault_info.si_code, FPE_FLTDIV);
}
TEST_F(Fault, HandlerMayMapThePage) {
  static char* page;
  const Mapping m(kPage, PROT_NONE);
  page = m.data();
  const ScopedAction fix(SIGSEGV, [](int, siginfo_t*, void*) { mprotect(page, kPage, PROT_READ | PROT_WRITE); });
  *const_cast<volatile char*>(page) = 3;
  EXPECT_EQ(page[0], 3);
}
TEST(FaultDefault, BlockedFaultKills) {
  const int status = StatusOf([] {
    const ScopedAction action(SIGSEGV, [](int, siginfo_t*, void*) { _exit(1); });
    const ScopedBlock block({SIGSEGV});
    Load(BadPointer());
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGSEGV);
}
TEST(FaultDefault, IgnoredFaultKills) {
  const int status = StatusOf([] {
    signal(SIGSEGV, SIG_IGN);
    Load(BadPointer());
  });
  EXPECT_EQ(WTERMSIG(status), SIGSEGV);
}
TEST(FaultDefault, UnusableHandlerStackKills) {
  const int status = StatusOf([] {
    const ScopedAction action(SIGUSR1, [](int, siginfo_t*, void*) { _exit(1); });
    asm volatile("mov $8,%%rsp\n mov $39,%%eax\n syscall\n mov %%eax,%%edi\n mov $10,%%esi\n mov $62,%%eax\n syscall"
                 :
                 :
                 : "memory");
  });
  EXPECT_EQ(WTERMSIG(status), SIGSEGV);
}

TEST(Context, HandlerMayChangeRegisters) {
  const ScopedAction action(SIGUSR1, [](int, siginfo_t*, void* context) {
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RBX] = 0x1234567890abcdef;
  });
  uint64_t rbx = 1;
  const long pid = getpid();
  asm volatile("syscall" : "+b"(rbx) : "a"(SYS_kill), "D"(pid), "S"(SIGUSR1) : "rcx", "r11", "memory");
  EXPECT_EQ(rbx, 0x1234567890abcdefu);
}
TEST(Context, HandlerMayChangeTheResult) {
  const ScopedAction action(SIGUSR1, [](int, siginfo_t*, void* context) {
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RAX] = 77;
  });
  EXPECT_EQ(syscall(SYS_kill, getpid(), SIGUSR1), 77);
}
TEST(Context, HandlerMayChangeTheMask) {
  const ScopedAction action(SIGUSR1, [](int, siginfo_t*, void* context) {
    sigaddset(&static_cast<ucontext_t*>(context)->uc_sigmask, SIGUSR2);
  });
  const ScopedBlock keep({});
  ASSERT_OK(raise(SIGUSR1));
  sigset_t mask;
  ASSERT_OK(sigprocmask(SIG_BLOCK, nullptr, &mask));
  EXPECT_TRUE(sigismember(&mask, SIGUSR2));
}
TEST(Context, MaskInContextIsTheInterruptedOne) {
  static bool held_usr2, held_usr1;
  const ScopedAction action(SIGUSR1, [](int, siginfo_t*, void* context) {
    held_usr2 = sigismember(&static_cast<ucontext_t*>(context)->uc_sigmask, SIGUSR2);
    held_usr1 = sigismember(&static_cast<ucontext_t*>(context)->uc_sigmask, SIGUSR1);
  });
  const ScopedBlock block({SIGUSR2});
  ASSERT_OK(raise(SIGUSR1));
  EXPECT_TRUE(held_usr2);
  EXPECT_FALSE(held_usr1);
}
TEST(Context, AllRegistersSurvive) {
  const ScopedAction action(SIGUSR1, [](int, siginfo_t*, void*) {
    asm volatile(
        "mov $-1,%%rax\n mov %%rax,%%rbx\n mov %%rax,%%r12\n mov %%rax,%%r13\n mov %%rax,%%r14\n mov %%rax,%%r15\n mov "
        "%%rax,%%r8\n mov %%rax,%%r9\n mov %%rax,%%r10"
        :
        :
        : "rax", "rbx", "r8", "r9", "r10", "r12", "r13", "r14", "r15");
  });
  uint64_t r8, r9, r10, r12, r13, r14, r15;
  const long pid = getpid();
  asm volatile(
      "mov $8,%%r8\n mov $9,%%r9\n mov $10,%%r10\n mov $12,%%r12\n mov $13,%%r13\n mov $14,%%r14\n mov $15,%%r15\n"
      "syscall\n"
      "mov %%r8,%0\n mov %%r9,%1\n mov %%r10,%2\n mov %%r12,%3\n mov %%r13,%4\n mov %%r14,%5\n mov %%r15,%6"
      : "=m"(r8), "=m"(r9), "=m"(r10), "=m"(r12), "=m"(r13), "=m"(r14), "=m"(r15)
      : "a"(SYS_kill), "D"(pid), "S"(SIGUSR1)
      : "rcx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "memory");
  EXPECT_EQ(r8, 8u);
  EXPECT_EQ(r9, 9u);
  EXPECT_EQ(r10, 10u);
  EXPECT_EQ(r12, 12u);
  EXPECT_EQ(r13, 13u);
  EXPECT_EQ(r14, 14u);
  EXPECT_EQ(r15, 15u);
}
TEST(Context, SseRegistersSurvive) {
  const ScopedAction action(SIGUSR1, [](int, siginfo_t*, void*) {
    asm volatile("pxor %%xmm7,%%xmm7\n pxor %%xmm15,%%xmm15" : : : "xmm7", "xmm15");
  });
  alignas(16) const uint64_t in[2] = {0x1111222233334444, 0x5555666677778888};
  alignas(16) uint64_t low[2], high[2];
  const long pid = getpid();
  asm volatile("movdqa %2,%%xmm7\n movdqa %2,%%xmm15\n syscall\n movdqa %%xmm7,%0\n movdqa %%xmm15,%1"
               : "=m"(low), "=m"(high)
               : "m"(in), "a"(SYS_kill), "D"(pid), "S"(SIGUSR1)
               : "rcx", "r11", "xmm7", "xmm15", "memory");
  EXPECT_EQ(memcmp(low, in, 16), 0);
  EXPECT_EQ(memcmp(high, in, 16), 0);
}
TEST(Context, HandlerMayChangeSseRegisters) {
  const ScopedAction action(SIGUSR1, [](int, siginfo_t*, void* context) {
    auto* fp = static_cast<ucontext_t*>(context)->uc_mcontext.fpregs;
    fp->_xmm[3].element[0] = 0xabcd1234;
  });
  alignas(16) uint32_t out[4] = {};
  const long pid = getpid();
  asm volatile("pxor %%xmm3,%%xmm3\n syscall\n movdqa %%xmm3,%0"
               : "=m"(out)
               : "a"(SYS_kill), "D"(pid), "S"(SIGUSR1)
               : "rcx", "r11", "xmm3", "memory");
  EXPECT_EQ(out[0], 0xabcd1234u);
}
TEST(Context, FloatingPointControlIsResetInHandlers) {
  static unsigned inside;
  const ScopedAction action(SIGUSR1, [](int, siginfo_t*, void*) { asm volatile("stmxcsr %0" : "=m"(inside)); });
  unsigned old, rounding, after;
  asm volatile("stmxcsr %0" : "=m"(old));
  rounding = old | 0x6000;
  asm volatile("ldmxcsr %0" : : "m"(rounding));
  raise(SIGUSR1);
  asm volatile("stmxcsr %0" : "=m"(after));
  asm volatile("ldmxcsr %0" : : "m"(old));
  EXPECT_EQ(inside & 0x6000, 0u);
  EXPECT_EQ(after & 0x6000, 0x6000u);
}
TEST(Context, SyscallClobbersOnlyRcxAndR11) {
  uint64_t rdi = 1, rsi = 2, rdx = 3, rax = SYS_getpid;
  register uint64_t r8 asm("r8") = 8;
  register uint64_t r9 asm("r9") = 9;
  register uint64_t r10 asm("r10") = 10;
  asm volatile("syscall"
               : "+a"(rax), "+D"(rdi), "+S"(rsi), "+d"(rdx), "+r"(r8), "+r"(r9), "+r"(r10)
               :
               : "rcx", "r11", "memory");
  const uint64_t got[] = {r8, r9, r10};
  EXPECT_EQ(rax, static_cast<uint64_t>(getpid()));
  EXPECT_EQ(rdi, 1u);
  EXPECT_EQ(rsi, 2u);
  EXPECT_EQ(rdx, 3u);
  EXPECT_EQ(got[0], 8u);
  EXPECT_EQ(got[1], 9u);
  EXPECT_EQ(got[2], 10u);
}
TEST(Context, UnknownCallNumbers) {
  EXPECT_FAIL(syscall(5000), ENOSYS);
  EXPECT_FAIL(syscall(-1), ENOSYS);
  EXPECT_FAIL(syscall(0x7fffffff), ENOSYS);
}
TEST(Context, AsyncInterruptOfABusyLoopKeepsRegisters) {
  SignalLog::Reset();
  const ScopedAction action(SIGALRM, SignalLog::Record);
  const itimerval timer = {{0, 1000}, {0, 1000}};
  ASSERT_OK(setitimer(ITIMER_REAL, &timer, nullptr));
  uint64_t sum = 0;
  constexpr uint64_t kRounds = 40'000'000;
  for (uint64_t i = 0; i < kRounds; ++i) asm volatile("add %1,%0" : "+r"(sum) : "r"(i));
  const itimerval off = {};
  ASSERT_OK(setitimer(ITIMER_REAL, &off, nullptr));
  EXPECT_EQ(sum, kRounds * (kRounds - 1) / 2);
  EXPECT_GT(SignalLog::count, 0);
}

}  // namespace
}  // namespace moat::guest
