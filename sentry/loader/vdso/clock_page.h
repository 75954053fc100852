// The clock page: what the vDSO's code needs to tell the time without a system call. The sentry writes it
// (sentry/loader/vdso_clock.cc), guests read it, one page below the vDSO. Plain C: it is part of the guests' vDSO too.
//
// The answers hold from tsc_base to tsc_limit; after that the system call is made, which renews the page. `seq` is odd
// while the page is being written, and changes with each write.
#ifndef MOAT_SENTRY_LOADER_VDSO_CLOCK_PAGE_H_
#define MOAT_SENTRY_LOADER_VDSO_CLOCK_PAGE_H_

#include <stdint.h>

struct MoatClockPage {
  uint32_t seq;
  uint32_t valid;     // 0: always make the system call
  uint64_t tsc_base;  // time stamp counter at mono_base
  uint64_t tsc_limit;
  uint64_t mult;            // nanoseconds per tick, 32.32 fixed point
  int64_t mono_base;        // CLOCK_MONOTONIC, ns
  int64_t realtime_offset;  // CLOCK_REALTIME - CLOCK_MONOTONIC, ns
  int64_t boottime_offset;  // CLOCK_BOOTTIME - CLOCK_MONOTONIC, ns
};

#endif  // MOAT_SENTRY_LOADER_VDSO_CLOCK_PAGE_H_
