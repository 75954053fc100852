// Dentry: a name in a directory, cached. The tree of dentries of one file system; positive (with an inode) or
// negative (the name is known not to exist). Children are cached in their parent; unused ones are evicted
// by an LRU with a bound. Renames move dentries; unlinked ones become detached ("(deleted)").
//
// A cached child has one reference of its parent's table and holds one on its parent. On a file system that does
// not cache dentries (FileSystem::caches_dentries) a lookup makes a fresh dentry, in no table, unless something is
// mounted at or below it.
#ifndef MOAT_FS_VFS_DENTRY_H_
#define MOAT_FS_VFS_DENTRY_H_

#include <memory>
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

  RefPtr<Inode> inode() const { return RefPtr<Inode>(inode_ptr()); }  // null when negative
  // The same, borrowed: valid while the caller holds this dentry. A positive dentry never changes its inode.
  Inode* inode_ptr() const { return inode_.load(std::memory_order_acquire); }
  RefPtr<Dentry> parent() const;  // null for a root
  std::string name() const;       // a copy: renames change it
  bool IsRoot() const { return (state_.load(std::memory_order_relaxed) & kRoot) != 0; }
  bool IsAnonymous() const { return (state_.load(std::memory_order_relaxed) & kAnonymous) != 0; }
  bool IsDetached() const { return (state_.load(std::memory_order_acquire) & kUnlinked) != 0; }  // unlinked
  bool IsAncestorOf(const Dentry& d) const;                                                      // true for itself

  // Finds or looks up a child; a negative dentry is an answer too (its inode() is null).
  Result<RefPtr<Dentry>> LookupChild(const VfsContext& ctx, std::string_view name);
  // The same for a caller that holds dir_mutex().
  Result<RefPtr<Dentry>> LookupChildLocked(const VfsContext& ctx, std::string_view name);
  // The child if it is cached, else null. The fast path of path resolution: no file system call.
  RefPtr<Dentry> CachedChild(std::string_view name);
  // Serialises name changes in this directory: the inode's. Rank kDirectory.
  Mutex& dir_mutex() { return inode_ptr()->dir_mutex(); }

  // Called by the VFS's name operations (dir_mutex of the parents held).
  void Instantiate(RefPtr<Inode> inode);  // negative -> positive
  void MarkUnlinked();                    // detached; a later lookup of the name goes to the file system
  static void Move(Dentry& d, Dentry& new_parent, std::string_view new_name);
  static void Exchange(Dentry& a, Dentry& b);
  void InvalidateChildren();  // drops what is cached below
  // A detached dentry "name (deleted)" below `parent`, for O_TMPFILE.
  static RefPtr<Dentry> CreateUnlinked(Dentry& parent, RefPtr<Inode> inode, std::string name);
  // linkat(2) of an O_TMPFILE file gives it a name in a dentry of its own; the one that it was opened with stays
  // detached. O_EXCL with O_TMPFILE forbids it.
  void ForbidLink() { state_.fetch_or(kNoLink, std::memory_order_relaxed); }
  bool MayBeLinked() const { return (state_.load(std::memory_order_relaxed) & kNoLink) == 0; }

  // A mount point appears or goes: counts mount_count and keeps the way to it in the tables.
  void PinMountPoint();
  void UnpinMountPoint();

  // Number of mounts on this dentry in any namespace: path resolution's hint that it must look.
  std::atomic<int> mount_count{0};

  // Eviction of one unused dentry by the LRU. False when it is in use after all.
  static bool TryEvict(RefPtr<Dentry> victim);

 private:
  friend class DentryLru;
  enum State : uint32_t { kRoot = 1, kAnonymous = 2, kUnlinked = 4, kHashed = 8, kNoLink = 16 };

  Dentry(RefPtr<Dentry> parent, std::string_view name, RefPtr<Inode> inode, uint32_t state);
  void OnLastUnref() override;
  static uint32_t Hash(std::string_view name);
  bool caches() const;
  Dentry* FindLocked(std::string_view name, uint32_t hash) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void InsertLocked(Dentry* child) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);  // takes a reference
  void EraseLocked(Dentry* child) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);   // the caller drops the reference
  void GrowLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Unhash();

  std::atomic<Inode*> inode_;
  std::atomic<uint32_t> state_;
  std::atomic<bool> recently_used_{true};
  uint32_t hash_ = 0;  // of name_
  // name_ and parent_ change only with both parents' mu_ and the tree lock (dentry.cc) held: the holder of a
  // parent's mu_ may read its children's names, everybody else reads under the tree lock.
  std::string name_;
  RefPtr<Dentry> parent_;

  mutable Mutex mu_{LockRank::kDentry};
  std::unique_ptr<Dentry*[]> buckets_ ABSL_GUARDED_BY(mu_);
  uint32_t bucket_count_ ABSL_GUARDED_BY(mu_) = 0;  // a power of two
  uint32_t child_count_ ABSL_GUARDED_BY(mu_) = 0;
  uint32_t pins_ = 0;            // mount points at or below, on file systems that do not cache; under the tree lock
  Dentry* hash_next_ = nullptr;  // in the parent's bucket; guarded by the parent's mu_
  Dentry* lru_prev_ = nullptr;   // guarded by the LRU's lock
  Dentry* lru_next_ = nullptr;
};

}  // namespace moat

#endif  // MOAT_FS_VFS_DENTRY_H_
