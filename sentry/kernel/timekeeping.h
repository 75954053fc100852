// The guest's clocks, on top of the host's. Nanoseconds. Source: clock_gettime(2), time_namespaces(7).
#ifndef MOAT_SENTRY_KERNEL_TIMEKEEPING_H_
#define MOAT_SENTRY_KERNEL_TIMEKEEPING_H_

#include "platform/abi/time.h"
#include "platform/base/result.h"
#include "platform/fiber/clock.h"

namespace moat {

class Task;

// --- conversion ---
inline constexpr Nanos kMaxTimespecSeconds = kNoDeadline / kNanosPerSec;
// kEINVAL for a negative or not normalised value; saturates at kNoDeadline.
Result<Nanos> ToNanos(const abi::Timespec& ts);
Result<Nanos> ToNanos(const abi::Timeval& tv);
inline abi::Timespec ToTimespec(Nanos n) { return {n / kNanosPerSec, n % kNanosPerSec}; }
inline abi::Timeval ToTimeval(Nanos n) { return {n / kNanosPerSec, n % kNanosPerSec / 1000}; }

// --- clocks ---
// CLOCK_* of the system, and the CPU clocks of tasks and thread groups (encoded ids included). kEINVAL: no such
// clock, or the process it names does not exist.
Result<Nanos> ReadClock(Task& t, int32_t clock);
// The host's CLOCK_MONOTONIC when `clock` reads `when`: CLOCK_REALTIME, CLOCK_TAI, CLOCK_MONOTONIC, CLOCK_BOOTTIME and
// their _ALARM and _COARSE forms. kEINVAL for others. A clock that is set later is not followed.
Result<Deadline> ToDeadline(int32_t clock, Nanos when);

bool IsCpuClock(int32_t clock);

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_TIMEKEEPING_H_
