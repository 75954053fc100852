#include "runsc/boot/register_types.h"

#include "fs/devfs/devfs.h"
#include "fs/devpts/devpts.h"
#include "sentry/procfs/procfs.h"

namespace moat {

void RegisterTypes(Kernel& kernel) {
  RegisterDevices();
  RegisterDevpts();
  RegisterProcfs(kernel);
}

}  // namespace moat
