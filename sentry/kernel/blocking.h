// The one loop that waits. A file operation answers kEAGAIN; this registers a waiter, tries again, and parks the
// task until the object notifies, a signal arrives or the deadline passes.
//   return BlockingOp(t, *file, EPOLLIN, deadline, [&] { return file->Read(ctx, dst); });
#ifndef MOAT_SENTRY_KERNEL_BLOCKING_H_
#define MOAT_SENTRY_KERNEL_BLOCKING_H_

#include "platform/base/result.h"
#include "platform/fiber/wait_queue.h"
#include "sentry/kernel/task.h"

namespace moat {

// Parks `t` until woken, a signal is pending for it (kERESTARTSYS) or `deadline` (kETIMEDOUT).
// The caller has registered its waiters on t.parker() before its last look at the condition.
Result<void> ParkInterruptible(Task& t, Deadline deadline);

// For waits that only the end of the task may cut short (vfork's parent): kEINTR when it is killed, kETIMEDOUT.
Result<void> ParkKillable(Task& t, Deadline deadline);

// Runs `op` until it answers something else than kEAGAIN. On a signal: kERESTARTSYS; on the deadline: kETIMEDOUT.
template <typename Op>
auto BlockingOp(Task& t, WaitQueue& queue, EventMask events, Deadline deadline, Op op) -> decltype(op()) {
  auto first = op();
  if (first.ok() || first.error() != kEAGAIN) return first;
  ParkerWaiter waiter(events, t.parker());
  queue.Add(waiter);
  Result<void> parked;
  for (;;) {
    // Looked at before the signal, as Linux does: what ended the wait may have sent the signal, too (a child's end).
    auto again = op();
    if (again.ok() || again.error() != kEAGAIN) {
      queue.Remove(waiter);
      return again;
    }
    if (!parked.ok()) {
      queue.Remove(waiter);
      return parked.error();
    }
    parked = ParkInterruptible(t, deadline);
  }
}

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_BLOCKING_H_
