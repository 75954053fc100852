#include "runsc/boot/guest_job.h"

#include <signal.h>

namespace moat {

GuestJob::GuestJob(Kernel& kernel, int flags, RefPtr<Tty> tty)
    : OutsideJob((flags & kExecOrphaned) != 0),
      kernel_(kernel),
      reports_stops_((flags & kExecJob) != 0),
      leads_session_((flags & kExecLeader) != 0),
      tty_(std::move(tty)) {
  if (tty_) tty_->foreground_is_outside = (flags & kExecBackground) != 0;
}

void GuestJob::HandleOrder(const Message& order) {
  if (order.kind == MessageKind::kGround && tty_) {
    tty_->foreground_is_outside = order.number != 0;
  } else if (order.kind == MessageKind::kSignal && ValidSignal(order.number)) {
    Signal(order.number, order.text == "terminal");
  }
}

void GuestJob::Signal(int signo, bool from_terminal) {
  MutexLock lock(mu_);
  if (from_terminal && tty_ && signo == SIGHUP && leads_session_) {
    tty_->Hangup();
    tty_job_control->HungUp(*tty_);
  } else if (from_terminal && tty_) {
    tty_job_control->SignalForeground(*tty_, signo);
  } else if (from_terminal || signo == SIGCONT) {
    // A shell continues all of a job, and who was stopped by the terminal was stopped with its group.
    kernel_.SendSignalToGroupOf(*group_, signo);
  } else {
    // From outside of its pid namespace: SIGKILL and SIGSTOP reach even an init without handlers.
    [[maybe_unused]] auto sent = group_->SendSignal(UserSigInfo(signo, SI_USER, 0, 0), /*from_outside=*/true);
  }
  if (signo == SIGCONT) ++continues_;
}

// A stop is seen under the kernel's locks; the report is made from here.
void GuestJob::ReportStops(absl::FunctionRef<void(int, const std::string&)> report) {
  for (;;) {
    parker_.Park();
    if (ended_) return;
    int signo;
    uint64_t continues;
    {
      MutexLock lock(mu_);
      signo = group_->StopSignal();
      continues = continues_;
    }
    if (signo != 0) report(signo, std::to_string(continues));
  }
}

void GuestJob::End() {
  ended_ = true;
  parker_.Unpark();
}

}  // namespace moat
