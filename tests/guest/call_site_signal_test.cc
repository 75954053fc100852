// Hot `syscall` instructions and whatever interrupts them: signals, restarts, faults, single steps; and the gs base.
#include <asm/prctl.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/time.h>
#include <unistd.h>

#include <optional>
#include <thread>

#include "tests/guest/support/call_site.h"
#include "tests/guest/support/child.h"
#include "tests/guest/support/signals.h"

extern "C" {
extern const char __executable_start[], etext[];
}

namespace moat::guest {
namespace {

const HotSites& Sites() {
  static const HotSites* sites = new HotSites;
  return *sites;
}

// SIGALRM every 200 microseconds.
constexpr itimerval kEachMoment = {{0, 200}, {0, 200}}, kNever = {};
// The same for as long as the object lives.
class Storm {
 public:
  explicit Storm(void (*handler)(int, siginfo_t*, void*), int flags = 0) : action_(SIGALRM, handler, flags) {
    EXPECT_OK(setitimer(ITIMER_REAL, &kEachMoment, nullptr));
  }
  ~Storm() { EXPECT_OK(setitimer(ITIMER_REAL, &kNever, nullptr)); }

 private:
  ScopedAction action_;
};
double Now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}
uintptr_t Ip(void* context) {
  return static_cast<uintptr_t>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
}

volatile int storms, strange;
volatile uintptr_t strange_ip;
// Inside the program; in the sites' page at an instruction that the program has there.
bool IsOurs(uintptr_t ip) {
  if (Sites().code().Contains(ip)) {
    const uintptr_t offset = ip - reinterpret_cast<uintptr_t>(Sites().code().at());
    const uintptr_t in_site = offset % 256;
    return offset < Sites().code().size() && (in_site == 0 || in_site == 5 || in_site == 7);
  }
  if (ip - getauxval(AT_SYSINFO_EHDR) < 4 * kPage) return true;
  return ip - reinterpret_cast<uintptr_t>(__executable_start) <
         reinterpret_cast<uintptr_t>(etext) - reinterpret_cast<uintptr_t>(__executable_start);
}
void OnStorm(int, siginfo_t*, void* context) {
  storms = storms + 1;
  if (IsOurs(Ip(context))) return;
  strange = strange + 1;
  strange_ip = Ip(context);
}
// For `seconds`, and on a busy machine for as long as it takes to be interrupted a few times.
constexpr int kFewStorms = 20;
class Duration {
 public:
  explicit Duration(double seconds) : end_(Now() + seconds) {}
  bool IsOver(bool enough) const {
    constexpr double kLimit = 20;
    const double now = Now();
    return now >= end_ && (enough || now >= end_ + kLimit);
  }

 private:
  double end_;
};
// The number of answers that were not `truth`.
int AskFor(double seconds, const Identity& truth, int few_storms = 0) {
  int wrong = 0;
  for (const Duration time(seconds); !time.IsOver(storms >= few_storms);) {
    for (int i = 0; i < 50; ++i) wrong += Sites().Ask() != truth;
  }
  return wrong;
}

TEST(CallSiteSignal, StormOverHotSites) {
  const Identity truth = TrueIdentity();
  (void)Sites();
  storms = 0;
  strange = 0;
  {
    const Storm storm(OnStorm);
    EXPECT_EQ(AskFor(0.3, truth, kFewStorms), 0);
  }
  EXPECT_GE(storms, kFewStorms);
  EXPECT_EQ(strange, 0) << "of " << storms << ", the last at " << std::hex << strange_ip << "; sites at "
                        << static_cast<const void*>(Sites().code().at());
}
TEST(CallSiteSignal, StormWhoseHandlerAsksToo) {
  static Identity truth;
  static volatile int wrong;
  truth = TrueIdentity();
  (void)Sites();
  wrong = 0;
  const Storm storm([](int, siginfo_t*, void*) { wrong = wrong + (Sites().Ask() != truth); });
  EXPECT_EQ(AskFor(0.3, truth), 0);
  EXPECT_EQ(wrong, 0);
}
TEST(CallSiteSignal, StormOverOtherNumbers) {
  // Jumps to the `syscall` of a hot `mov $nr, %eax; syscall`, which must not become that call when interrupted.
  const Bytes site = Dense(Call(SYS_getpid));
  const uint32_t back = static_cast<uint32_t>(5 - static_cast<int>(site.size() + 7));
  const Code code(site + kMovEdiEax +
                  Bytes{0xe9, uint8_t(back), uint8_t(back >> 8), uint8_t(back >> 16), uint8_t(back >> 24)});
  CallFn* const middle = reinterpret_cast<CallFn*>(code.at(site.size()));
  const Identity truth = TrueIdentity();
  Heat([&] { (void)code(); });
  storms = 0;
  const Storm storm([](int, siginfo_t*, void*) { storms = storms + 1; }, SA_RESTART);
  int wrong = 0;
  for (const Duration time(0.3); !time.IsOver(storms >= kFewStorms);) {
    for (size_t call = 0; call < kIdentityCalls.size(); ++call)
      wrong += middle(kIdentityCalls[call], 0, 0) != truth[call];
    wrong += middle(SYS_fchdir, 0, 0) != -EBADF;  // of descriptor 81, its own number
    wrong += code() != truth[0];
  }
  EXPECT_EQ(wrong, 0);
  EXPECT_GE(storms, kFewStorms);
}
TEST(CallSiteSignal, StormWithThreads) {
  (void)Sites();
  const Storm storm(OnStorm);
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) threads.emplace_back([] { EXPECT_EQ(AskFor(0.2, TrueIdentity()), 0); });
  for (std::thread& t : threads) t.join();
}
sigjmp_buf out;
TEST(CallSiteSignal, JumpOutOfTheHandler) {
  const Identity truth = TrueIdentity();
  (void)Sites();
  static volatile int wrong, jumps;
  wrong = 0;
  jumps = 0;
  const ScopedAction action(SIGALRM, [](int, siginfo_t*, void*) { siglongjmp(out, 1); });
  // Not before the buffer is complete: a jump that finds no mask in it leaves the signal blocked.
  if (sigsetjmp(out, 1) != 0) {
    jumps = jumps + 1;
  } else {
    setitimer(ITIMER_REAL, &kEachMoment, nullptr);
  }
  while (jumps < 300) wrong = wrong + (Sites().Ask() != truth);
  signal(SIGALRM, SIG_IGN);
  EXPECT_OK(setitimer(ITIMER_REAL, &kNever, nullptr));
  EXPECT_EQ(wrong, 0);
}

// Calls too long for a thread to wait for at its mailbox, between short ones; some are interrupted as it falls asleep.
class LongCalls : public testing::TestWithParam<bool> {};
TEST_P(LongCalls, BetweenShortOnes) {
  const Code sleep(Padded(Call(SYS_nanosleep))), brief(Padded(Call(SYS_sched_yield)));
  const auto wait = [&](long ns) {
    const timespec time = {0, ns};
    return sleep(reinterpret_cast<long>(&time));
  };
  Heat([&] { EXPECT_EQ(wait(0), 0); });
  Heat([&] { EXPECT_EQ(brief(), 0); });
  storms = 0;
  std::optional<Storm> storm;
  if (GetParam()) storm.emplace(OnStorm);
  int interrupted = 0;
  for (int round = 0; round < 100; ++round) {
    for (int i = 0; i < 60; ++i) ASSERT_EQ(brief(), 0);
    const double begin = Now();
    // From shorter than the thread's patience to longer than its carrier's.
    const long result = wait(100'000 + round % 10 * 20'000);
    if (result == -EINTR) {
      ++interrupted;
    } else {
      ASSERT_EQ(result, 0);
      ASSERT_GE(Now() - begin, 100e-6);
    }
  }
  if (!GetParam()) {
    EXPECT_EQ(interrupted, 0);
  }
}
INSTANTIATE_TEST_SUITE_P(CallSite, LongCalls, testing::Bool(),
                         [](const auto& info) { return info.param ? "InAStorm" : "Quiet"; });

class Interrupted : public testing::TestWithParam<int> {
 protected:
  static Bytes Read() {
    switch (GetParam()) {
      case 0:
        return Padded(Call(SYS_read));
      case 1:
        return Dense(Call(SYS_read));
      default:
        return Padded(kXorEax + kSyscall);
    }
  }
};
int filled_fd;
TEST_P(Interrupted, BlockingRead) {
  const Code code(Read());
  int ends[2];
  ASSERT_OK(pipe(ends));
  const ScopedFd in(ends[0]), to(ends[1]);
  filled_fd = ends[1];
  char byte = 0;
  const auto read_one = [&] { return code(in.get(), reinterpret_cast<long>(&byte), 1); };
  Heat([&] { EXPECT_EQ(code(in.get(), reinterpret_cast<long>(&byte), 0), 0); });
  const itimerval once = {{0, 0}, {0, 20'000}};
  for (int round = 0; round < 3; ++round) {
    {
      const ScopedAction action(SIGALRM, [](int, siginfo_t*, void*) {});
      ASSERT_OK(setitimer(ITIMER_REAL, &once, nullptr));
      EXPECT_EQ(read_one(), -EINTR);
    }
    {
      const ScopedAction action(
          SIGALRM, [](int, siginfo_t*, void*) { write(filled_fd, "y", 1); }, SA_RESTART);
      ASSERT_OK(setitimer(ITIMER_REAL, &once, nullptr));
      EXPECT_EQ(read_one(), 1);
      EXPECT_EQ(byte, 'y');
    }
  }
}
INSTANTIATE_TEST_SUITE_P(CallSite, Interrupted, testing::Range(0, 3));

volatile uintptr_t fault_address, fault_ip;
TEST(CallSiteSignal, FaultsAreTheGuestsOwn) {
  const Identity truth = TrueIdentity();
  const ScopedAction action(SIGSEGV, [](int, siginfo_t* info, void* context) {
    fault_address = reinterpret_cast<uintptr_t>(info->si_addr);
    fault_ip = Ip(context);
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP] += 3;
  });
  // mov $39, %eax; syscall; mov (%rdi), %rax; ret
  const Code code(Padded(Call(SYS_getpid) + Bytes{0x48, 0x8b, 0x07}));
  long value = 7;
  Heat([&] { EXPECT_EQ(code(reinterpret_cast<long>(&value)), 7); });
  EXPECT_EQ(code(0x1000), truth[0]);
  EXPECT_EQ(fault_address, 0x1000u);
  EXPECT_EQ(fault_ip, reinterpret_cast<uintptr_t>(code.at(7)));
  EXPECT_EQ(AskFor(0.01, truth), 0);
}

volatile int steps;
volatile bool at_start, behind;
// Calls `target` with the trap flag set.
long Stepped(const void* target) {
  long result;
  __asm__ volatile(
      "lea -256(%%rsp), %%rsp\npushfq\norq $0x100, (%%rsp)\npopfq\n"
      "call *%1\n"
      "pushfq\nandq $~0x100, (%%rsp)\npopfq\nlea 256(%%rsp), %%rsp\n"
      : "=a"(result)
      : "r"(target)
      : "rcx", "r11", "memory", "cc");
  return result;
}
TEST(CallSiteSignal, SingleSteps) {
  const long pid = TrueIdentity()[0];
  const auto* const yield = new Code(Padded(Call(SYS_sched_yield)));
  Heat([&] { (void)(*yield)(); });
  static uintptr_t site;
  const ScopedAction action(SIGTRAP, [](int, siginfo_t*, void* context) {
    steps = steps + 1;
    if (Ip(context) == site + 5) at_start = true;
    if (Ip(context) == site + 7) behind = true;
    if (!IsOurs(Ip(context))) strange = strange + 1;
    if (steps > 1000) static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_EFL] &= ~0x100;
  });
  const char* const first = Sites().code().at();
  for (const char* at : {first, first + 7 * 256}) {
    site = reinterpret_cast<uintptr_t>(at);
    steps = 0;
    strange = 0;
    at_start = false;
    behind = false;
    EXPECT_EQ(Stepped(at), pid);
    EXPECT_GE(steps, 4);
    EXPECT_LT(steps, 20);
    EXPECT_EQ(strange, 0);
  }
  steps = 0;
  EXPECT_EQ(Stepped(yield->at()), 0);
  EXPECT_LT(steps, 20);
}

// --- the gs base -----------------------------------------------------------------------------------------------------

uint64_t GsWord() {
  uint64_t value;
  __asm__ volatile("movq %%gs:8, %0" : "=r"(value));
  return value;
}
void GsTest(const std::function<void(uint64_t)>& set) {
  EXPECT_TRUE(PassesInChild([&] {
    const Identity truth = TrueIdentity();
    Sites().Heat();
    uint64_t base = 1;
    ASSERT_OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &base));
    EXPECT_EQ(base, 0u);
    static uint64_t own[512], copy[512];
    for (uint64_t i = 0; i < 512; ++i) own[i] = copy[i] = 1000 + i;
    set(reinterpret_cast<uint64_t>(own));
    for (int i = 0; i < kHot; ++i) {
      ASSERT_EQ(Sites().Ask(), truth);
      ASSERT_EQ(GsWord(), 1001u);
    }
    ASSERT_OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &base));
    EXPECT_EQ(base, reinterpret_cast<uint64_t>(own));
    EXPECT_TRUE(PassesInChild([] { EXPECT_EQ(GsWord(), 1001u); }));
    {
      const Storm storm(OnStorm);
      EXPECT_EQ(AskFor(0.05, truth), 0);
      EXPECT_EQ(GsWord(), 1001u);
    }
    EXPECT_EQ(memcmp(own, copy, sizeof own), 0);
    // Nothing mapped there, and an address that is not aligned.
    for (uint64_t at : {uint64_t{0x100000}, uint64_t{0x100001}, reinterpret_cast<uint64_t>(own) + 3}) {
      set(at);
      for (int i = 0; i < kHot; ++i) ASSERT_EQ(Sites().Ask(), truth);
    }
    set(0);
    for (int i = 0; i < kHot; ++i) ASSERT_EQ(Sites().Ask(), truth);
    ASSERT_OK(syscall(SYS_arch_prctl, ARCH_GET_GS, &base));
    EXPECT_EQ(base, 0u);
  }));
}
TEST(CallSiteSignal, GsBaseByCall) {
  GsTest([](uint64_t base) { ASSERT_OK(syscall(SYS_arch_prctl, ARCH_SET_GS, base)); });
}
TEST(CallSiteSignal, GsBaseByInstruction) {
  constexpr unsigned long kFsGsBase = 2;
  if ((getauxval(AT_HWCAP2) & kFsGsBase) == 0) GTEST_SKIP() << "no wrgsbase";
  GsTest([](uint64_t base) { __asm__ volatile("wrgsbase %0" : : "r"(base)); });
}

}  // namespace
}  // namespace moat::guest
