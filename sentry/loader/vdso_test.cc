// The vDSO's code is run here as it is, mapped into this process, against the host's clocks.
#include "sentry/loader/vdso.h"

#include <elf.h>
#include <sys/time.h>
#include <time.h>

#include <algorithm>
#include <cstring>
#include <thread>

#include "platform/fiber/clock.h"
#include "sentry/loader/vdso/clock_page.h"
#include "sentry/loader/vdso_clock.h"
#include "sentry/mm/test_machine.h"

namespace moat {
namespace {

class VdsoTest : public MmTest {
 protected:
  void SetUp() override {
    ASSERT_TRUE(MakeVdso(&env_).ok());
    const HostPages pages = *env_.vdso->Translate(0, ~0ull >> 1, false);
    size_ = pages.range.length();
    void* p = mmap(nullptr, size_, PROT_READ, MAP_SHARED, pages.fd, static_cast<off_t>(pages.range.start));
    ASSERT_NE(p, MAP_FAILED);
    base_ = static_cast<char*>(p);
    ASSERT_EQ(mprotect(base_ + kPageSize, size_ - kPageSize, PROT_READ | PROT_EXEC), 0);
  }
  void TearDown() override {
    munmap(base_, size_);
    env_.vdso = nullptr;
    env_.clock = nullptr;
    MmTest::TearDown();
  }
  const MoatClockPage& page() const { return *reinterpret_cast<const MoatClockPage*>(base_); }
  template <typename Function>
  Function Find(const char* name) const {
    const char* image = base_ + kPageSize;
    const auto* header = reinterpret_cast<const Elf64_Ehdr*>(image);
    const auto* segments = reinterpret_cast<const Elf64_Phdr*>(image + header->e_phoff);
    const Elf64_Sym* symbols = nullptr;
    const char* names = nullptr;
    const uint32_t* hash = nullptr;
    for (int i = 0; i < header->e_phnum; ++i) {
      if (segments[i].p_type != PT_DYNAMIC) continue;
      for (const auto* d = reinterpret_cast<const Elf64_Dyn*>(image + segments[i].p_vaddr); d->d_tag != DT_NULL; ++d) {
        if (d->d_tag == DT_SYMTAB) symbols = reinterpret_cast<const Elf64_Sym*>(image + d->d_un.d_ptr);
        if (d->d_tag == DT_STRTAB) names = image + d->d_un.d_ptr;
        if (d->d_tag == DT_HASH) hash = reinterpret_cast<const uint32_t*>(image + d->d_un.d_ptr);
      }
    }
    for (uint32_t i = 0; symbols != nullptr && i < hash[1]; ++i)
      if (strcmp(names + symbols[i].st_name, name) == 0)
        return reinterpret_cast<Function>(const_cast<char*>(image) + symbols[i].st_value);
    return nullptr;
  }
  // Until the page answers; false when this processor's counter cannot be used.
  bool Calibrate() {
    if (!VdsoClock::CounterIsUsable()) return false;
    for (int i = 0; i < 50 && page().tsc_limit == 0; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      env_.clock->Refresh();
    }
    return true;
  }

  using ClockGettime = int (*)(clockid_t, timespec*);
  char* base_ = nullptr;
  size_t size_ = 0;
};

TEST_F(VdsoTest, HasLinuxNames) {
  for (const char* name : {"__vdso_clock_gettime", "__vdso_gettimeofday", "__vdso_time", "__vdso_getcpu",
                           "__vdso_clock_getres", "clock_gettime", "gettimeofday", "time", "getcpu", "clock_getres"})
    EXPECT_NE(Find<void*>(name), nullptr) << name;
}

TEST_F(VdsoTest, WithoutAPageItMakesTheCall) {
  auto clock_gettime = Find<ClockGettime>("__vdso_clock_gettime");
  for (clockid_t clock : {CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME, CLOCK_MONOTONIC_COARSE}) {
    const Nanos before = ReadHostClock(clock);
    timespec ts;
    ASSERT_EQ(clock_gettime(clock, &ts), 0);
    EXPECT_GE(ts.tv_sec * kNanosPerSec + ts.tv_nsec, before);
  }
  timespec ts;
  EXPECT_LT(clock_gettime(12345, &ts), 0);
  EXPECT_EQ(Find<ClockGettime>("__vdso_clock_getres")(CLOCK_MONOTONIC, &ts), 0);
  unsigned cpu = ~0u;
  EXPECT_EQ(Find<long (*)(unsigned*, unsigned*, void*)>("__vdso_getcpu")(&cpu, nullptr, nullptr), 0);
  EXPECT_NE(cpu, ~0u);
}

TEST_F(VdsoTest, AgreesWithTheHostAndNeverGoesBack) {
  if (!Calibrate()) GTEST_SKIP() << "no invariant time stamp counter";
  ASSERT_NE(page().tsc_limit, 0u);
  auto clock_gettime = Find<ClockGettime>("__vdso_clock_gettime");
  const Nanos end = MonotonicNow() + 450'000'000;  // several pages long
  Nanos last[2] = {0, 0};
  Nanos behind = 0, ahead = 0;
  int readings = 0;
  while (MonotonicNow() < end) {
    env_.clock->Refresh();
    const clockid_t clock = readings++ % 2 == 0 ? CLOCK_MONOTONIC : CLOCK_REALTIME;
    const Nanos before = ReadHostClock(clock);
    timespec ts;
    clock_gettime(clock, &ts);
    const Nanos told = ts.tv_sec * kNanosPerSec + ts.tv_nsec;
    const Nanos after = ReadHostClock(clock);
    ASSERT_GE(told, last[clock == CLOCK_REALTIME]);
    last[clock == CLOCK_REALTIME] = told;
    behind = std::max(behind, before - told);
    ahead = std::max(ahead, told - after);
  }
  EXPECT_LT(behind, 5'000);
  EXPECT_LT(ahead, 2'000);
  timeval tv;
  ASSERT_EQ(Find<int (*)(timeval*, void*)>("__vdso_gettimeofday")(&tv, nullptr), 0);
  EXPECT_NEAR(static_cast<double>(tv.tv_sec), static_cast<double>(time(nullptr)), 1);
  EXPECT_NEAR(static_cast<double>(Find<time_t (*)(time_t*)>("__vdso_time")(nullptr)),
              static_cast<double>(time(nullptr)), 1);
}

TEST_F(VdsoTest, AnOldPageIsNotUsed) {
  if (!Calibrate()) GTEST_SKIP() << "no invariant time stamp counter";
  std::this_thread::sleep_for(std::chrono::milliseconds(150));
  // Nobody renewed it: the answer is the system call's, so no older than now.
  const Nanos before = MonotonicNow();
  timespec ts;
  Find<ClockGettime>("__vdso_clock_gettime")(CLOCK_MONOTONIC, &ts);
  EXPECT_GE(ts.tv_sec * kNanosPerSec + ts.tv_nsec, before);
}

}  // namespace
}  // namespace moat
