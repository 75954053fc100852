// The POSIX message queues of an ipc namespace.
#ifndef MOAT_SENTRY_IPC_MQUEUE_NAMESPACE_H_
#define MOAT_SENTRY_IPC_MQUEUE_NAMESPACE_H_

#include "fs/mqueue/mqueue_fs.h"

namespace moat {

class IpcNamespace;
class Kernel;

RefPtr<MqueueFs> MqueuesOf(IpcNamespace& ns);

// Registers the file system type "mqueue". Once, at boot.
void RegisterMqueue(Kernel& kernel);

}  // namespace moat

#endif  // MOAT_SENTRY_IPC_MQUEUE_NAMESPACE_H_
