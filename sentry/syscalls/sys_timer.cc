// Interval timers and POSIX timers; sentry/kernel/process_timers.h does the work.
#include <climits>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/process_timers.h"
#include "sentry/kernel/timekeeping.h"
#include "sentry/syscalls/handlers.h"

namespace moat {
namespace {

abi::Itimerval ToItimerval(const TimerSetting& s) {
  // A value below a microsecond must not read as "disarmed".
  auto up = [](Nanos n) { return ToTimeval((n + 999) / 1000 * 1000); };
  return {up(s.interval), up(s.value)};
}

abi::Itimerspec ToItimerspec(const TimerSetting& s) { return {ToTimespec(s.interval), ToTimespec(s.value)}; }

Result<TimerSetting> FromItimerspec(const abi::Itimerspec& spec) {
  return TimerSetting{TRY(ToNanos(spec.it_value)), TRY(ToNanos(spec.it_interval))};
}

bool ValidInterval(int which) { return which >= ITIMER_REAL && which <= ITIMER_PROF; }

}  // namespace

Result<int64_t> SysGetitimer(Task& t, int which, UserOut<abi::Itimerval> out) {
  if (!ValidInterval(which)) return kEINVAL;
  TRY(out.Write(t.memory(), ToItimerval(t.thread_group().timers().GetInterval(which))));
  return 0;
}

Result<int64_t> SysSetitimer(Task& t, int which, UserIn<abi::Itimerval> in, UserOut<abi::Itimerval> out) {
  TimerSetting setting;
  if (in) {  // Linux takes a null pointer for a zero value
    abi::Itimerval v = TRY(in.Read(t.memory()));
    setting = {TRY(ToNanos(v.it_value)), TRY(ToNanos(v.it_interval))};
  }
  if (!ValidInterval(which)) return kEINVAL;
  TimerSetting old = t.thread_group().timers().SetInterval(which, setting);
  if (out) TRY(out.Write(t.memory(), ToItimerval(old)));
  return 0;
}

Result<int64_t> SysAlarm(Task& t, unsigned seconds) {
  TimerSetting setting;
  setting.value = static_cast<Nanos>(std::min<unsigned>(seconds, INT_MAX)) * kNanosPerSec;
  TimerSetting old = t.thread_group().timers().SetInterval(ITIMER_REAL, setting);
  if (old.value == 0) return 0;
  // alarm(2) rounds to the nearest second, but never to 0.
  return std::max<int64_t>((old.value + kNanosPerSec / 2) / kNanosPerSec, 1);
}

Result<int64_t> SysTimerCreate(Task& t, int clock, UserIn<abi::SigEvent> event, UserOut<int32_t> id) {
  abi::SigEvent e{};
  if (event) e = TRY(event.Read(t.memory()));
  ProcessTimers& timers = t.thread_group().timers();
  int32_t timer = TRY(timers.Create(t, clock, event ? &e : nullptr));
  Result<void> written = id.Write(t.memory(), timer);
  if (!written.ok()) {
    TRY(timers.Delete(timer));
    return written.error();
  }
  return 0;
}

Result<int64_t> SysTimerSettime(Task& t, int id, int flags, UserIn<abi::Itimerspec> in, UserOut<abi::Itimerspec> out) {
  if (!in) return kEINVAL;
  TimerSetting setting = TRY(FromItimerspec(TRY(in.Read(t.memory()))));
  TimerSetting old = TRY(t.thread_group().timers().Set(id, (flags & TIMER_ABSTIME) != 0, setting));
  if (out) TRY(out.Write(t.memory(), ToItimerspec(old)));
  return 0;
}

Result<int64_t> SysTimerGettime(Task& t, int id, UserOut<abi::Itimerspec> out) {
  TRY(out.Write(t.memory(), ToItimerspec(TRY(t.thread_group().timers().Get(id)))));
  return 0;
}

Result<int64_t> SysTimerGetoverrun(Task& t, int id) { return TRY(t.thread_group().timers().Overrun(id)); }

Result<int64_t> SysTimerDelete(Task& t, int id) {
  TRY(t.thread_group().timers().Delete(id));
  return 0;
}

}  // namespace moat
