// The container's terminal as its processes find it by name. Source: runtime-spec, config-linux.md "Default Devices".
#ifndef MOAT_RUNSC_BOOT_CONSOLE_H_
#define MOAT_RUNSC_BOOT_CONSOLE_H_

#include "absl/status/status.h"
#include "runsc/boot/control.h"

namespace moat {

// Mounts the terminal among `state.stdio` on /dev/console and makes it the sandbox's console; the standard streams
// are opened by that name, so that ttyname(3) finds it. A root that cannot have a /dev/console goes without.
absl::Status SetUpConsole(ContainerState& state);

// Gives the standard streams to the container's user, who may so open /dev/stdout. Nothing changes on the host.
void GiveStdioTo(ContainerState& state, uint32_t uid);

}  // namespace moat

#endif  // MOAT_RUNSC_BOOT_CONSOLE_H_
