#include "sentry/loader/vdso_clock.h"

#include <cpuid.h>
#include <time.h>
#include <x86intrin.h>

#include <algorithm>

#include "platform/base/log.h"
#include "platform/fiber/clock.h"

namespace moat {
namespace {

constexpr Nanos kMinCalibration = 20'000'000;  // between the two samples that give the rate
constexpr Nanos kWindow = 100'000'000;         // how long one page is good for
constexpr Nanos kTrail = 250;                  // by how much the page trails the host when it is written
// The page's rate is this much slower than measured (in 2^-20): it trails more, never less, until it is renewed.
constexpr uint64_t kSlower = 2;
// Beyond this the counter does not tell the host's time. A clock that the host slews moves 50 microseconds in a window.
constexpr Nanos kMaxError = 200'000;
// An offset between clocks that moved less was only measured differently.
constexpr Nanos kOffsetNoise = 2'000;
constexpr int kSamples = 5;

uint64_t ReadCounter() {
  unsigned aux;
  return __rdtscp(&aux);
}

Nanos OffsetOf(clockid_t clock) {
  const Nanos before = MonotonicNow();
  const Nanos there = ReadHostClock(clock);
  const Nanos after = MonotonicNow();
  return there - (before + (after - before) / 2);
}

Nanos Steady(Nanos old, Nanos fresh, bool have_old) {
  return have_old && fresh - old < kOffsetNoise && old - fresh < kOffsetNoise ? old : fresh;
}

}  // namespace

Nanos VdsoClock::Answers::MonotonicAt(uint64_t tsc) const {
  tsc = std::clamp(tsc, tsc_base, tsc_limit);
  return mono_base + static_cast<int64_t>((static_cast<unsigned __int128>(tsc - tsc_base) * mult) >> 32);
}

bool VdsoClock::CounterIsUsable() {
  // "Invariant TSC": runs at one rate in every power state (Intel SDM, CPUID leaf 80000007H).
  unsigned a, b, c, d;
  return __get_cpuid(0x80000007, &a, &b, &c, &d) != 0 && (d & (1u << 8)) != 0;
}

VdsoClock::VdsoClock(RefPtr<Mappable> memory, MoatClockPage* page)
    : memory_(std::move(memory)), page_(page), usable_(CounterIsUsable()) {
  Refresh();  // the first sample of the calibration
}

VdsoClock::Sample VdsoClock::TakeSample() {
  // The shortest of several: nothing came between the readings.
  Sample best{};
  uint64_t shortest = ~uint64_t{0};
  for (int i = 0; i < kSamples; ++i) {
    const uint64_t before = ReadCounter();
    const Nanos now = MonotonicNow();
    const uint64_t took = ReadCounter() - before;
    if (took < shortest) {
      shortest = took;
      best = {before + took / 2, now};
    }
  }
  return best;
}

void VdsoClock::Write(const Answers& next) {
  // A sequence lock with one writer (mu_); readers are in other processes.
  __atomic_store_n(&page_->seq, seq_ + 1, __ATOMIC_RELAXED);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  __atomic_store_n(&page_->tsc_base, next.tsc_base, __ATOMIC_RELAXED);
  __atomic_store_n(&page_->tsc_limit, next.valid ? next.tsc_limit : 0, __ATOMIC_RELAXED);
  __atomic_store_n(&page_->mult, next.mult, __ATOMIC_RELAXED);
  const Nanos bases[kMoatClocks] = {next.mono_base, next.mono_base + next.realtime_offset,
                                    next.mono_base + next.boottime_offset};
  for (int clock = 0; clock < kMoatClocks; ++clock) {
    auto& base = page_->base[clock];
    __atomic_store_n(&base.seconds, bases[clock] / kNanosPerSec, __ATOMIC_RELAXED);
    __atomic_store_n(&base.nanos, static_cast<uint64_t>(bases[clock] % kNanosPerSec), __ATOMIC_RELAXED);
  }
  seq_ += 2;
  __atomic_store_n(&page_->seq, seq_, __ATOMIC_RELEASE);
  current_ = next;
}

void VdsoClock::Refresh() {
  if (!usable_.load(std::memory_order_relaxed)) return;
  if (ReadCounter() < next_refresh_.load(std::memory_order_relaxed)) return;
  MutexLock lock(mu_);
  const Sample now = TakeSample();
  if (!have_origin_) {
    origin_ = now;
    have_origin_ = true;
    return;
  }
  const Nanos elapsed = now.monotonic - origin_.monotonic;
  if (elapsed < kMinCalibration || now.tsc <= origin_.tsc) return;

  const bool was_valid = current_.valid;
  Answers next;
  next.valid = true;
  next.mult = static_cast<uint64_t>((static_cast<unsigned __int128>(elapsed) << 32) / (now.tsc - origin_.tsc));
  const uint64_t window = (static_cast<uint64_t>(kWindow) << 32) / next.mult;
  next.mult -= (next.mult >> 20) * kSlower;
  next.tsc_base = now.tsc;
  next.tsc_limit = now.tsc + window;
  next.mono_base = now.monotonic - kTrail;
  if (was_valid) {
    // Guests may have read as far as the old page went; the new one goes on from there.
    const Nanos told = current_.MonotonicAt(now.tsc);
    if (told - now.monotonic > kMaxError) {
      MOAT_LOG(kWarning, "vdso: the time stamp counter runs {} ns ahead of the host's clock; not used any more",
               told - now.monotonic);
      next.valid = false;
      usable_.store(false, std::memory_order_relaxed);
    }
    next.mono_base = std::max<Nanos>(next.mono_base, told);
  }
  next.realtime_offset = Steady(current_.realtime_offset, OffsetOf(CLOCK_REALTIME), was_valid);
  next.boottime_offset = Steady(current_.boottime_offset, OffsetOf(CLOCK_BOOTTIME), was_valid);
  Write(next);
  next_refresh_.store(next.tsc_limit, std::memory_order_relaxed);
}

}  // namespace moat
