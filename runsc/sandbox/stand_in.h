// A process that stands for one of the guest: the supervisor for a container's init, `runsc exec` for what it started.
// Signals that it gets are the guest's; it stops, goes on and ends as the guest does, so that the caller's shell sees
// what a native command would show. Source: signalfd(2), setpgid(2), tcgetpgrp(3), credentials(7).
#ifndef MOAT_RUNSC_SANDBOX_STAND_IN_H_
#define MOAT_RUNSC_SANDBOX_STAND_IN_H_

#include "absl/status/statusor.h"
#include "runsc/sandbox/channel.h"

namespace moat {

class StandIn {
 public:
  // Blocks every signal that can be the guest's and receives them by descriptor from then on. `job`: the process is a
  // job of the caller's and stops when the guest's process does. A process has one at most; single-threaded.
  static absl::StatusOr<StandIn> Create(bool job);

  // Readable when a signal has arrived.
  int fd() const { return signals_.get(); }
  bool is_job() const { return job_; }
  // Nobody of our session watches our process group, so that a terminal's stop signals have no effect on it.
  bool is_orphaned() const { return orphaned_; }
  // The caller's terminal is one of our 0, 1, 2 and its foreground is another process group.
  bool InBackground() const;

  // Passes on what has arrived. True when a child ended, which is not the guest's business.
  bool ForwardSignals(Channel& guest);
  // The guest's process stopped (kStopped): stops the calling process the same way until it is continued.
  void GuestStopped(const Message& message, Channel& guest);

 private:
  StandIn(ScopedFd signals, bool job);
  void Continue(Channel& guest, bool from_terminal);
  void TellGround(Channel& guest);

  ScopedFd signals_;
  bool job_, orphaned_;
  int terminal_ = -1;  // which of 0, 1, 2 is our controlling terminal
  bool told_background_;
  uint64_t continues_ = 0;  // SIGCONTs sent to the guest: a stop from before one of them is over already
};

// Ends the calling process as `wait_status` says: the same code, or death by the same signal.
[[noreturn]] void EndLike(int wait_status);

}  // namespace moat

#endif  // MOAT_RUNSC_SANDBOX_STAND_IN_H_
