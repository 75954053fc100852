// The root of a procfs instance: the system-wide files, self and thread-self, and a directory per process.
#ifndef MOAT_SENTRY_PROCFS_ROOT_DIR_H_
#define MOAT_SENTRY_PROCFS_ROOT_DIR_H_

#include "sentry/procfs/procfs.h"

namespace moat {

RefPtr<Inode> MakeProcRoot(ProcFs& fs, bool pid_only);

// "17" -> 17, as a name of a process directory; 0 for anything else.
int32_t ParsePid(std::string_view name);

}  // namespace moat

#endif  // MOAT_SENTRY_PROCFS_ROOT_DIR_H_
