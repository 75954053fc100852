// The mechanics of the mount tree: copying, attaching, detaching and propagation; for fs/vfs only.
// Everything but Make and Devour needs MountLock() held for writing. References that go are collected in a Graveyard
// that dies after the lock is released: the end of a mount may end a file system.
// Source: Documentation/filesystems/sharedsubtree.rst.
#ifndef MOAT_FS_VFS_MOUNT_TREE_H_
#define MOAT_FS_VFS_MOUNT_TREE_H_

#include <functional>
#include <map>

#include "fs/vfs/mount_impl.h"

namespace moat {

struct MountTree {
  struct Graveyard {
    std::vector<RefPtr<Mount>> mounts;
    std::vector<RefPtr<Mount>> all;  // of MountTree::All
    std::vector<RefPtr<Dentry>> points;
  };
  enum class CopyKind { kPrivate, kKeep, kPeer, kSlave, kSharedSlave };

  static RefPtr<Mount> Make(RefPtr<FileSystem> fs, RefPtr<Dentry> root, std::string source, uint64_t flags);
  // A copy of `m` showing `root`, and with `recursive` of all below it that is under `root`.
  // kKeep: a copy joins its original's peer group and master (bind, new namespace). Unbindable mounts are left out,
  // unless `with_unbindable`. `map` may be null: original -> copy.
  static RefPtr<Mount> Copy(Mount& m, const RefPtr<Dentry>& root, bool recursive, CopyKind kind, bool with_unbindable,
                            std::map<Mount*, Mount*>* map);
  static void Attach(const RefPtr<Mount>& tree, Mount& parent, const RefPtr<Dentry>& point, MountNamespace* ns);
  // Attach, and to all that receive from `parent`.
  static void AttachAndPropagate(const RefPtr<Mount>& tree, Mount& parent, const RefPtr<Dentry>& point,
                                 MountNamespace* ns, Graveyard& g);
  // Out of the tree, with all that is below (which stays attached to it), and at all that receive from its parent.
  static void DetachAndPropagate(Mount& m, Graveyard& g);
  static void Detach(Mount& m, Graveyard& g);
  static void SetNamespace(Mount& m, MountNamespace* ns);
  static void DissolveBelow(Mount& m, Graveyard& g);

  static Mount* ChildAt(const Mount& parent, const Dentry* point);
  static void ForEach(Mount& top, const std::function<void(Mount&)>& f);
  static bool IsBelow(const Mount& m, const Mount& top);  // or equal
  static int NewGroup();
  static const std::vector<RefPtr<Mount>>& All(Graveyard& g);  // references that g gives back
  static RefPtr<Mount> Find(uint64_t unique_id);               // null; without MountLock()
};

}  // namespace moat

#endif  // MOAT_FS_VFS_MOUNT_TREE_H_
