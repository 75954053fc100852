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

enum { kNanosPerSec = 1000000000 };

// Nanoseconds of `clock`; negative when the page cannot tell.
static inline int64_t Now(clockid_t clock) {
  const volatile struct MoatClockPage *page = &moat_clock_page;
  for (;;) {
    const uint32_t seq = page->seq;
    if ((seq & 1) != 0) return -1;  // being renewed: do not spin on a writer that may not run
    __asm__ volatile("" ::: "memory");
    if (page->valid == 0) return -1;
    // The fence keeps the counter from being read before the sequence number.
    __asm__ volatile("lfence" ::: "memory");
    const uint64_t tsc = __builtin_ia32_rdtsc();
    if (tsc > page->tsc_limit) return -1;
    const uint64_t base = page->tsc_base;
    // Another processor's counter may be a few ticks behind the one that wrote the page.
    const uint64_t ticks = tsc > base ? tsc - base : 0;
    int64_t ns = page->mono_base + (int64_t)((ticks * page->mult) >> 32);
    if (clock == CLOCK_REALTIME) ns += page->realtime_offset;
    if (clock == CLOCK_BOOTTIME) ns += page->boottime_offset;
    __asm__ volatile("" ::: "memory");
    if (page->seq == seq) return ns;
  }
}

EXPORT int __vdso_clock_gettime(clockid_t clock, struct timespec *ts) {
  if (clock == CLOCK_MONOTONIC || clock == CLOCK_REALTIME || clock == CLOCK_BOOTTIME) {
    const int64_t ns = Now(clock);
    if (ns >= 0) {
      ts->tv_sec = ns / kNanosPerSec;
      ts->tv_nsec = ns % kNanosPerSec;
      return 0;
    }
  }
  return (int)Call3(SYS_clock_gettime, clock, (long)ts, 0);
}
EXPORT int __vdso_gettimeofday(struct timeval *tv, void *tz) {
  const int64_t ns = tz == 0 && tv != 0 ? Now(CLOCK_REALTIME) : -1;
  if (ns < 0) return (int)Call3(SYS_gettimeofday, (long)tv, (long)tz, 0);
  tv->tv_sec = ns / kNanosPerSec;
  tv->tv_usec = ns % kNanosPerSec / 1000;
  return 0;
}
EXPORT time_t __vdso_time(time_t *t) {
  const int64_t ns = Now(CLOCK_REALTIME);
  if (ns < 0) return Call3(SYS_time, (long)t, 0, 0);
  const time_t seconds = ns / kNanosPerSec;
  if (t != 0) *t = seconds;
  return seconds;
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
