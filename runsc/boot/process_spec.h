// From an OCI process to what the kernel starts.
#ifndef MOAT_RUNSC_BOOT_PROCESS_SPEC_H_
#define MOAT_RUNSC_BOOT_PROCESS_SPEC_H_

#include "fs/vfs/mount.h"
#include "runsc/oci/spec.h"
#include "sentry/kernel/kernel.h"

namespace moat {

// Everything but namespaces and terminal. `stdio`: file i becomes descriptor i; nulls are left out.
ProcessSpec MakeProcessSpec(Kernel& kernel, const oci::Process& process, const std::vector<RefPtr<File>>& stdio);

}  // namespace moat

#endif  // MOAT_RUNSC_BOOT_PROCESS_SPEC_H_
