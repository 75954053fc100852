// The supervisor: the host process that stands for the container. It watches sentry and gofer, forwards signals and
// clients to the sentry, and ends as the guest's init does.
#ifndef MOAT_RUNSC_SANDBOX_SUPERVISOR_H_
#define MOAT_RUNSC_SANDBOX_SUPERVISOR_H_

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "runsc/sandbox/launch.h"
#include "runsc/sandbox/stand_in.h"

namespace moat {

class Supervisor {
 public:
  struct Options {
    // A listening SOCK_STREAM socket whose clients are handed to the sentry; may be invalid.
    ScopedFd listener;
    // A job of the caller's: stops when init stops. Not for a container that has clients, whom nobody would answer.
    bool job = false;
  };

  // Launches. From here on the process's signals are the container's. Fills in how the supervisor stands for init.
  static absl::StatusOr<std::unique_ptr<Supervisor>> Create(LaunchPlan plan, Options options);

  // Until init is loaded (ok) or cannot be (the error carries 126, 127 or 1). `on_boot` is called before it is, with
  // BootConfig::waits_for_hooks; its error is the answer.
  absl::Status WaitReady(absl::FunctionRef<absl::Status()> on_boot);
  absl::Status WaitReady() {
    return WaitReady([] { return absl::OkStatus(); });
  }
  absl::Status Start();
  // Until init has ended and everything is reaped. The guest's wait status. When the sandbox died instead: the
  // status of a SIGKILL, after a line on stderr that says which process ended how.
  int Run();
  // After Run: why init did not run after all, when it is more than the status says (a startContainer hook failed).
  absl::Status start_failure() const { return exited_ ? failure_ : absl::OkStatus(); }

 private:
  Supervisor(SandboxProcesses processes, Options options, StandIn stand_in);
  void HandleMessage(Message message);
  void AcceptClient();
  // What ended, for the message; reaps.
  void ReapEnded();
  void WaitForSentry();

  SandboxProcesses processes_;
  Options options_;
  StandIn stand_in_;
  bool exited_ = false;
  bool booted_ = false, ready_ = false;
  absl::Status failure_;
  int exit_status_ = 0;
  bool died_ = false;
};

}  // namespace moat

#endif  // MOAT_RUNSC_SANDBOX_SUPERVISOR_H_
