#include "sentry/kernel/timekeeping.h"

#include "sentry/kernel/kernel.h"

namespace moat {

namespace {

// CPU clock ids of other tasks: ~pid << 3 | per-thread bit 4 | kind (CPUCLOCK_PROF 0, VIRT 1, SCHED 2).
constexpr int kPerThread = 4;
constexpr int kKindMask = 3;
constexpr int kClockFd = 3;

Nanos OfKind(const CpuTimes& times, int kind) { return kind == 1 ? times.user : times.total(); }

}  // namespace

Result<Nanos> ToNanos(const abi::Timespec& ts) {
  if (ts.tv_sec < 0 || ts.tv_nsec < 0 || ts.tv_nsec >= kNanosPerSec) return kEINVAL;
  if (ts.tv_sec >= kMaxTimespecSeconds) return kNoDeadline;
  return ts.tv_sec * kNanosPerSec + ts.tv_nsec;
}

Result<Nanos> ToNanos(const abi::Timeval& tv) {
  if (tv.tv_sec < 0 || tv.tv_usec < 0 || tv.tv_usec >= 1'000'000) return kEINVAL;
  if (tv.tv_sec >= kMaxTimespecSeconds) return kNoDeadline;
  return tv.tv_sec * kNanosPerSec + tv.tv_usec * 1000;
}

bool IsCpuClock(int32_t clock) {
  return clock < 0 || clock == CLOCK_PROCESS_CPUTIME_ID || clock == CLOCK_THREAD_CPUTIME_ID;
}

Result<Nanos> ReadClock(Task& t, int32_t clock) {
  switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_REALTIME_COARSE:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_BOOTTIME:
    case CLOCK_TAI:
      return ReadHostClock(clock);
    case CLOCK_REALTIME_ALARM:
      return ReadHostClock(CLOCK_REALTIME);
    case CLOCK_BOOTTIME_ALARM:
      return ReadHostClock(CLOCK_BOOTTIME);
    case CLOCK_PROCESS_CPUTIME_ID:
      return t.thread_group().cpu_times().total();
    case CLOCK_THREAD_CPUTIME_ID:
      return t.cpu_times().total();
    default:
      break;
  }
  if (clock >= 0 || (clock & kKindMask) == kClockFd) return kEINVAL;
  const int32_t pid = ~(clock >> 3);
  const int kind = clock & kKindMask;
  PidNamespace& ns = *t.pid_ns();
  if ((clock & kPerThread) != 0) {
    if (pid == 0) return OfKind(t.cpu_times(), kind);
    RefPtr<Task> target = t.kernel().FindTask(pid, ns);
    // Another process's threads are not ours to see.
    if (!target || &target->thread_group() != &t.thread_group()) return kEINVAL;
    return OfKind(target->cpu_times(), kind);
  }
  if (pid == 0) return OfKind(t.thread_group().cpu_times(), kind);
  RefPtr<ThreadGroup> target = t.kernel().FindThreadGroup(pid, ns);
  if (!target) return kEINVAL;
  return OfKind(target->cpu_times(), kind);
}

Result<Deadline> ToDeadline(int32_t clock, Nanos when) {
  switch (clock) {
    case CLOCK_MONOTONIC:
      return when;
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_ALARM:
    case CLOCK_TAI:
    case CLOCK_BOOTTIME:
    case CLOCK_BOOTTIME_ALARM: {
      if (when == kNoDeadline) return kNoDeadline;
      const clockid_t host = clock == CLOCK_REALTIME_ALARM   ? CLOCK_REALTIME
                             : clock == CLOCK_BOOTTIME_ALARM ? CLOCK_BOOTTIME
                                                             : clock;
      const Nanos left = when - ReadHostClock(host);
      return left <= 0 ? MonotonicNow() : DeadlineAfter(left);
    }
    default:
      return kEINVAL;
  }
}

}  // namespace moat
