// Dentry: a name in a directory, cached. The tree of dentries of one file system; positive (with an inode) or
// negative (the name is known not to exist). Children are cached in their parent; unused ones are evicted
// by an LRU with a bound. Renames move dentries; unlinked ones become detached ("(deleted)").
#ifndef MOAT_FS_VFS_DENTRY_H_
#define MOAT_FS_VFS_DENTRY_H_

#include <string>
#include <string_view>

#include "fs/vfs/inode.h"

namespace moat {

class Dentry : public RefCounted {
 public:
  // The root of a file system, or a nameless dentry for pipes, sockets and anon files ("pipe:[123]").
  static RefPtr<Dentry> CreateRoot(RefPtr<Inode> inode);
  static RefPtr<Dentry> CreateAnonymous(RefPtr<Inode> inode, std::string name);
  ~Dentry() override;

  RefPtr<Inode> inode() const;     // null when negative
  RefPtr<Dentry> parent() const;   // null for a root
  std::string name() const;        // a copy: renames change it
  bool IsRoot() const;
  bool IsDetached() const;         // unlinked or moved away
  bool IsAncestorOf(const Dentry& d) const;

  // Finds or looks up a child; a negative dentry is an answer too (its inode() is null).
  Result<RefPtr<Dentry>> LookupChild(const VfsContext& ctx, std::string_view name);
  // The child if it is cached, else null. The fast path of path resolution: no file system call.
  RefPtr<Dentry> CachedChild(std::string_view name);
  // Serialises name changes in this directory. Rank kDirectory.
  Mutex& dir_mutex();

  // Called by the VFS's name operations (dir_mutex of the parents held).
  void Instantiate(RefPtr<Inode> inode);   // negative -> positive
  void MarkUnlinked();                     // detached; a later lookup of the name goes to the file system
  static void Move(Dentry& d, Dentry& new_parent, std::string_view new_name);
  static void Exchange(Dentry& a, Dentry& b);
  void InvalidateChildren();               // drops what is cached below

  // Number of mounts on this dentry in any namespace: path resolution's hint that it must look.
  std::atomic<int> mount_count{0};

 private:
  struct Impl;
  Impl* impl_;
  Dentry();
};

}  // namespace moat

#endif  // MOAT_FS_VFS_DENTRY_H_
