// The sentry process, from its confined start to the end of the container.
#ifndef MOAT_RUNSC_BOOT_SENTRY_MAIN_H_
#define MOAT_RUNSC_BOOT_SENTRY_MAIN_H_

#include "runsc/boot/boot_config.h"
#include "runsc/sandbox/channel.h"

namespace moat {

// Called in a process that Confine has cut off. Boots the kernel, locks the process down, loads the container's
// init and serves `supervisor` until init ends; then the process ends.
[[noreturn]] void RunSentry(BootConfig config, Channel supervisor);

}  // namespace moat

#endif  // MOAT_RUNSC_BOOT_SENTRY_MAIN_H_
