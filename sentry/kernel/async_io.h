// Signals about files: SIGIO of fcntl(2) O_ASYNC, and who gets it and the signals of leases and F_NOTIFY.
//
// A file that becomes ready notifies its wait queue, where no signal can be sent: locks are held there. So an event is
// noted and delivered a moment later: before the task that caused it goes back to guest code, or by the timer thread.
// Thread-safe. Lock: kInotify, not held while a signal is sent. Source: fcntl(2), "Managing signals"; signal(7).
#ifndef MOAT_SENTRY_KERNEL_ASYNC_IO_H_
#define MOAT_SENTRY_KERNEL_ASYNC_IO_H_

#include <atomic>

#include "fs/vfs/file.h"
#include "sentry/kernel/task.h"

namespace moat::async_io {

// F_SETOWN, F_SETOWN_EX: `id` as the caller sees it, 0 for nobody. kESRCH.
Result<void> SetOwner(Task& t, File& file, int type, int32_t id);
// F_SETOWN and its older names: negative is a process group. kEINVAL, kESRCH.
Result<void> SetOwnerByNumber(Task& t, File& file, int32_t id);
// The owner's id as the caller sees it; 0: there is none, or it is gone.
int32_t OwnerId(Task& t, const File& file);
// F_GETOWN: negative for a process group.
int32_t OwnerNumber(Task& t, const File& file);

// O_ASYNC is set or cleared through descriptor `fd`, which the signals will name. Files that know no signal-driven I/O
// (File::AsyncEvents) are left as they are.
Result<void> SetAsync(Task& t, File& file, int fd, bool on);

// Sends the owner SIGIO, or the signal of F_SETSIG with `reason` (POLL_IN, ...) and `fd`.
void Signal(Kernel& kernel, const File::AsyncOwner& owner, int fd, int reason);

// Events wait for Deliver.
inline std::atomic<bool> pending{false};
void Deliver();

}  // namespace moat::async_io

#endif  // MOAT_SENTRY_KERNEL_ASYNC_IO_H_
