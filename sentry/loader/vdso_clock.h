// VdsoClock: writes the vDSO's clock page (vdso/clock_page.h): the host's clocks in terms of the time stamp counter.
//
// The page is renewed when a guest asks for the time after the page's answers have run out; nobody renews it while
// nobody asks. What guests read from the page trails the host's clock by a fraction of a microsecond on purpose: a
// system call, which answers the host's own time, then never seems to lie before a reading of the page, and takes
// longer itself than the page trails. Readings of the page never go backwards. When the counter and the host's clock
// disagree by more than they can (a host whose counters are not synchronised), the page is switched off for good and
// every reading is a system call. Thread-safe. Lock: kLeaf.
#ifndef MOAT_SENTRY_LOADER_VDSO_CLOCK_H_
#define MOAT_SENTRY_LOADER_VDSO_CLOCK_H_

#include <atomic>
#include <cstdint>

#include "platform/base/mutex.h"
#include "platform/base/ref_ptr.h"
#include "platform/fiber/clock.h"
#include "platform/memory/mappable.h"
#include "sentry/loader/vdso/clock_page.h"
#include "sentry/mm/guest_clock.h"

namespace moat {

class VdsoClock final : public GuestClock {
 public:
  // `page` is the sentry's address of the page, already backed by memory, which `memory` keeps.
  VdsoClock(RefPtr<Mappable> memory, MoatClockPage* page);

  // False when the processor's counter cannot be used: the page stays invalid.
  static bool CounterIsUsable();

  void Refresh() override;

 private:
  struct Sample {
    uint64_t tsc;
    int64_t monotonic;
  };
  // What the page says, or would say: from tsc_base to tsc_limit.
  struct Answers {
    bool valid = false;
    uint64_t tsc_base = 0, tsc_limit = 0;
    uint64_t mult = 0;                               // nanoseconds per tick, 32.32 fixed point
    Nanos mono_base = 0;                             // CLOCK_MONOTONIC at tsc_base
    Nanos realtime_offset = 0, boottime_offset = 0;  // from CLOCK_MONOTONIC
    Nanos MonotonicAt(uint64_t tsc) const;
  };
  static Sample TakeSample();
  void Write(const Answers& next) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const RefPtr<Mappable> memory_;
  MoatClockPage* const page_;
  std::atomic<uint64_t> next_refresh_{0};  // counter value before which there is nothing to do
  std::atomic<bool> usable_;
  Mutex mu_{LockRank::kLeaf};
  bool have_origin_ ABSL_GUARDED_BY(mu_) = false;
  Sample origin_ ABSL_GUARDED_BY(mu_) = {};
  Answers current_ ABSL_GUARDED_BY(mu_);
  uint32_t seq_ ABSL_GUARDED_BY(mu_) = 0;  // the page's
};

}  // namespace moat

#endif  // MOAT_SENTRY_LOADER_VDSO_CLOCK_H_
