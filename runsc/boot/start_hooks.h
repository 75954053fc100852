// startContainer hooks: programs of the container's own root that run in it before its process does. Source:
// runtime-spec, config.md "StartContainer Hooks".
#ifndef MOAT_RUNSC_BOOT_START_HOOKS_H_
#define MOAT_RUNSC_BOOT_START_HOOKS_H_

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "runsc/boot/control.h"

namespace moat {

// Runs them in order until one fails, as the container's user and with its capabilities; their stdin is the
// container's state. `make_spec` answers the process with the container's namespaces. Blocks.
absl::Status RunStartHooks(ContainerState& state,
                           absl::FunctionRef<ProcessSpec(const oci::Process&, const HostStdio&)> make_spec);

}  // namespace moat

#endif  // MOAT_RUNSC_BOOT_START_HOOKS_H_
