// The sentry's end of a StandIn (runsc/sandbox/stand_in.h): a guest process that a process outside stands for. What
// that one is told comes in here, and the guest process's stops go out.
#ifndef MOAT_RUNSC_BOOT_GUEST_JOB_H_
#define MOAT_RUNSC_BOOT_GUEST_JOB_H_

#include <atomic>
#include <string>

#include "absl/functional/function_ref.h"
#include "fs/vfs/tty_job_control.h"
#include "platform/fiber/parker.h"
#include "runsc/sandbox/channel.h"
#include "sentry/kernel/kernel.h"

namespace moat {

// Thread-safe once Begin has been called. Must outlive the guest process.
class GuestJob final : public OutsideJob {
 public:
  // `flags`: ExecFlags. `tty`: the terminal among the process's stdio, or null.
  GuestJob(Kernel& kernel, int flags, RefPtr<Tty> tty);

  // To be given to the kernel with the process; null when its stops are nobody's business outside.
  OutsideJob* for_process() { return reports_stops_ ? this : nullptr; }
  bool reports_stops() const { return reports_stops_; }
  void Begin(RefPtr<ThreadGroup> group) { group_ = std::move(group); }

  // kSignal and kGround.
  void HandleOrder(const Message& order);

  // Calls `report` with the signal and kStopped's text for each stop, until End. For a thread of its own.
  void ReportStops(absl::FunctionRef<void(int, const std::string&)> report);
  void End();

  void OnStop() override { parker_.Unpark(); }

 private:
  void Signal(int signo, bool from_terminal);

  Kernel& kernel_;
  const bool reports_stops_, leads_session_;
  const RefPtr<Tty> tty_;
  RefPtr<ThreadGroup> group_;  // constant after Begin
  Parker parker_;
  std::atomic<bool> ended_{false};
  // Makes "is stopped" and the count one statement.
  Mutex mu_{LockRank::kControl};
  uint64_t continues_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace moat

#endif  // MOAT_RUNSC_BOOT_GUEST_JOB_H_
