// Host time as the sentry sees it. Units: nanoseconds in int64_t.
#ifndef MOAT_PLATFORM_FIBER_CLOCK_H_
#define MOAT_PLATFORM_FIBER_CLOCK_H_

#include <cstdint>
#include <ctime>
#include <limits>

namespace moat {

using Nanos = int64_t;
inline constexpr Nanos kNanosPerSec = 1'000'000'000;

// A point on the host's CLOCK_MONOTONIC; kNoDeadline never comes.
using Deadline = Nanos;
inline constexpr Deadline kNoDeadline = std::numeric_limits<Nanos>::max();

inline Nanos ReadHostClock(clockid_t clock) {
  timespec ts;
  clock_gettime(clock, &ts);  // vDSO
  return ts.tv_sec * kNanosPerSec + ts.tv_nsec;
}
inline Nanos MonotonicNow() { return ReadHostClock(CLOCK_MONOTONIC); }
inline Nanos RealtimeNow() { return ReadHostClock(CLOCK_REALTIME); }

// now + delta, saturating at kNoDeadline; a negative delta is now.
inline Deadline DeadlineAfter(Nanos delta) {
  Nanos now = MonotonicNow();
  if (delta < 0) return now;
  return delta > kNoDeadline - now ? kNoDeadline : now + delta;
}

}  // namespace moat

#endif  // MOAT_PLATFORM_FIBER_CLOCK_H_
