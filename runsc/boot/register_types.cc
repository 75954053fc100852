#include "runsc/boot/register_types.h"

#include "fs/devfs/devfs.h"
#include "fs/devpts/devpts.h"
#include "fs/pipe/pipe.h"
#include "fs/tmpfs/tmpfs.h"
#include "sentry/kernel/kernel.h"
#include "sentry/ipc/mqueue_namespace.h"
#include "sentry/kernel/random.h"
#include "sentry/procfs/procfs.h"
#include "sentry/socket/unix_socket_file.h"
#include "sentry/sysfs/sysfs.h"
#include "sentry/socket/unix_socket_file.h"
#include "sentry/syscalls/dispatch.h"
#if __has_include("sentry/sysfs/sysfs.h")
#include "sentry/sysfs/sysfs.h"
#define MOAT_HAS_SYSFS 1
#endif

namespace moat {

void RegisterTypes(Kernel& kernel) {
  RegisterDevices(FillRandom);
  RegisterTmpfs(kernel.memory_file());
  RegisterFifos();
  RegisterDevpts();
  RegisterProcfs(kernel);
  RegisterSysfs(kernel);
  RegisterUnixSockets();
  RegisterMqueue(kernel);
  InstallSyscallTable();
}

}  // namespace moat
