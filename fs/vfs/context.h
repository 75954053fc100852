// VfsContext: on whose behalf an operation runs. Built by the system call layer from the task; lives for
// one call. fs/ knows no task.
#ifndef MOAT_FS_VFS_CONTEXT_H_
#define MOAT_FS_VFS_CONTEXT_H_

#include <cstdint>

#include "fs/vfs/path.h"
#include "platform/cred/credentials.h"

namespace moat {

class Inode;
class MountNamespace;

struct VfsContext {
  const Credentials& cred;
  MountNamespace& mounts;
  VfsPath root;  // the task's root directory: ".." stops here
  VfsPath cwd;
  uint32_t umask = 022;
  uint64_t file_size_limit = ~uint64_t{0};  // RLIMIT_FSIZE; a write past it is EFBIG (the caller sends SIGXFSZ)
  int32_t pid = 0;                          // thread group id in the root pid namespace: lock owner, F_GETLK
  int32_t tid = 0;
  // Where a call that answers kEAGAIN because of a lease says of which inode: the caller may wait for the holder
  // (FileLockList::wait_queue) and call again. Null: it will not.
  RefPtr<Inode>* leased = nullptr;
  void* task = nullptr;  // opaque: the sentry's Task, for procfs and ttys above fs/
};

}  // namespace moat

#endif  // MOAT_FS_VFS_CONTEXT_H_
