// Clocks, sleeping, interval timers, POSIX timers, the vDSO's entry points.
#include <elf.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <thread>
#include <vector>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

int64_t Nanos(const timespec& t) { return t.tv_sec * 1'000'000'000 + t.tv_nsec; }
int64_t Now(clockid_t clock) {
  timespec t = {};
  EXPECT_OK(clock_gettime(clock, &t));
  return Nanos(t);
}
timespec Spec(int64_t ns) { return {ns / 1'000'000'000, ns % 1'000'000'000}; }

class Clock : public testing::TestWithParam<int> {};
TEST_P(Clock, NeverGoesBack) {
  int64_t last = Now(GetParam());
  for (int i = 0; i < 1000; ++i) {
    const int64_t now = Now(GetParam());
    ASSERT_GE(now, last);
    last = now;
  }
}
TEST_P(Clock, ResolutionIsSane) {
  timespec t = {};
  ASSERT_OK(clock_getres(GetParam(), &t));
  EXPECT_GE(Nanos(t), 1);
  EXPECT_LE(Nanos(t), 10'000'000);
}
TEST_P(Clock, RawCallAgreesWithTheLibrary) {
  timespec raw = {};
  const int64_t before = Now(GetParam());
  ASSERT_OK(syscall(SYS_clock_gettime, GetParam(), &raw));
  const int64_t after = Now(GetParam());
  constexpr int64_t kSlack = 20'000'000;  // coarse clocks move by ticks
  EXPECT_GE(Nanos(raw) + kSlack, before);
  EXPECT_LE(Nanos(raw), after + kSlack);
}
INSTANTIATE_TEST_SUITE_P(, Clock,
                         testing::Values(CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME,
                                         CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE, CLOCK_PROCESS_CPUTIME_ID,
                                         CLOCK_THREAD_CPUTIME_ID, CLOCK_TAI));
TEST(ClockDetail, MonotonicMovesWithRealTime) {
  const int64_t a = Now(CLOCK_MONOTONIC), ra = Now(CLOCK_REALTIME);
  usleep(30'000);
  EXPECT_NEAR(static_cast<double>(Now(CLOCK_MONOTONIC) - a), static_cast<double>(Now(CLOCK_REALTIME) - ra), 5e6);
}
TEST(ClockDetail, TimeAndGettimeofdayAgree) {
  timeval tv;
  ASSERT_OK(gettimeofday(&tv, nullptr));
  EXPECT_LE(std::abs(time(nullptr) - tv.tv_sec), 1);
  EXPECT_LE(std::abs(Now(CLOCK_REALTIME) / 1'000'000'000 - tv.tv_sec), 1);
  EXPECT_LE(std::abs(syscall(SYS_time, nullptr) - tv.tv_sec), 1);
}
TEST(ClockDetail, CpuTimeGrowsOnlyByWork) {
  const int64_t a = Now(CLOCK_PROCESS_CPUTIME_ID);
  usleep(50'000);
  EXPECT_LT(Now(CLOCK_PROCESS_CPUTIME_ID) - a, 40'000'000);
  volatile unsigned spin = 0;
  for (unsigned i = 0; i < 40'000'000; ++i) spin = spin + i;
  EXPECT_GT(Now(CLOCK_PROCESS_CPUTIME_ID) - a, 5'000'000);
}
TEST(ClockDetail, BusyThreadsShareTheCpus) {
  cpu_set_t set;
  ASSERT_OK(sched_getaffinity(0, sizeof set, &set));
  const int cpus = std::min(CPU_COUNT(&set), 8);
  for (int cpu = 0, kept = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set) && ++kept > cpus) CPU_CLR(cpu, &set);
  }
  ASSERT_OK(sched_setaffinity(0, sizeof set, &set));
  auto now = [](clockid_t clock) {
    timespec t;
    clock_gettime(clock, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) / 1e9;
  };
  // The time that is measured begins before what is compared with it, and ends after it, however busy the machine is.
  rusage before, after;
  const double start = now(CLOCK_MONOTONIC);
  ASSERT_OK(getrusage(RUSAGE_SELF, &before));
  const double cpu_start = now(CLOCK_PROCESS_CPUTIME_ID);
  std::vector<double> used(4 * cpus);
  std::vector<std::thread> threads;
  for (double& mine : used) {
    threads.emplace_back([&] {
      while (now(CLOCK_MONOTONIC) < start + 0.4) {
      }
      mine = now(CLOCK_THREAD_CPUTIME_ID);
    });
  }
  for (std::thread& t : threads) t.join();
  const double cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu_start;
  ASSERT_OK(getrusage(RUSAGE_SELF, &after));
  // Four times as many threads as CPUs: without sharing it would be four times the time. How exactly it is shared out
  // depends on how busy the machine is with others.
  const double most = (now(CLOCK_MONOTONIC) - start) * cpus * 1.5;
  EXPECT_LT(cpu, most);
  EXPECT_LT(std::accumulate(used.begin(), used.end(), 0.0), most);
  auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
  EXPECT_LT(seconds(after.ru_utime) - seconds(before.ru_utime), most);
}
TEST(ClockDetail, CpuClockOfAnotherProcess) {
  const PausedChild child;
  clockid_t clock;
  ASSERT_EQ(clock_getcpuclockid(child.pid(), &clock), 0);
  timespec t;
  EXPECT_OK(clock_gettime(clock, &t));
}
TEST(ClockDetail, Errors) {
  timespec t;
  EXPECT_FAIL(clock_gettime(999, &t), EINVAL);
  EXPECT_FAIL(clock_getres(999, &t), EINVAL);
  EXPECT_FAIL(syscall(SYS_clock_gettime, CLOCK_REALTIME, BadPointer()), EFAULT);
  EXPECT_TRUE(PassesAsUser(1000, [] {
    const timespec now = {1'000'000'000, 0};
    EXPECT_FAIL(clock_settime(CLOCK_REALTIME, &now), EPERM);
    const timeval tv = {1'000'000'000, 0};
    EXPECT_FAIL(settimeofday(&tv, nullptr), EPERM);
  }));
  EXPECT_FAIL(clock_settime(CLOCK_MONOTONIC, &t), EINVAL);
}
TEST(ClockDetail, AdjtimexReads) {
  timex t = {};
  EXPECT_GE(adjtimex(&t), 0);
}

TEST(Sleep, NanosleepTakesItsTime) {
  const int64_t a = Now(CLOCK_MONOTONIC);
  const timespec t = Spec(20'000'000);
  ASSERT_OK(nanosleep(&t, nullptr));
  EXPECT_GE(Now(CLOCK_MONOTONIC) - a, 20'000'000);
}
TEST(Sleep, Errors) {
  const timespec bad = {0, 1'000'000'000}, negative = {-1, 0};
  EXPECT_FAIL(nanosleep(&bad, nullptr), EINVAL);
  EXPECT_FAIL(nanosleep(&negative, nullptr), EINVAL);
  EXPECT_FAIL(syscall(SYS_nanosleep, BadPointer(), nullptr), EFAULT);
  const timespec good = {0, 1};
  EXPECT_EQ(clock_nanosleep(999, 0, &good, nullptr), EINVAL);
  EXPECT_FAIL(syscall(SYS_clock_nanosleep, CLOCK_THREAD_CPUTIME_ID, 0, &good, nullptr), EOPNOTSUPP);
}
TEST(Sleep, AbsoluteClockNanosleep) {
  for (const clockid_t clock : {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_BOOTTIME}) {
    const int64_t until = Now(clock) + 10'000'000;
    const timespec t = Spec(until);
    EXPECT_EQ(clock_nanosleep(clock, TIMER_ABSTIME, &t, nullptr), 0);
    EXPECT_GE(Now(clock), until);
  }
  const timespec past = {1, 0};
  EXPECT_EQ(clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &past, nullptr), 0);
}

// The number of signals that came after their timer was disarmed: `arm`(ns) sets it, also to 0. The times in between
// are such that a disarming often meets the expiry itself.
volatile int late_count;
template <typename Arm>
int SignalsOfDisarmedTimers(int signo, Arm arm) {
  const ScopedAction action(signo, [](int, siginfo_t*, void*) { late_count = late_count + 1; });
  const auto spin = [](int64_t ns) {
    for (const int64_t end = Now(CLOCK_MONOTONIC) + ns; Now(CLOCK_MONOTONIC) < end;) {
    }
  };
  late_count = 0;
  int late = 0;
  for (int round = 0; round < 3000; ++round) {
    EXPECT_OK(arm(60'000));
    spin(20'000 + round % 100 * 1'000);
    EXPECT_OK(arm(0));
    const int before = late_count;
    spin(20'000);
    late += late_count - before;
  }
  EXPECT_GT(late_count, 0);
  return late;
}

class IntervalTimer : public testing::Test {
 protected:
  IntervalTimer()
      : alarm_(SIGALRM, SignalLog::Record), prof_(SIGPROF, SignalLog::Record), virt_(SIGVTALRM, SignalLog::Record) {
    SignalLog::Reset();
  }
  ~IntervalTimer() override {
    const itimerval off = {};
    for (const auto which : {ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF}) setitimer(which, &off, nullptr);
  }
  ScopedAction alarm_, prof_, virt_;
};
TEST_F(IntervalTimer, RealFiresOnce) {
  const itimerval t = {{0, 0}, {0, 5'000}};
  ASSERT_OK(setitimer(ITIMER_REAL, &t, nullptr));
  EXPECT_TRUE(Eventually([] { return SignalLog::count == 1; }));
  EXPECT_EQ(SignalLog::info[0].si_code, SI_KERNEL);
  usleep(10'000);
  EXPECT_EQ(SignalLog::count, 1);
}
TEST_F(IntervalTimer, RealRepeats) {
  const itimerval t = {{0, 2'000}, {0, 2'000}};
  ASSERT_OK(setitimer(ITIMER_REAL, &t, nullptr));
  EXPECT_TRUE(Eventually([] { return SignalLog::count >= 5; }));
}
TEST_F(IntervalTimer, GetitimerCountsDown) {
  const itimerval t = {{3, 0}, {100, 0}};
  ASSERT_OK(setitimer(ITIMER_REAL, &t, nullptr));
  itimerval now;
  ASSERT_OK(getitimer(ITIMER_REAL, &now));
  EXPECT_GE(now.it_value.tv_sec, 98);
  EXPECT_EQ(now.it_interval.tv_sec, 3);
}
TEST_F(IntervalTimer, VirtualAndProfCountCpuTime) {
  const itimerval t = {{0, 0}, {0, 10'000}};
  ASSERT_OK(setitimer(ITIMER_VIRTUAL, &t, nullptr));
  ASSERT_OK(setitimer(ITIMER_PROF, &t, nullptr));
  usleep(20'000);
  EXPECT_EQ(SignalLog::count, 0);
  const int64_t end = Now(CLOCK_MONOTONIC) + 5'000'000'000;
  while (SignalLog::count < 2 && Now(CLOCK_MONOTONIC) < end) {
  }
  EXPECT_EQ(SignalLog::count, 2);
}
TEST_F(IntervalTimer, AlarmAndItimerShareOneTimer) {
  EXPECT_EQ(alarm(100), 0u);
  itimerval now;
  ASSERT_OK(getitimer(ITIMER_REAL, &now));
  EXPECT_GE(now.it_value.tv_sec, 98);
  EXPECT_GE(alarm(0), 99u);
  ASSERT_OK(getitimer(ITIMER_REAL, &now));
  EXPECT_EQ(now.it_value.tv_sec, 0);
}
TEST_F(IntervalTimer, NoSignalOnceItIsDisarmed) {
  EXPECT_EQ(SignalsOfDisarmedTimers(SIGALRM,
                                    [](int64_t ns) {
                                      const itimerval t = {{0, 0}, {0, ns / 1000}};
                                      return setitimer(ITIMER_REAL, &t, nullptr);
                                    }),
            0);
}
TEST_F(IntervalTimer, Errors) {
  const itimerval bad = {{0, 0}, {0, 1'000'000}};
  EXPECT_FAIL(setitimer(ITIMER_REAL, &bad, nullptr), EINVAL);
  itimerval t;
  EXPECT_FAIL(getitimer(static_cast<__itimer_which>(7), &t), EINVAL);
  EXPECT_FAIL(syscall(SYS_getitimer, ITIMER_REAL, BadPointer()), EFAULT);
}

class PosixTimer : public testing::Test {
 protected:
  PosixTimer() : action_(SIGRTMIN, SignalLog::Record) { SignalLog::Reset(); }
  ~PosixTimer() override {
    if (made_) timer_delete(timer_);
  }
  void Make(clockid_t clock = CLOCK_MONOTONIC, int notify = SIGEV_SIGNAL, pid_t tid = 0) {
    sigevent event = {};
    event.sigev_notify = notify;
    event.sigev_signo = SIGRTMIN;
    event.sigev_value.sival_int = 4321;
    event._sigev_un._tid = tid;
    ASSERT_OK(timer_create(clock, &event, &timer_));
    made_ = true;
  }
  int Set(int64_t first, int64_t interval = 0, int flags = 0) {
    const itimerspec spec = {Spec(interval), Spec(first)};
    return timer_settime(timer_, flags, &spec, nullptr);
  }
  ScopedAction action_;
  timer_t timer_ = nullptr;
  bool made_ = false;
};
TEST_F(PosixTimer, SignalCarriesValueAndCode) {
  Make();
  ASSERT_OK(Set(5'000'000));
  ASSERT_TRUE(Eventually([] { return SignalLog::count == 1; }));
  EXPECT_EQ(SignalLog::info[0].si_code, SI_TIMER);
  EXPECT_EQ(SignalLog::info[0].si_value.sival_int, 4321);
}
TEST_F(PosixTimer, OverrunsAreCounted) {
  Make();
  const ScopedBlock block({SIGRTMIN});
  ASSERT_OK(Set(1'000'000, 1'000'000));
  usleep(30'000);
  const sigset_t set = SignalSet({SIGRTMIN});
  siginfo_t info;
  ASSERT_EQ(sigwaitinfo(&set, &info), SIGRTMIN);
  EXPECT_GE(info.si_overrun, 5);
  EXPECT_GE(timer_getoverrun(timer_), 5);
}
TEST_F(PosixTimer, GettimeAndDisarm) {
  Make();
  ASSERT_OK(Set(100'000'000'000, 7'000'000'000));
  itimerspec now;
  ASSERT_OK(timer_gettime(timer_, &now));
  EXPECT_GE(now.it_value.tv_sec, 98);
  EXPECT_EQ(now.it_interval.tv_sec, 7);
  ASSERT_OK(Set(0));
  ASSERT_OK(timer_gettime(timer_, &now));
  EXPECT_EQ(Nanos(now.it_value), 0);
}
TEST_F(PosixTimer, NoSignalOnceItIsDisarmed) {
  Make();
  EXPECT_EQ(SignalsOfDisarmedTimers(SIGRTMIN, [this](int64_t ns) { return Set(ns); }), 0);
}
TEST_F(PosixTimer, Absolute) {
  Make(CLOCK_REALTIME);
  ASSERT_OK(Set(Now(CLOCK_REALTIME) + 10'000'000, 0, TIMER_ABSTIME));
  EXPECT_TRUE(Eventually([] { return SignalLog::count == 1; }));
}
TEST_F(PosixTimer, ThreadDirected) {
  Make(CLOCK_MONOTONIC, SIGEV_THREAD_ID, gettid());
  ASSERT_OK(Set(1'000'000));
  EXPECT_TRUE(Eventually([] { return SignalLog::count == 1; }));
}
TEST_F(PosixTimer, NoNotification) {
  Make(CLOCK_MONOTONIC, SIGEV_NONE);
  ASSERT_OK(Set(50'000'000'000));
  itimerspec now;
  ASSERT_OK(timer_gettime(timer_, &now));
  EXPECT_GE(now.it_value.tv_sec, 48);
}
TEST_F(PosixTimer, CpuClock) {
  Make(CLOCK_PROCESS_CPUTIME_ID);
  ASSERT_OK(Set(10'000'000));
  usleep(20'000);
  EXPECT_EQ(SignalLog::count, 0);
  const int64_t end = Now(CLOCK_MONOTONIC) + 5'000'000'000;
  while (SignalLog::count == 0 && Now(CLOCK_MONOTONIC) < end) {
  }
  EXPECT_EQ(SignalLog::count, 1);
}
TEST_F(PosixTimer, NotInheritedByFork) {
  Make();
  ASSERT_OK(Set(100'000'000'000));
  EXPECT_TRUE(PassesInChild([&] {
    itimerspec now;
    EXPECT_FAIL(timer_gettime(timer_, &now), EINVAL);
    made_ = false;
  }));
}
TEST_F(PosixTimer, DeletedTimerIsGone) {
  Make();
  ASSERT_OK(timer_delete(timer_));
  made_ = false;
  EXPECT_FAIL(timer_delete(timer_), EINVAL);
}
TEST_F(PosixTimer, Errors) {
  timer_t t;
  EXPECT_FAIL(timer_create(999, nullptr, &t), EINVAL);
  sigevent event = {};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = 100;
  EXPECT_FAIL(timer_create(CLOCK_MONOTONIC, &event, &t), EINVAL);
  Make();
  EXPECT_FAIL(Set(-1), EINVAL);
  const itimerspec bad = {{0, 0}, {0, 1'000'000'000}};
  EXPECT_FAIL(timer_settime(timer_, 0, &bad, nullptr), EINVAL);
}

// The address of a function in the vDSO, from its dynamic symbol table.
void* VdsoSymbol(const char* wanted) {
  const auto base = getauxval(AT_SYSINFO_EHDR);
  if (base == 0) return nullptr;
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(base);
  const auto* segments = reinterpret_cast<const Elf64_Phdr*>(base + header->e_phoff);
  const Elf64_Dyn* dynamic = nullptr;
  uintptr_t load = base;
  for (int i = 0; i < header->e_phnum; ++i) {
    if (segments[i].p_type == PT_DYNAMIC) dynamic = reinterpret_cast<const Elf64_Dyn*>(base + segments[i].p_offset);
    if (segments[i].p_type == PT_LOAD) load = base + segments[i].p_offset - segments[i].p_vaddr;
  }
  const Elf64_Sym* symbols = nullptr;
  const char* names = nullptr;
  const uint32_t* hash = nullptr;
  const uint32_t* gnu_hash = nullptr;
  for (; dynamic != nullptr && dynamic->d_tag != DT_NULL; ++dynamic) {
    const auto at = load + dynamic->d_un.d_ptr;
    if (dynamic->d_tag == DT_SYMTAB) symbols = reinterpret_cast<const Elf64_Sym*>(at);
    if (dynamic->d_tag == DT_STRTAB) names = reinterpret_cast<const char*>(at);
    if (dynamic->d_tag == DT_HASH) hash = reinterpret_cast<const uint32_t*>(at);
    if (dynamic->d_tag == DT_GNU_HASH) gnu_hash = reinterpret_cast<const uint32_t*>(at);
  }
  if (symbols == nullptr || names == nullptr) return nullptr;
  uint32_t count = hash != nullptr ? hash[1] : 0;
  if (hash == nullptr && gnu_hash != nullptr) count = 64;  // more than any vDSO exports
  for (uint32_t i = 1; i < count; ++i) {
    if (symbols[i].st_shndx != SHN_UNDEF && strcmp(names + symbols[i].st_name, wanted) == 0) {
      return reinterpret_cast<void*>(load + symbols[i].st_value);
    }
  }
  return nullptr;
}
TEST(Vdso, IsThere) {
  const auto base = getauxval(AT_SYSINFO_EHDR);
  ASSERT_NE(base, 0u);
  EXPECT_EQ(memcmp(reinterpret_cast<void*>(base), ELFMAG, SELFMAG), 0);
  EXPECT_NE(ReadFile("/proc/self/maps").find("[vdso]"), std::string::npos);
}
TEST(Vdso, ClockGettime) {
  auto* call = reinterpret_cast<int (*)(clockid_t, timespec*)>(VdsoSymbol("__vdso_clock_gettime"));
  ASSERT_NE(call, nullptr);
  timespec t = {};
  EXPECT_EQ(call(CLOCK_MONOTONIC, &t), 0);
  EXPECT_LE(std::abs(Now(CLOCK_MONOTONIC) - Nanos(t)), 1'000'000'000);
  EXPECT_EQ(call(999, &t), -EINVAL);
}
TEST(Vdso, GettimeofdayTimeAndGetcpu) {
  auto* day = reinterpret_cast<int (*)(timeval*, void*)>(VdsoSymbol("__vdso_gettimeofday"));
  auto* seconds = reinterpret_cast<time_t (*)(time_t*)>(VdsoSymbol("__vdso_time"));
  auto* cpu = reinterpret_cast<int (*)(unsigned*, unsigned*, void*)>(VdsoSymbol("__vdso_getcpu"));
  ASSERT_NE(day, nullptr);
  ASSERT_NE(seconds, nullptr);
  ASSERT_NE(cpu, nullptr);
  timeval tv;
  EXPECT_EQ(day(&tv, nullptr), 0);
  EXPECT_LE(std::abs(seconds(nullptr) - tv.tv_sec), 1);
  unsigned which = 99999;
  EXPECT_EQ(cpu(&which, nullptr, nullptr), 0);
  EXPECT_LT(which, 4096u);
}

}  // namespace
}  // namespace moat::guest
