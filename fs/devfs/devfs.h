// /dev: the memory devices, the terminals' fixed nodes, and the names that a Linux program expects there.
// The nodes themselves live in any file system (tmpfs); the drivers are registered by device number.
// Source: null(4), full(4), random(4), tty(4), Documentation/admin-guide/devices.txt; OCI runtime-spec
// "Default Devices".
#ifndef MOAT_FS_DEVFS_DEVFS_H_
#define MOAT_FS_DEVFS_DEVFS_H_

#include "fs/vfs/tty_job_control.h"
#include "fs/vfs/vfs.h"

namespace moat {

// Registers the drivers of null, zero, full, random, urandom (major 1), tty and console (major 5), and the file
// system type devtmpfs. Once, at boot. `fill_random`: where random and urandom get their bytes from, so that the sentry
// needs no host call for them; null: getrandom(2).
using FillRandomFn = void (*)(void* out, size_t n);
void RegisterDevices(FillRandomFn fill_random = nullptr);

// Makes the default nodes, links and directories below `dev` (a writable directory); what exists already stays.
// `ctx` needs CAP_MKNOD.
Result<void> PopulateDev(const VfsContext& ctx, const VfsPath& dev);

// What /dev/console leads to; null: opening it answers kENXIO.
void SetConsole(RefPtr<Tty> tty);

}  // namespace moat

#endif  // MOAT_FS_DEVFS_DEVFS_H_
