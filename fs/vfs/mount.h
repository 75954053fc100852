// Mount and MountNamespace: the mount tree, with bind mounts, propagation (shared, slave, private,
// unbindable) and per-mount flags. Source: mount_namespaces(7), Documentation/filesystems/sharedsubtree.rst.
#ifndef MOAT_FS_VFS_MOUNT_H_
#define MOAT_FS_VFS_MOUNT_H_

#include <string>
#include <vector>

#include "fs/vfs/dentry.h"
#include "fs/vfs/filesystem.h"

namespace moat {

class MountNamespace;

class Mount : public RefCounted {
 public:
  FileSystem& fs() const;
  RefPtr<Dentry> root() const;  // the dentry of fs() that this mount shows at its top
  // Flags of this mount: MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME, MS_RELATIME, ...
  uint64_t flags() const;
  bool read_only() const;                                         // the mount or its file system
  uint64_t id() const;                                            // mnt_id
  uint64_t unique_id() const { return id() + kUniqueIdOffset; }   // what statmount(2) takes; ours are never reused
  static constexpr uint64_t kUniqueIdOffset = uint64_t{1} << 31;  // MNT_UNIQUE_ID_OFFSET
  const std::string& source() const;                              // /proc/mounts' first field
  bool detached() const;                                          // in no namespace
  ~Mount() override;

  struct Impl;
  Impl& impl() const { return *impl_; }  // for fs/vfs only

 private:
  friend class MountNamespace;
  friend struct MountTree;  // fs/vfs/mount_tree.h
  Mount();
  Impl* impl_;
};

class MountNamespace : public RefCounted {
 public:
  // A namespace whose root is `fs`.
  static RefPtr<MountNamespace> Create(RefPtr<FileSystem> fs, std::string source, uint64_t flags,
                                       RefPtr<UserNamespace> owner);
  // unshare(CLONE_NEWNS): a copy of the whole tree; `paths` (root, cwd of the caller) are moved to the copies.
  Result<RefPtr<MountNamespace>> Clone(RefPtr<UserNamespace> owner, std::vector<VfsPath*> paths);
  ~MountNamespace() override;

  uint64_t id() const;
  UserNamespace& owner() const;
  VfsPath root() const;

  // All take targets already resolved with the caller's permissions checked by fs/vfs/mount_ops.h.
  Result<RefPtr<Mount>> MountAt(const VfsPath& target, RefPtr<FileSystem> fs, std::string source, uint64_t flags);
  Result<RefPtr<Mount>> Bind(const VfsPath& target, const VfsPath& source, bool recursive);
  Result<void> Move(const VfsPath& target, const VfsPath& source);
  // MNT_DETACH, MNT_FORCE, MNT_EXPIRE; kEBUSY. `own_refs`: references to the mount that the caller holds besides
  // `target` (its VfsContext's copies), which do not make it busy.
  Result<void> Unmount(const VfsPath& target, int flags, int own_refs = 0);
  // open_tree(OPEN_TREE_CLONE), fsmount: a mount that is in no namespace. Attach puts it at `target` (move_mount).
  static Result<RefPtr<Mount>> CloneDetached(const VfsPath& source, bool recursive);
  // A mount of `source` that nobody else can reach or propagate to, for who stacks on it. kEINVAL when unbindable.
  static Result<RefPtr<Mount>> ClonePrivate(const VfsPath& source);
  static RefPtr<Mount> MakeDetached(RefPtr<FileSystem> fs, std::string source, uint64_t flags);
  Result<void> Attach(const VfsPath& target, const RefPtr<Mount>& detached);
  // mount_setattr(2): sets and clears per-mount MS_* flags of the mount, with `recursive` of all below it.
  static Result<void> SetFlags(const VfsPath& target, uint64_t set, uint64_t clear, bool recursive);
  Result<void> ChangePropagation(const VfsPath& target, uint64_t type, bool recursive);  // MS_SHARED...
  Result<void> Remount(const VfsPath& target, uint64_t flags, bool bind_only, std::string_view data);
  // `root`: the caller's root mount, which new_root's takes the place of; null: the namespace's.
  Result<void> PivotRoot(const VfsPath& new_root, const VfsPath& put_old, Mount* root = nullptr);

  // The top-most mount on (mount, dentry): crosses every mount stacked there. False: nothing is mounted there.
  bool Descend(VfsPath& path) const;
  // From a mount's root to what it covers. False at the namespace's root.
  bool Ascend(VfsPath& path) const;

  // "/a/b" of `path` as seen from `root`, with " (deleted)" and "(unreachable)" as d_path does.
  std::string PathName(const VfsPath& path, const VfsPath& root) const;

  // ustat(2): what is mounted here with that device number; null when nothing is.
  RefPtr<FileSystem> FindFileSystem(DeviceId device) const;

  // A snapshot for /proc/<pid>/{mounts,mountinfo,mountstats}.
  struct MountInfo {
    uint64_t id = 0, parent_id = 0, parent_unique_id = 0;
    DeviceId device;
    std::string root, mount_point, source, fs_type, fs_options;
    uint64_t flags = 0;
    int peer_group = 0, master_group = 0;  // 0: none
    int propagates_from = 0;               // the nearest group above that can be seen; 0: none
    bool unbindable = false, fs_read_only = false;
  };
  std::vector<MountInfo> Snapshot(const VfsPath& root) const;
  MountInfo Describe(const RefPtr<Mount>& mount, const VfsPath& root) const;
  // A mount of this namespace by Mount::unique_id; null.
  RefPtr<Mount> Find(uint64_t unique_id) const;
  // Is `m` at or below `root`, so that a task of that root directory can come there?
  bool Reaches(const VfsPath& root, const Mount& m) const;
  // The unique ids of the mounts at or below `place` but `except`, ascending.
  std::vector<uint64_t> ListBelow(const VfsPath& place, const Mount* except) const;
  // A namespace that has mounts, by id(); null.
  static RefPtr<MountNamespace> FindById(uint64_t id);
  // Bumped on every change: poll(2) on /proc/self/mounts.
  WaitQueue& change_queue();
  uint64_t generation() const;

 private:
  MountNamespace();
  static int PropagatesFrom(const Mount& m, const VfsPath& root, const std::vector<RefPtr<Mount>>& all);
  struct Impl;
  Impl* impl_;
};

}  // namespace moat

#endif  // MOAT_FS_VFS_MOUNT_H_
