#include "sentry/kernel/process_timers.h"

#include <algorithm>
#include <climits>
#include <utility>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/kernel/timekeeping.h"

namespace moat {
namespace {

constexpr Nanos kJiffy = 4'000'000;        // how finely CPU time is watched (CONFIG_HZ=250)
constexpr Nanos kShortestPeriod = 50'000;  // of ITIMER_REAL, whose period does not wait for its signal

enum class ClockKind { kReal, kThreadGroupCpu, kThreadGroupUser, kTaskCpu };

// The first point of the grid next, next + interval, ... after `now`; counts the points that it skips.
Nanos NextPeriod(Nanos next, Nanos interval, Nanos now, int64_t* skipped) {
  int64_t n = now < next ? 0 : (now - next) / interval;
  *skipped = n;
  return next + (n + 1) * interval;
}

}  // namespace

struct ProcessTimers::Alarm : Timer {
  Alarm(ThreadGroup& g, ClockKind k, absl::AnyInvocable<void(Nanos)> fn) : group(g), kind(k), fired(std::move(fn)) {}
  ~Alarm() override { Cancel(); }

  Nanos Now() const {
    switch (kind) {
      case ClockKind::kReal:
        return ReadHostClock(clock);
      case ClockKind::kThreadGroupCpu:
        return group.cpu_times().total();
      case ClockKind::kThreadGroupUser:
        return group.cpu_times().user;
      case ClockKind::kTaskCpu:
        return task->cpu_times().total();
    }
    return 0;
  }
  // `when` is a reading of this alarm's clock; kNoDeadline disarms.
  void Start(Nanos when) {
    expiry.store(when, std::memory_order_relaxed);
    if (when == kNoDeadline) {
      Disarm();
      return;
    }
    ArmFor(when);
  }
  void OnTimer() override {
    for (;;) {
      const Nanos when = expiry.load(std::memory_order_relaxed);
      if (when == kNoDeadline) return;
      if (Now() >= when) {
        fired(when);
        return;
      }
      // CPU time is not used up yet, or the clock was set back. Who set another expiry meanwhile may have armed before.
      ArmFor(when);
      if (expiry.load(std::memory_order_relaxed) == when) return;
    }
  }
  void ArmFor(Nanos when) {
    Nanos remaining = std::max<Nanos>(when - Now(), 0);
    if (kind != ClockKind::kReal) {
      int threads =
          kind == ClockKind::kTaskCpu ? 1 : std::clamp(group.task_count(), 1, group.kernel().allowed_cpus().count());
      remaining = std::max(remaining / threads, kJiffy);
    }
    Arm(DeadlineAfter(remaining));
  }

  ThreadGroup& group;
  const ClockKind kind;
  clockid_t clock = CLOCK_MONOTONIC;             // kReal
  RefPtr<Task> task;                             // kTaskCpu
  absl::AnyInvocable<void(Nanos expiry)> fired;  // with the expiry that has come
  std::atomic<Nanos> expiry{kNoDeadline};
};

struct ProcessTimers::PosixTimer : RefCounted {
  int32_t id = 0;  // constant once it is in timers_, as all of these:
  int32_t given_clock = 0;
  abi::SigEvent event{};
  RefPtr<Task> target;  // SIGEV_THREAD_ID
  std::unique_ptr<Alarm> alarm;
  Nanos interval = 0;  // these under the owner's lock
  bool signal_queued = false;
  int64_t overrun = 0;       // periods that passed since the signal was queued
  int32_t last_overrun = 0;  // of the last delivered signal
};

ProcessTimers::ProcessTimers(ThreadGroup& group) : group_(group) {
  constexpr ClockKind kKinds[3] = {ClockKind::kReal, ClockKind::kThreadGroupUser, ClockKind::kThreadGroupCpu};
  for (int which = 0; which < 3; ++which) {
    interval_alarms_[which] =
        std::make_unique<Alarm>(group, kKinds[which], [this, which](Nanos expiry) { OnInterval(which, expiry); });
  }
  cpu_limit_alarm_ = std::make_unique<Alarm>(group, ClockKind::kThreadGroupCpu, [this](Nanos) { OnCpuLimit(); });
}

ProcessTimers::~ProcessTimers() { StopAll(); }

TimerSetting ProcessTimers::SettingLocked(Alarm& alarm, Nanos interval) {
  Nanos expiry = alarm.expiry.load(std::memory_order_relaxed);
  if (expiry == kNoDeadline) return {0, interval};
  // An armed timer never reads 0, even when it is late.
  return {std::max<Nanos>(expiry - alarm.Now(), 1), interval};
}

TimerSetting ProcessTimers::SetInterval(int which, TimerSetting setting) {
  Alarm& alarm = *interval_alarms_[which];
  TimerSetting old;
  {
    MutexLock lock(mu_);
    old = SettingLocked(alarm, interval_periods_[which]);
    interval_periods_[which] = setting.interval;
    Nanos expiry;
    if (setting.value == 0 || __builtin_add_overflow(alarm.Now(), setting.value, &expiry)) expiry = kNoDeadline;
    alarm.Start(expiry);
  }
  alarm.AwaitCallback();  // the signal of the old setting comes before the call returns, or not at all
  return old;
}

TimerSetting ProcessTimers::GetInterval(int which) {
  MutexLock lock(mu_);
  return SettingLocked(*interval_alarms_[which], interval_periods_[which]);
}

void ProcessTimers::OnInterval(int which, Nanos expiry) {
  Alarm& alarm = *interval_alarms_[which];
  {
    MutexLock lock(mu_);
    if (alarm.expiry.load(std::memory_order_relaxed) != expiry) return;  // set anew meanwhile
    Nanos period = interval_periods_[which];
    int64_t skipped;
    alarm.Start(period == 0 ? kNoDeadline
                            : NextPeriod(expiry, std::max(period, kShortestPeriod), alarm.Now(), &skipped));
  }
  constexpr int kSignals[3] = {SIGALRM, SIGVTALRM, SIGPROF};
  (void)group_.SendSignal(KernelSigInfo(kSignals[which]));
}

Result<int32_t> ProcessTimers::Create(Task& t, int32_t clock, const abi::SigEvent* given) {
  auto timer = MakeRef<PosixTimer>();
  timer->given_clock = clock;
  abi::SigEvent& event = timer->event;
  if (given != nullptr) {
    event = *given;
  } else {
    event.notify = SIGEV_SIGNAL;
    event.signo = SIGALRM;
  }
  switch (event.notify & ~SIGEV_THREAD_ID) {
    case SIGEV_SIGNAL:
    case SIGEV_THREAD:
      if (!ValidSignal(event.signo)) return kEINVAL;
      break;
    case SIGEV_NONE:
      break;
    default:
      return kEINVAL;
  }
  if (event.notify & SIGEV_THREAD_ID) {
    if (event.notify != (SIGEV_SIGNAL | SIGEV_THREAD_ID)) return kEINVAL;
    timer->target = group_.FindTask(event.tid, *t.pid_ns());
    if (!timer->target) return kEINVAL;
  }
  ClockKind kind = ClockKind::kReal;
  clockid_t host_clock = CLOCK_MONOTONIC;
  RefPtr<Task> cpu_task(&t);
  switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_REALTIME_ALARM:
      host_clock = CLOCK_REALTIME;
      break;
    case CLOCK_TAI:
    case CLOCK_MONOTONIC:
    case CLOCK_BOOTTIME:
      host_clock = clock;
      break;
    case CLOCK_BOOTTIME_ALARM:
      host_clock = CLOCK_BOOTTIME;
      break;
    case CLOCK_PROCESS_CPUTIME_ID:
      kind = ClockKind::kThreadGroupCpu;
      break;
    case CLOCK_THREAD_CPUTIME_ID:
      kind = ClockKind::kTaskCpu;
      break;
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_REALTIME_COARSE:
    case CLOCK_MONOTONIC_COARSE:
      return kEOPNOTSUPP;  // Linux has no timers on these
    default: {
      // clock_getcpuclockid(3) and pthread_getcpuclockid(3): ~id << 3, the bit 4 for a thread, and which time.
      if (!IsCpuClock(clock)) return kEINVAL;
      const int32_t id = ~(clock >> 3);
      const bool thread = (clock & 4) != 0;
      kind = thread ? ClockKind::kTaskCpu : (clock & 3) == 1 ? ClockKind::kThreadGroupUser : ClockKind::kThreadGroupCpu;
      if (thread) cpu_task = id == 0 ? RefPtr<Task>(&t) : group_.FindTask(id, *t.pid_ns());
      if (thread ? !cpu_task : id != 0 && id != t.tgid()) return kEINVAL;
    }
  }
  timer->alarm =
      std::make_unique<Alarm>(group_, kind, [this, raw = timer.get()](Nanos expiry) { OnPosix(*raw, expiry); });
  timer->alarm->clock = host_clock;
  if (kind == ClockKind::kTaskCpu) timer->alarm->task = std::move(cpu_task);
  MutexLock lock(mu_);
  if (timers_.size() >= group_.rlimits().Soft(RLIMIT_SIGPENDING)) return kEAGAIN;
  while (timers_.contains(next_id_)) next_id_ = next_id_ == INT_MAX ? 0 : next_id_ + 1;
  timer->id = next_id_;
  if (given == nullptr) event.value = static_cast<uint64_t>(next_id_);
  next_id_ = next_id_ == INT_MAX ? 0 : next_id_ + 1;
  int32_t id = timer->id;
  timers_.emplace(id, std::move(timer));
  return id;
}

std::vector<ProcessTimers::Info> ProcessTimers::List() {
  std::vector<Info> out;
  MutexLock lock(mu_);
  for (const auto& [id, t] : timers_) out.push_back({id, t->given_clock, t->event, t->target});
  return out;
}

Result<void> ProcessTimers::Delete(int32_t id) {
  RefPtr<PosixTimer> timer;
  {
    MutexLock lock(mu_);
    auto it = timers_.find(id);
    if (it == timers_.end()) return kEINVAL;
    timer = std::move(it->second);
    timers_.erase(it);
  }
  timer->alarm->Cancel();
  return {};
}

Result<TimerSetting> ProcessTimers::Set(int32_t id, bool absolute, TimerSetting setting) {
  RefPtr<PosixTimer> timer;
  TimerSetting old;
  {
    MutexLock lock(mu_);
    auto it = timers_.find(id);
    if (it == timers_.end()) return kEINVAL;
    timer = it->second;
    Alarm& alarm = *timer->alarm;
    old = SettingLocked(alarm, timer->interval);
    timer->interval = setting.interval;
    timer->overrun = 0;
    timer->last_overrun = 0;
    timer->signal_queued = false;
    Nanos expiry = kNoDeadline;
    if (setting.value != 0) {
      if (absolute) {
        expiry = setting.value;
      } else if (__builtin_add_overflow(alarm.Now(), setting.value, &expiry)) {
        expiry = kNoDeadline;
      }
    }
    alarm.Start(expiry);
  }
  timer->alarm->AwaitCallback();  // as in SetInterval
  return old;
}

Result<TimerSetting> ProcessTimers::Get(int32_t id) {
  MutexLock lock(mu_);
  auto it = timers_.find(id);
  if (it == timers_.end()) return kEINVAL;
  PosixTimer& timer = *it->second;
  Nanos expiry = timer.alarm->expiry.load(std::memory_order_relaxed);
  if (expiry == kNoDeadline) {
    return TimerSetting{0, timer.interval};
  }
  Nanos now = timer.alarm->Now();
  if (expiry <= now) {
    // Late, waiting for its signal to be taken, or without one: what a periodic timer shows is its next period.
    if (timer.interval == 0) return TimerSetting{timer.event.notify == SIGEV_NONE ? 0 : 1, 0};
    int64_t skipped;
    expiry = NextPeriod(expiry, timer.interval, now, &skipped);
  }
  return TimerSetting{expiry - now, timer.interval};
}

Result<int32_t> ProcessTimers::Overrun(int32_t id) {
  MutexLock lock(mu_);
  auto it = timers_.find(id);
  if (it == timers_.end()) return kEINVAL;
  return it->second->last_overrun;
}

void ProcessTimers::OnPosix(PosixTimer& timer, Nanos expiry) {
  RefPtr<PosixTimer> keep;
  SigInfo info;
  RefPtr<Task> target;
  // Before the lock: the locks of signals are outside of those of timers.
  const bool silent = timer.event.notify == SIGEV_NONE || group_.actions()->Ignores(timer.event.signo);
  {
    MutexLock lock(mu_);
    auto it = timers_.find(timer.id);
    if (it == timers_.end() || it->second != &timer) return;  // deleted meanwhile
    keep = it->second;
    Alarm& alarm = *timer.alarm;
    if (alarm.expiry.load(std::memory_order_relaxed) != expiry) return;  // set anew meanwhile
    if (timer.interval == 0) {
      if (timer.event.notify != SIGEV_NONE) alarm.Start(kNoDeadline);
    } else if (silent) {
      int64_t skipped;
      alarm.Start(NextPeriod(expiry, std::max(timer.interval, kShortestPeriod), alarm.Now(), &skipped));
    }
    if (silent) return;
    timer.signal_queued = true;
    info = MakeSigInfo(timer.event.signo, SI_TIMER);
    info.si_timerid = timer.id;
    info.si_value.sival_ptr = reinterpret_cast<void*>(timer.event.value);
    target = timer.target;
  }
  if (target) {
    (void)target->SendSignal(info);
  } else {
    (void)group_.SendSignal(info);
  }
}

void ProcessTimers::OnSignalDequeued(SigInfo& info) {
  MutexLock lock(mu_);
  auto it = timers_.find(info.si_timerid);
  if (it == timers_.end() || !it->second->signal_queued) return;
  PosixTimer& timer = *it->second;
  timer.signal_queued = false;
  int64_t missed = 0;
  if (timer.interval != 0) {
    Alarm& alarm = *timer.alarm;
    Nanos expiry = alarm.expiry.load(std::memory_order_relaxed);
    if (expiry != kNoDeadline) alarm.Start(NextPeriod(expiry, timer.interval, alarm.Now(), &missed));
  }
  timer.last_overrun = static_cast<int32_t>(std::min<int64_t>(missed, INT_MAX));  // DELAYTIMER_MAX
  info.si_overrun = timer.last_overrun;
}

void ProcessTimers::UpdateCpuLimit() {
  uint64_t soft = group_.rlimits().Soft(RLIMIT_CPU);
  MutexLock lock(mu_);
  bool none = soft > static_cast<uint64_t>(kNoDeadline / kNanosPerSec);
  cpu_limit_warned_ = false;
  cpu_limit_waits_ = 0;
  cpu_limit_alarm_->Start(none ? kNoDeadline : static_cast<Nanos>(soft) * kNanosPerSec);
}

void ProcessTimers::OnCpuLimit() {
  // getrlimit(2): SIGXCPU each second past the soft limit, SIGKILL at the hard one.
  const Rlimit limit = group_.rlimits().Get(RLIMIT_CPU);
  const Nanos used = group_.cpu_times().total();
  bool unheard;
  {
    MutexLock lock(group_.signal_mutex());
    unheard = group_.shared_pending().HasStandard(SIGXCPU);
  }
  bool kill = limit.hard <= static_cast<uint64_t>(used / kNanosPerSec);
  {
    MutexLock lock(mu_);
    // CPU time is wall time here (cpu_share.h): an alarm may be so late that both limits have passed, and a process
    // that the host keeps from its CPU has not had the time to heed the warning. It comes first, and is waited for a
    // little.
    const bool warn = !std::exchange(cpu_limit_warned_, true) && limit.soft < limit.hard;
    if (kill && !warn && unheard && cpu_limit_waits_ < kMaxCpuLimitWaits) {
      ++cpu_limit_waits_;
      cpu_limit_alarm_->Start(used + kNanosPerSec / 10);
      return;
    }
    kill = kill && !warn;
    cpu_limit_alarm_->Start((used / kNanosPerSec + 1) * kNanosPerSec);
  }
  (void)group_.SendSignal(KernelSigInfo(kill ? SIGKILL : SIGXCPU));
}

void ProcessTimers::DeletePosixTimers() {
  std::map<int32_t, RefPtr<PosixTimer>> gone;
  {
    MutexLock lock(mu_);
    gone.swap(timers_);
  }
  for (auto& [id, timer] : gone) timer->alarm->Cancel();
}

void ProcessTimers::StopAll() {
  DeletePosixTimers();
  auto stop = [](Alarm& alarm) {
    alarm.expiry.store(kNoDeadline, std::memory_order_relaxed);
    alarm.Cancel();
  };
  for (auto& alarm : interval_alarms_) stop(*alarm);
  stop(*cpu_limit_alarm_);
}

}  // namespace moat
