// The supervisor: the host process that stands for the container. It watches sentry and gofer, forwards signals and
// clients to the sentry, and ends as the guest's init does.
#ifndef MOAT_RUNSC_SANDBOX_SUPERVISOR_H_
#define MOAT_RUNSC_SANDBOX_SUPERVISOR_H_

#include "absl/status/statusor.h"
#include "runsc/sandbox/launch.h"

namespace moat {

class Supervisor {
 public:
  struct Options {
    // A listening SOCK_STREAM socket whose clients are handed to the sentry; may be invalid.
    ScopedFd listener;
    // Attached to the caller's job: stops when init stops and continues it on SIGCONT.
    bool mimic_stops = false;
  };

  // Launches. From here on the process's signals are the container's.
  static absl::StatusOr<std::unique_ptr<Supervisor>> Create(LaunchPlan plan, Options options);

  // Until init is loaded (ok) or cannot be (the error carries 126, 127 or 1).
  absl::Status WaitReady();
  absl::Status Start();
  // Until init has ended and everything is reaped. The guest's wait status. When the sandbox died instead: the
  // status of a SIGKILL, after a line on stderr that says which process ended how.
  int Run();

 private:
  Supervisor(SandboxProcesses processes, Options options, ScopedFd signals);
  bool HandleSignal();  // false: a child ended
  void HandleMessage(Message message);
  void AcceptClient();
  // What ended, for the message; reaps.
  void ReapEnded();
  void WaitForSentry();

  SandboxProcesses processes_;
  Options options_;
  ScopedFd signals_;
  bool exited_ = false;
  bool ready_ = false;
  absl::Status failure_;
  int exit_status_ = 0;
  bool died_ = false;
};

// Ends the calling process as `wait_status` says: the same code, or death by the same signal.
[[noreturn]] void EndLike(int wait_status);

}  // namespace moat

#endif  // MOAT_RUNSC_SANDBOX_SUPERVISOR_H_
