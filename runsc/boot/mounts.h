// Makes a container's mount namespace from the plan. Runs in the sentry, with the guest's own path resolution: a
// hostile root file system's symlinks lead nowhere but into itself.
#ifndef MOAT_RUNSC_BOOT_MOUNTS_H_
#define MOAT_RUNSC_BOOT_MOUNTS_H_

#include "absl/status/statusor.h"
#include "fs/hostfs/gofer_client.h"
#include "fs/vfs/mount.h"
#include "runsc/boot/boot_config.h"
#include "sentry/kernel/kernel.h"

namespace moat {

// `pid_ns`: what its proc shows.
absl::StatusOr<RefPtr<MountNamespace>> BuildMounts(const BootConfig& config, Kernel& kernel,
                                                   RefPtr<PidNamespace> pid_ns, RefPtr<GoferClient> gofer);

}  // namespace moat

#endif  // MOAT_RUNSC_BOOT_MOUNTS_H_
