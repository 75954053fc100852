// What a mount and a mount namespace consist of; for fs/vfs only. All links of the tree and of propagation are
// guarded by one lock, MountLock() (rank kMountTree): mounts change rarely, and readers need it only at mount points.
#ifndef MOAT_FS_VFS_MOUNT_IMPL_H_
#define MOAT_FS_VFS_MOUNT_IMPL_H_

#include <string>
#include <vector>

#include "fs/vfs/mount.h"

namespace moat {

SharedMutex& MountLock();

struct Mount::Impl {
  // Constant after construction.
  RefPtr<FileSystem> fs;
  RefPtr<Dentry> root;
  std::string source;
  uint64_t id = 0;

  std::atomic<uint64_t> flags{0};

  // Under MountLock().
  MountNamespace* ns = nullptr;         // null: detached
  Mount* parent = nullptr;              // whose reference keeps this one; null for a root
  RefPtr<Dentry> mount_point;           // in the parent
  std::vector<RefPtr<Mount>> children;  // in the order of mounting
  int group = 0;                        // peer group; 0: private or slave only
  int master = 0;                       // group that this receives from
  bool unbindable = false;
  bool expired_once = false;  // MNT_EXPIRE marks first
};

struct MountNamespace::Impl {
  RefPtr<UserNamespace> owner;
  uint64_t id = 0;
  RefPtr<Mount> root;  // under MountLock()
  WaitQueue change_queue;
  std::atomic<uint64_t> generation{1};
};

}  // namespace moat

#endif  // MOAT_FS_VFS_MOUNT_IMPL_H_
