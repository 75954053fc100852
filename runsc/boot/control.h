// The sentry's side of the control channel: the supervisor's orders, clients' requests, and the container's init.
#ifndef MOAT_RUNSC_BOOT_CONTROL_H_
#define MOAT_RUNSC_BOOT_CONTROL_H_

#include "fs/hostfs/gofer_client.h"
#include "fs/hostfs/host_stdio.h"
#include "fs/vfs/mount.h"
#include "runsc/boot/boot_config.h"
#include "runsc/sandbox/channel.h"
#include "sentry/kernel/kernel.h"

namespace moat {

// What the control server knows of the container. Outlives all its threads (they live as long as the process).
struct ContainerState {
  Kernel* kernel = nullptr;
  BootConfig config;
  RefPtr<GoferClient> gofer;
  RefPtr<MountNamespace> mounts;
  RefPtr<PidNamespace> pid_ns;
  RefPtr<UtsNamespace> uts_ns;
  RefPtr<IpcNamespace> ipc_ns;
  HostStdio stdio;
  ScopedFd zygote;  // a pidfd: readable once the process that all stubs come from (and die with) is dead
};

// Loads init, reports kReady or kFailed, and serves until the process ends.
[[noreturn]] void ServeContainer(ContainerState& state, Channel supervisor);

}  // namespace moat

#endif  // MOAT_RUNSC_BOOT_CONTROL_H_
