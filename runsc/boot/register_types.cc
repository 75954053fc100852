#include "runsc/boot/register_types.h"

#include "fs/devfs/devfs.h"
#include "fs/devpts/devpts.h"

namespace moat {

void RegisterTypes(Kernel& kernel) {
  RegisterDevices();
  RegisterDevpts();
}

}  // namespace moat
