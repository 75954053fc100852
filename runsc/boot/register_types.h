// The one place that names every file system and device of the sandbox.
#ifndef MOAT_RUNSC_BOOT_REGISTER_TYPES_H_
#define MOAT_RUNSC_BOOT_REGISTER_TYPES_H_

namespace moat {

class Kernel;

// Once, at boot, before the first mount.
void RegisterTypes(Kernel& kernel);

}  // namespace moat

#endif  // MOAT_RUNSC_BOOT_REGISTER_TYPES_H_
