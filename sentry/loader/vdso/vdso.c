// The code of the guests' vDSO (vdso(7)). It runs in the guest, so it trusts nothing and protects nothing: whatever it
// answers, it answers to its caller. No data of its own, no relocations: it is mapped as it is.
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>

#include "clock_page.h"

#define EXPORT __attribute__((visibility("default")))

static inline long Call3(long number, long a, long b, long c) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
}

// The page below the image; the linker script gives its address.
extern const volatile struct MoatClockPage moat_clock_page __attribute__((visibility("hidden")));

static const uint64_t kNanosPerSec = 1000000000;

// False when the page cannot tell.
static inline int Now(enum MoatClock clock, struct timespec *now) {
  const volatile struct MoatClockPage *page = &moat_clock_page;
  uint64_t nanos;
  int64_t seconds;
  uint32_t seq;
  do {
    seq = page->seq;
    // The fence keeps the counter from being read before the sequence number.
    __asm__ volatile("lfence" ::: "memory");
    const uint64_t tsc = __builtin_ia32_rdtsc();
    // Being renewed: do not spin on a writer that may not run.
    if ((seq & 1) != 0 || tsc > page->tsc_limit) return 0;
    const uint64_t base = page->tsc_base;
    // Another processor's counter may be a few ticks behind the one that wrote the page.
    const uint64_t ticks = tsc > base ? tsc - base : 0;
    nanos = page->base[clock].nanos + ((ticks * page->mult) >> 32);
    seconds = page->base[clock].seconds;
    __asm__ volatile("" ::: "memory");
  } while (page->seq != seq);
  // The page is good for far less than a second.
  for (; nanos >= kNanosPerSec; nanos -= kNanosPerSec) ++seconds;
  now->tv_sec = seconds;
  now->tv_nsec = (long)nanos;
  return 1;
}

EXPORT int __vdso_clock_gettime(clockid_t clock, struct timespec *ts) {
  enum MoatClock which;
  if (clock == CLOCK_MONOTONIC) {
    which = kMoatMonotonic;
  } else if (clock == CLOCK_REALTIME) {
    which = kMoatRealtime;
  } else if (clock == CLOCK_BOOTTIME) {
    which = kMoatBoottime;
  } else {
    return (int)Call3(SYS_clock_gettime, clock, (long)ts, 0);
  }
  return Now(which, ts) ? 0 : (int)Call3(SYS_clock_gettime, clock, (long)ts, 0);
}
EXPORT int __vdso_gettimeofday(struct timeval *tv, void *tz) {
  struct timespec now;
  if (tz != 0 || tv == 0 || !Now(kMoatRealtime, &now)) return (int)Call3(SYS_gettimeofday, (long)tv, (long)tz, 0);
  tv->tv_sec = now.tv_sec;
  tv->tv_usec = now.tv_nsec / 1000;
  return 0;
}
EXPORT time_t __vdso_time(time_t *t) {
  struct timespec now;
  if (!Now(kMoatRealtime, &now)) return Call3(SYS_time, (long)t, 0, 0);
  if (t != 0) *t = now.tv_sec;
  return now.tv_sec;
}
EXPORT long __vdso_getcpu(unsigned *cpu, unsigned *node, void *unused) {
  // Linux keeps CPU and node of each CPU as the limit of a segment (arch/x86/include/asm/segment.h, CPUNODE). Guests
  // see the host's CPU numbers and one node.
  const unsigned kCpuNodeSegment = 0x7b, kCpuMask = 0xfff;
  unsigned now;
  (void)unused;
  __asm__ volatile("lsl %1, %0" : "=r"(now) : "r"(kCpuNodeSegment));
  if (cpu != 0) *cpu = now & kCpuMask;
  if (node != 0) *node = 0;
  return 0;
}
EXPORT int __vdso_clock_getres(clockid_t clock, struct timespec *res) {
  return (int)Call3(SYS_clock_getres, clock, (long)res, 0);
}

EXPORT int clock_gettime(clockid_t, struct timespec *) __attribute__((weak, alias("__vdso_clock_gettime")));
EXPORT int gettimeofday(struct timeval *restrict, void *restrict) __attribute__((weak, alias("__vdso_gettimeofday")));
EXPORT time_t time(time_t *) __attribute__((weak, alias("__vdso_time")));
EXPORT long getcpu(unsigned *, unsigned *, void *) __attribute__((weak, alias("__vdso_getcpu")));
EXPORT int clock_getres(clockid_t, struct timespec *) __attribute__((weak, alias("__vdso_clock_getres")));
