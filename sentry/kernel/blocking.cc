#include "sentry/kernel/blocking.h"

#include "sentry/kernel/kernel.h"

namespace moat {

bool Task::Park(Deadline deadline) {
  CpuShare& share = kernel_.cpu_share();
  const Nanos before = share.Now();
  system_time_.fetch_add(before - clock_mark_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  parked_.store(true, std::memory_order_relaxed);
  share.Leave();
  const bool woken = parker_.Park(deadline);
  share.Enter();
  parked_.store(false, std::memory_order_relaxed);
  parks_.fetch_add(1, std::memory_order_relaxed);
  clock_mark_.store(share.Now(), std::memory_order_relaxed);
  SetCurrentTask(this);  // a pooled fiber may have changed its thread
  return woken;
}

void Task::SleepBriefly() {
  constexpr Nanos kShort = 50'000;
  Park(DeadlineAfter(kShort));
}

Result<void> ParkInterruptible(Task& t, Deadline deadline) {
  if (t.HasPendingInterrupt()) return kERESTARTSYS;
  const bool woken = t.Park(deadline);
  if (t.HasPendingInterrupt()) return kERESTARTSYS;
  if (!woken) return kETIMEDOUT;
  return {};
}

Result<void> ParkKillable(Task& t, Deadline deadline) {
  if (t.IsKilled()) return kEINTR;
  const bool woken = t.Park(deadline);
  if (t.IsKilled()) return kEINTR;
  if (!woken) return kETIMEDOUT;
  return {};
}

}  // namespace moat
