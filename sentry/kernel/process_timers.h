// ProcessTimers: what a process has armed: interval timers (setitimer), POSIX timers (timer_create) and the CPU
// time limit (RLIMIT_CPU).
//
// Timers on real clocks are host timers. CPU time has no host event: a CPU timer sleeps as long as the process
// could at soonest take to use what remains (on all its threads at once) and then looks again.
//
// A periodic timer that sends a signal is armed again when its signal is taken from the queue (OnSignalDequeued), as
// Linux does: periods that passed meanwhile are its overrun, and a guest cannot make timers burn the host's CPU.
//
// Thread-safe. Lock: kTimer; signals are sent without it. Source: setitimer(2), timer_create(2), timer_settime(2),
// timer_getoverrun(2), getrlimit(2).
#ifndef MOAT_SENTRY_KERNEL_PROCESS_TIMERS_H_
#define MOAT_SENTRY_KERNEL_PROCESS_TIMERS_H_

#include <map>
#include <memory>
#include <vector>

#include "platform/abi/signal.h"
#include "platform/base/mutex.h"
#include "platform/base/ref_ptr.h"
#include "platform/base/result.h"
#include "platform/fiber/timer.h"
#include "sentry/kernel/signals.h"

namespace moat {

class Task;
class ThreadGroup;

// Time to the next expiry (0: disarmed) and period (0: one shot).
struct TimerSetting {
  Nanos value = 0;
  Nanos interval = 0;
};

class ProcessTimers {
 public:
  explicit ProcessTimers(ThreadGroup& group);
  ~ProcessTimers();  // no callback runs afterwards
  ProcessTimers(const ProcessTimers&) = delete;

  // `which`: ITIMER_REAL, ITIMER_VIRTUAL, ITIMER_PROF (checked by the caller). Returns the setting before, whose
  // signal is sent before this returns or never; so with Set and Delete.
  TimerSetting SetInterval(int which, TimerSetting setting);
  TimerSetting GetInterval(int which);

  // A null `event` is SIGALRM with the timer's id as its value. kEINVAL: unknown clock or bad event; kEAGAIN past
  // RLIMIT_SIGPENDING.
  Result<int32_t> Create(Task& t, int32_t clock, const abi::SigEvent* event);
  Result<void> Delete(int32_t id);
  // `absolute`: TIMER_ABSTIME. Returns the setting before.
  Result<TimerSetting> Set(int32_t id, bool absolute, TimerSetting setting);
  Result<TimerSetting> Get(int32_t id);
  Result<int32_t> Overrun(int32_t id);

  // What timer_create made, for /proc/<pid>/timers; `target`: the thread that SIGEV_THREAD_ID names, else null.
  struct Info {
    int32_t id, clock;
    abi::SigEvent event;
    RefPtr<Task> target;
  };
  std::vector<Info> List();

  // Called by signal delivery, without locks, for each signal with si_code SI_TIMER that it takes from a queue:
  // fills in si_overrun and arms the next period.
  void OnSignalDequeued(SigInfo& info);

  // RLIMIT_CPU has changed (or execve and fork brought a process under it).
  void UpdateCpuLimit();
  // execve deletes POSIX timers and keeps interval timers; exit ends all.
  void DeletePosixTimers();
  void StopAll();

 private:
  struct Alarm;  // a deadline on some clock; calls back when it has come
  struct PosixTimer;
  // `expiry`: the one that has come; another was set meanwhile where it differs from the alarm's.
  void OnInterval(int which, Nanos expiry);
  void OnPosix(PosixTimer& timer, Nanos expiry);
  void OnCpuLimit();
  TimerSetting SettingLocked(Alarm& alarm, Nanos interval) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  ThreadGroup& group_;
  Mutex mu_{LockRank::kTimer};
  std::unique_ptr<Alarm> interval_alarms_[3];
  Nanos interval_periods_[3] ABSL_GUARDED_BY(mu_) = {};
  std::unique_ptr<Alarm> cpu_limit_alarm_;
  bool cpu_limit_warned_ ABSL_GUARDED_BY(mu_) = false;  // SIGXCPU was sent for this limit
  static constexpr int kMaxCpuLimitWaits = 10;          // of a tenth of a second
  int cpu_limit_waits_ ABSL_GUARDED_BY(mu_) = 0;        // for that SIGXCPU to be taken, before SIGKILL
  std::map<int32_t, RefPtr<PosixTimer>> timers_ ABSL_GUARDED_BY(mu_);
  int32_t next_id_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_PROCESS_TIMERS_H_
