// Many signals in a row that a program sends to itself: all of its state is kept, and so is what it does next.
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "tests/guest/support/child.h"
#include "tests/guest/support/signals.h"

namespace moat::guest {
namespace {

// Enough that a kernel which learns from a program's calls has learned.
constexpr int kMany = 2000;

volatile int handled;
void Count(int, siginfo_t*, void*) { handled = handled + 1; }

void SignalSelf(int times) {
  for (int i = 0; i < times; ++i) {
    const int before = handled;
    ASSERT_OK(syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1));
    ASSERT_EQ(handled, before + 1) << i;
  }
}

class OwnSignal : public testing::Test {
 protected:
  void SetUp() override { handled = 0; }
  ScopedAction action_{SIGUSR1, Count};
};

// kill(pid, SIGUSR1) with values in registers that the call and the handler must leave alone: general ones in `gp`, the
// arithmetic flags, and four vector registers of 16 bytes.
struct State {
  uint64_t gp[8];  // rbx, rbp, r12, r13, r14, r15, r9, flags
  uint8_t vectors[4][16];
};
int64_t KillWith(State& state, pid_t pid) {
  register State* at __asm__("r8") = &state;
  int64_t result = SYS_kill;
  __asm__ volatile(
      "pushq %%rbx\n pushq %%rbp\n"
      "pushq 56(%%r8)\n popfq\n"
      "movq 0(%%r8), %%rbx\n movq 8(%%r8), %%rbp\n movq 16(%%r8), %%r12\n movq 24(%%r8), %%r13\n"
      "movq 32(%%r8), %%r14\n movq 40(%%r8), %%r15\n movq 48(%%r8), %%r9\n"
      "movups 64(%%r8), %%xmm0\n movups 80(%%r8), %%xmm1\n movups 96(%%r8), %%xmm8\n movups 112(%%r8), %%xmm15\n"
      "syscall\n"
      "movq %%rbx, 0(%%r8)\n movq %%rbp, 8(%%r8)\n movq %%r12, 16(%%r8)\n movq %%r13, 24(%%r8)\n"
      "movq %%r14, 32(%%r8)\n movq %%r15, 40(%%r8)\n movq %%r9, 48(%%r8)\n"
      "pushfq\n popq 56(%%r8)\n"
      "movups %%xmm0, 64(%%r8)\n movups %%xmm1, 80(%%r8)\n movups %%xmm8, 96(%%r8)\n movups %%xmm15, 112(%%r8)\n"
      "popq %%rbp\n popq %%rbx\n cld\n"
      : "+a"(result), "+r"(at)
      : "D"(int64_t{pid}), "S"(int64_t{SIGUSR1})
      : "rcx", "r9", "r11", "r12", "r13", "r14", "r15", "xmm0", "xmm1", "xmm8", "xmm15", "memory", "cc");
  return result;
}

TEST_F(OwnSignal, KeepsEveryRegister) {
  // The handler changes what a function may change.
  const ScopedAction action(SIGUSR1, [](int, siginfo_t*, void*) {
    __asm__ volatile(
        "pxor %%xmm0, %%xmm0\n pxor %%xmm1, %%xmm1\n pxor %%xmm8, %%xmm8\n pxor %%xmm15, %%xmm15\n xorl %%r9d, %%r9d\n"
        :
        :
        : "xmm0", "xmm1", "xmm8", "xmm15", "r9");
    handled = handled + 1;
  });
  const pid_t pid = getpid();
  int wrong = 0;
  for (int i = 0; i < kMany; ++i) {
    State in = {};
    for (int k = 0; k < 7; ++k) in.gp[k] = 0x0101010101010101u * static_cast<unsigned>(i % 200 + k);
    // Bit 1 is always set, bit 9 lets interrupts in; carry, parity, adjust, zero, sign and overflow vary.
    constexpr uint64_t kFlags[] = {0x1, 0x4, 0x10, 0x40, 0x80, 0x800};
    in.gp[7] = 0x202;
    for (int k = 0; k < 6; ++k) in.gp[7] |= (i >> k & 1) != 0 ? kFlags[k] : 0;
    memset(in.vectors, i % 251 + 1, sizeof in.vectors);
    State out = in;
    ASSERT_EQ(KillWith(out, pid), 0);
    ASSERT_EQ(handled, i + 1);
    wrong += memcmp(&in, &out, sizeof in) != 0;
  }
  EXPECT_EQ(wrong, 0);
}

TEST_F(OwnSignal, HandlerSeesAndChangesTheState) {
  static volatile int wrong;
  wrong = 0;
  // The call's result is rax in the frame, and the handler's to change.
  const ScopedAction action(SIGUSR1, [](int, siginfo_t* info, void* context) {
    greg_t* regs = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    wrong = wrong + (regs[REG_RAX] != 0 || info->si_pid != getpid() || info->si_code != SI_USER);
    wrong = wrong + (regs[REG_RCX] != regs[REG_RIP]);
    regs[REG_RAX] = 4711 + handled;
    handled = handled + 1;
  });
  State state = {};
  state.gp[7] = 0x202;
  const pid_t pid = getpid();
  for (int i = 0; i < kMany; ++i) ASSERT_EQ(KillWith(state, pid), 4711 + i);
  EXPECT_EQ(wrong, 0);
}

TEST_F(OwnSignal, BlockedOnesComeWithTheMask) {
  for (int i = 0; i < kMany; ++i) {
    const ScopedBlock block({SIGUSR1});
    ASSERT_OK(raise(SIGUSR1));
    ASSERT_EQ(handled, i);
    const sigset_t none = SignalSet({});
    ASSERT_EQ(pthread_sigmask(SIG_SETMASK, &none, nullptr), 0);
    ASSERT_EQ(handled, i + 1);
  }
}

TEST_F(OwnSignal, HandlersThatSignalThemselves) {
  const ScopedAction action(
      SIGUSR1,
      [](int, siginfo_t*, void*) {
        handled = handled + 1;
        if (handled % 4 != 0) raise(SIGUSR1);
      },
      SA_NODEFER);
  for (int i = 0; i < kMany / 4; ++i) {
    ASSERT_OK(raise(SIGUSR1));
    ASSERT_EQ(handled, 4 * (i + 1));
  }
}

MOAT_ROLE(OwnSignalAgain) {
  const ScopedAction action(SIGUSR1, Count);
  SignalSelf(200);
  return handled == 200 ? 7 : 1;
}
TEST_F(OwnSignal, ThenExecve) {
  for (int i = 0; i < 10; ++i) {
    const int status = StatusOf([] {
      SignalSelf(300);
      ExecRole("OwnSignalAgain");
    });
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7) << status;
  }
}

TEST_F(OwnSignal, ThenForkAndExit) {
  for (int i = 0; i < 30; ++i) {
    SignalSelf(100);
    ASSERT_TRUE(PassesInChild([] { SignalSelf(100); }));
  }
}

TEST_F(OwnSignal, ThenDeath) {
  for (int i = 0; i < 20; ++i) {
    const int status = StatusOf([] {
      SignalSelf(300);
      signal(SIGUSR1, SIG_DFL);
      raise(SIGUSR1);
    });
    ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGUSR1) << status;
  }
}

// The answer to vfork(2) comes late: the parent waits long where it signalled itself a moment ago.
TEST_F(OwnSignal, ThenALongCall) {
  for (int i = 0; i < 15; ++i) {
    SignalSelf(200);
    const pid_t child = vfork();
    if (child == 0) {
      const timespec t = {0, 3'000'000};
      nanosleep(&t, nullptr);
      _exit(3);
    }
    ASSERT_OK(child);
    const int status = WaitStatus(child);
    ASSERT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 3);
  }
}

TEST_F(OwnSignal, InThreadsThatCome) {
  for (int i = 0; i < 20; ++i) {
    std::atomic<int> count{0};
    static thread_local int own;
    const ScopedAction action(SIGUSR2, [](int, siginfo_t*, void*) { own = own + 1; });
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&] {
        own = 0;
        for (int k = 0; k < 200; ++k) pthread_kill(pthread_self(), SIGUSR2);
        count += own;
      });
    }
    for (std::thread& t : threads) t.join();
    ASSERT_EQ(count, 600);
  }
}

TEST_F(OwnSignal, BesideThoseOfOthers) {
  static std::atomic<int> from_others;
  from_others = 0;
  const ScopedAction action(SIGUSR2, [](int, siginfo_t*, void*) { ++from_others; });
  const pid_t parent = getpid();
  const pid_t child = Spawn([=] {
    for (int i = 0; i < 300; ++i) {
      kill(parent, SIGUSR2);
      usleep(100);
    }
  });
  int rounds = 0;
  while (waitpid(child, nullptr, WNOHANG) == 0) {
    SignalSelf(20);
    ++rounds;
  }
  EXPECT_GT(from_others, 0);
  EXPECT_EQ(handled, 20 * rounds);
}

TEST_F(OwnSignal, StoppedAndContinued) {
  const pid_t child = Spawn([] { SignalSelf(20 * kMany); });
  for (int i = 0; i < 20; ++i) {
    ASSERT_OK(kill(child, SIGSTOP));
    int status;
    ASSERT_OK(waitpid(child, &status, WUNTRACED));
    if (!WIFSTOPPED(status)) return;  // it was quick, and has ended
    ASSERT_OK(kill(child, SIGCONT));
    usleep(500);
  }
  EXPECT_EQ(WaitStatus(child), 0);
}

}  // namespace
}  // namespace moat::guest
