// Clocks and sleeping: clock_*(2), gettimeofday(2), nanosleep(2), times(2). Conversions and the clocks themselves are
// in sentry/kernel/timekeeping.h.
#include <unistd.h>

#include "sentry/kernel/blocking.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/timekeeping.h"
#include "sentry/syscalls/handlers.h"

namespace moat {
namespace {

constexpr long kUserHz = 100;  // CLOCKS_PER_SEC of the ABI

// The vDSO answers without a system call as long as its clock page is up to date; that we are here says that it is not.
void RenewClockPage(Task& t) {
  if (GuestClock* clock = t.memory().environment().clock.get()) clock->Refresh();
}

bool IsSettable(int32_t clock) { return clock == CLOCK_REALTIME; }

// Sleeps until `deadline`. An interrupted relative sleep writes what remains and is continued by restart_syscall.
Result<int64_t> SleepUntil(Task& t, Deadline deadline, GuestAddr remaining, bool relative) {
  for (;;) {
    Result<void> r = ParkInterruptible(t, deadline);
    if (r.ok()) {
      if (MonotonicNow() >= deadline) return 0;
      continue;  // woken for nothing
    }
    if (r.error() == kETIMEDOUT) return 0;
    if (r.error() != kERESTARTSYS) return r.error();
    if (!relative) return kERESTARTNOHAND;
    if (remaining != 0) {
      Nanos left = std::max<Nanos>(deadline - MonotonicNow(), 0);
      TRY(UserOut<abi::Timespec>(remaining).Write(t.memory(), ToTimespec(left)));
    }
    RestartBlock block;
    block.kind = RestartBlock::Kind::kNanosleep;
    block.deadline = deadline;
    block.arg0 = remaining;
    return t.SetRestart(block);
  }
}

// CPU clocks have no event to wait for: look again when the time could at soonest have been used.
Result<int64_t> SleepOnCpuClock(Task& t, int32_t clock, Nanos until) {
  for (;;) {
    Nanos now = TRY(ReadClock(t, clock));
    if (now >= until) return 0;
    Result<void> r = ParkInterruptible(t, DeadlineAfter(std::max<Nanos>(until - now, 1'000'000)));
    if (!r.ok() && r.error() != kETIMEDOUT) return kERESTARTNOHAND;
  }
}

}  // namespace

Result<int64_t> SysClockGettime(Task& t, int clock, UserOut<abi::Timespec> out) {
  RenewClockPage(t);
  TRY(out.Write(t.memory(), ToTimespec(TRY(ReadClock(t, clock)))));
  return 0;
}

Result<int64_t> SysClockGetres(Task& t, int clock, UserOut<abi::Timespec> out) {
  TRY(ReadClock(t, clock));
  bool coarse = clock == CLOCK_REALTIME_COARSE || clock == CLOCK_MONOTONIC_COARSE;
  if (out) TRY(out.Write(t.memory(), ToTimespec(coarse ? 4'000'000 : 1)));
  return 0;
}

Result<int64_t> SysClockSettime(Task& t, int clock, UserIn<abi::Timespec> in) {
  TRY(ToNanos(TRY(in.Read(t.memory()))));
  if (!IsSettable(clock)) return kEINVAL;
  // The time of day is the host's; nobody in the sandbox holds CAP_SYS_TIME over it.
  return kEPERM;
}

Result<int64_t> SysClockNanosleep(Task& t, int clock, int flags, UserIn<abi::Timespec> request, GuestAddr remaining) {
  if ((flags & ~TIMER_ABSTIME) != 0) return kEINVAL;
  if (clock == CLOCK_THREAD_CPUTIME_ID) return kEOPNOTSUPP;  // Linux has no sleep on it
  Nanos value = TRY(ToNanos(TRY(request.Read(t.memory()))));
  bool absolute = (flags & TIMER_ABSTIME) != 0;
  if (IsCpuClock(clock)) {
    Nanos now = TRY(ReadClock(t, clock));
    return SleepOnCpuClock(t, clock, absolute ? value : value > kNoDeadline - now ? kNoDeadline : now + value);
  }
  if (clock == CLOCK_REALTIME_COARSE || clock == CLOCK_MONOTONIC_COARSE || clock == CLOCK_MONOTONIC_RAW) {
    return kEOPNOTSUPP;
  }
  Deadline deadline = TRY(ToDeadline(clock, absolute ? value : 0));
  if (!absolute) deadline = DeadlineAfter(value);
  return SleepUntil(t, deadline, remaining, !absolute);
}

Result<int64_t> SysNanosleep(Task& t, UserIn<abi::Timespec> request, GuestAddr remaining) {
  Nanos value = TRY(ToNanos(TRY(request.Read(t.memory()))));
  return SleepUntil(t, DeadlineAfter(value), remaining, true);
}

Result<int64_t> RestartNanosleep(Task& t, const RestartBlock& block) {
  return SleepUntil(t, block.deadline, block.arg0, true);
}

Result<int64_t> SysGettimeofday(Task& t, UserOut<abi::Timeval> tv, UserOut<abi::Timezone> tz) {
  RenewClockPage(t);
  if (tv) TRY(tv.Write(t.memory(), ToTimeval(RealtimeNow())));
  if (tz) TRY(tz.Write(t.memory(), abi::Timezone{}));
  return 0;
}

Result<int64_t> SysSettimeofday(Task& t, UserIn<abi::Timeval> tv, UserIn<abi::Timezone> tz) {
  if (tv) TRY(ToNanos(TRY(tv.Read(t.memory()))));
  if (tz) TRY(tz.Read(t.memory()));
  return kEPERM;
}

Result<int64_t> SysTime(Task& t, UserOut<int64_t> out) {
  RenewClockPage(t);
  int64_t now = RealtimeNow() / kNanosPerSec;
  if (out) TRY(out.Write(t.memory(), now));
  return now;
}

Result<int64_t> SysTimes(Task& t, UserOut<abi::Tms> out) {
  auto ticks = [](Nanos n) { return static_cast<clock_t>(n / (kNanosPerSec / kUserHz)); };
  if (out) {
    ResourceUsage self = t.thread_group().Usage();
    ResourceUsage children = t.thread_group().ChildrenUsage();
    abi::Tms tms{ticks(self.user), ticks(self.system), ticks(children.user), ticks(children.system)};
    TRY(out.Write(t.memory(), tms));
  }
  return ticks(ReadHostClock(CLOCK_BOOTTIME));
}

// Reading the clock's state needs no privilege; changing it does.
Result<int64_t> SysAdjtimex(Task& t, UserInOut<abi::Timex> buf) { return SysClockAdjtime(t, CLOCK_REALTIME, buf); }

Result<int64_t> SysClockAdjtime(Task& t, int clock, UserInOut<abi::Timex> buf) {
  abi::Timex timex = TRY(buf.Read(t.memory()));
  if (clock != CLOCK_REALTIME) return kEOPNOTSUPP;
  if (timex.modes != 0 && timex.modes != ADJ_OFFSET_SS_READ) return kEPERM;
  abi::Timex now{};
  now.freq = 0;
  now.maxerror = 16'000'000;
  now.esterror = 16'000'000;
  now.status = STA_UNSYNC;
  now.constant = 2;
  now.precision = 1;
  now.tolerance = 32'768'000;
  now.tick = 10'000;
  now.time = ToTimeval(RealtimeNow());
  TRY(buf.Write(t.memory(), now));
  return TIME_ERROR;  // the clock is not ours to keep in step
}

}  // namespace moat
