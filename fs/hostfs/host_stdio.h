// Host stdio: the descriptors 0, 1, 2 (or others) that the caller of runsc hands into the sandbox.
//
// What they are, they stay: a pipe, a socket, a terminal, a regular file whose offset is shared with the caller.
// Their file descriptions belong to the caller too, so no flag of them is ever changed: where a call could block,
// RWF_NOWAIT or MSG_DONTWAIT is used, or poll(2) is asked first where a host file knows neither.
// The sentry must ignore SIGPIPE. Source: pipe(7), socket(7), preadv2(2), ioctl_tty(2).
#ifndef MOAT_FS_HOSTFS_HOST_STDIO_H_
#define MOAT_FS_HOSTFS_HOST_STDIO_H_

#include <vector>

#include "fs/hostfs/gofer_client.h"
#include "fs/vfs/file.h"
#include "fs/vfs/tty_job_control.h"

namespace moat {

struct HostStdio {
  // File i is the description of descriptor i; null where the descriptor was not valid.
  std::vector<RefPtr<File>> files;
  // The terminal among them, or null: descriptors of one terminal share one Tty.
  RefPtr<Tty> tty;
};

// Wraps `fds`. The gofer gets copies and makes the calls that the sentry may not (fstat, lseek, ftruncate, fsync), so
// this works before and after the sentry's lockdown. Null, in tests: fstat is called here, the others answer kEINVAL.
Result<HostStdio> WrapHostStdio(std::vector<ScopedFd> fds, RefPtr<GoferClient> gofer);

}  // namespace moat

#endif  // MOAT_FS_HOSTFS_HOST_STDIO_H_
