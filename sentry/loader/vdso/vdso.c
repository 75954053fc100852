// The code of the guests' vDSO (vdso(7)). It runs in the guest, so it trusts nothing and protects nothing: whatever it
// answers, it answers to its caller. No data, no relocations: it is mapped as it is.
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>

#define EXPORT __attribute__((visibility("default")))

static inline long Call3(long number, long a, long b, long c) {
  long result;
  __asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
  return result;
}

EXPORT int __vdso_clock_gettime(clockid_t clock, struct timespec *ts) {
  return (int)Call3(SYS_clock_gettime, clock, (long)ts, 0);
}
EXPORT int __vdso_gettimeofday(void *tv, void *tz) { return (int)Call3(SYS_gettimeofday, (long)tv, (long)tz, 0); }
EXPORT time_t __vdso_time(time_t *t) { return Call3(SYS_time, (long)t, 0, 0); }
EXPORT long __vdso_getcpu(unsigned *cpu, unsigned *node, void *unused) {
  (void)unused;
  return Call3(SYS_getcpu, (long)cpu, (long)node, 0);
}
EXPORT int __vdso_clock_getres(clockid_t clock, struct timespec *res) {
  return (int)Call3(SYS_clock_getres, clock, (long)res, 0);
}

EXPORT int clock_gettime(clockid_t, struct timespec *) __attribute__((weak, alias("__vdso_clock_gettime")));
EXPORT int gettimeofday(void *, void *) __attribute__((weak, alias("__vdso_gettimeofday")));
EXPORT time_t time(time_t *) __attribute__((weak, alias("__vdso_time")));
EXPORT long getcpu(unsigned *, unsigned *, void *) __attribute__((weak, alias("__vdso_getcpu")));
EXPORT int clock_getres(clockid_t, struct timespec *) __attribute__((weak, alias("__vdso_clock_getres")));
