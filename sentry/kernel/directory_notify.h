// Signals about changes in a directory: fcntl(2) F_NOTIFY. One watch for each process and file description; it ends
// with the first event unless DN_MULTISHOT, when the process closes a descriptor of the file, or with the file.
//
// Thread-safe. Lock: kInotify, not held while a signal is sent. Events come from fs/vfs/notify.h.
#ifndef MOAT_SENTRY_KERNEL_DIRECTORY_NOTIFY_H_
#define MOAT_SENTRY_KERNEL_DIRECTORY_NOTIFY_H_

#include <cstdint>

#include "fs/vfs/file.h"

namespace moat {

class Kernel;

namespace directory_notify {

// Adds the DN_* events of `events` to what process `pid` (root namespace) is told about the directory `file`. The
// signal goes to the file's owner (F_SETOWN) and names `fd` (F_SETSIG). `file` is an open directory.
void Watch(Kernel& kernel, File& file, int32_t pid, int fd, uint32_t events);

// Ends the watch of `pid`, if any.
void Forget(File& file, int32_t pid);

}  // namespace directory_notify
}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_DIRECTORY_NOTIFY_H_
