// Starts the processes of a sandbox: gofer and sentry. See DESIGN: processes of one sandbox.
#ifndef MOAT_RUNSC_SANDBOX_LAUNCH_H_
#define MOAT_RUNSC_SANDBOX_LAUNCH_H_

#include <vector>

#include "absl/status/statusor.h"
#include "platform/base/scoped_fd.h"
#include "runsc/boot/boot_config.h"
#include "runsc/gofer/gofer.h"
#include "runsc/sandbox/confine.h"

namespace moat {

struct LaunchPlan {
  BootConfig boot;
  std::vector<GoferMount> gofer_mounts;  // MountStep::gofer_index counts in here
  // The guest's 0, 1, 2. Not owned; any numbers.
  int stdio[3] = {0, 1, 2};
};

struct SandboxProcesses {
  ConfinedChild gofer, sentry;
  // Kills and reaps whatever still lives.
  ~SandboxProcesses();
  SandboxProcesses() = default;
  SandboxProcesses(SandboxProcesses&& o) noexcept { *this = std::move(o); }
  SandboxProcesses& operator=(SandboxProcesses&& o) noexcept {
    std::swap(gofer, o.gofer);
    std::swap(sentry, o.sentry);
    return *this;
  }
};

// The calling process becomes the parent of both and must have one thread.
absl::StatusOr<SandboxProcesses> Launch(LaunchPlan plan);

}  // namespace moat

#endif  // MOAT_RUNSC_SANDBOX_LAUNCH_H_
