// The host's futex(2) for words of this process. Not the guest's futexes: those are sentry/kernel's.
#ifndef MOAT_PLATFORM_FIBER_FUTEX_H_
#define MOAT_PLATFORM_FIBER_FUTEX_H_

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>

#include "platform/fiber/clock.h"

namespace moat {

// Sleeps while `word` is `value`, at most until `deadline`. May return early for no reason.
inline void HostFutexWait(std::atomic<uint32_t>& word, uint32_t value, Deadline deadline = kNoDeadline) {
  timespec ts;
  if (deadline != kNoDeadline) {
    if (deadline < 0) deadline = 0;
    ts = {deadline / kNanosPerSec, deadline % kNanosPerSec};
  }
  // FUTEX_WAIT_BITSET takes an absolute time of CLOCK_MONOTONIC.
  syscall(SYS_futex, &word, FUTEX_WAIT_BITSET_PRIVATE, value, deadline == kNoDeadline ? nullptr : &ts, nullptr,
          FUTEX_BITSET_MATCH_ANY);
}
inline void HostFutexWake(std::atomic<uint32_t>& word, int count = 1) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

}  // namespace moat

#endif  // MOAT_PLATFORM_FIBER_FUTEX_H_
