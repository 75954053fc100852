#include "runsc/boot/register_types.h"

#include "fs/devfs/devfs.h"
#include "fs/devpts/devpts.h"
#include "fs/overlay/guest_overlay.h"
#include "fs/pipe/pipe.h"
#include "fs/tmpfs/tmpfs.h"
#include "sentry/ipc/mqueue_namespace.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/random.h"
#include "sentry/procfs/procfs.h"
#include "sentry/socket/unix_socket_file.h"
#include "sentry/syscalls/dispatch.h"
#include "sentry/sysfs/sysfs.h"

namespace moat {

void RegisterTypes(Kernel& kernel) {
  RegisterDevices(FillRandom);
  RegisterTmpfs(kernel.memory_file());
  RegisterGuestOverlay();
  RegisterFifos();
  RegisterDevpts();
  RegisterProcfs(kernel);
  RegisterSysfs(kernel);
  RegisterUnixSockets();
  RegisterMqueue(kernel);
  InstallSyscallTable();
}

}  // namespace moat
