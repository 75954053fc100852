// The clock page: what the vDSO's code needs to tell the time without a system call. The sentry writes it
// (sentry/loader/vdso_clock.cc), guests read it, one page below the vDSO. Plain C: it is part of the guests' vDSO too.
//
// The answers hold from tsc_base to tsc_limit; after that the system call is made, which renews the page. A limit of 0,
// which is long past: always. `seq` is odd while the page is being written, and changes with each write.
#ifndef MOAT_SENTRY_LOADER_VDSO_CLOCK_PAGE_H_
#define MOAT_SENTRY_LOADER_VDSO_CLOCK_PAGE_H_

#include <stdint.h>

enum MoatClock { kMoatMonotonic, kMoatRealtime, kMoatBoottime, kMoatClocks };

struct MoatClockPage {
  uint32_t seq;
  uint32_t reserved;
  uint64_t tsc_base;  // time stamp counter at the bases
  uint64_t tsc_limit;
  uint64_t mult;  // nanoseconds per tick, 32.32 fixed point
  // Seconds and the rest: to take them apart at each reading costs a tenth of it.
  struct {
    int64_t seconds;
    uint64_t nanos;  // below 10^9
  } base[kMoatClocks];
};

#endif  // MOAT_SENTRY_LOADER_VDSO_CLOCK_PAGE_H_
