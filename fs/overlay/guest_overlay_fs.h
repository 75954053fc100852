// GuestOverlayFs: an overlay that a guest mounted. Unlike the sandbox's own overlay (overlay_fs.h) its layers are
// directories of file systems that the guest also reaches by other ways, and everything that it must remember is in
// the upper directory, as Documentation/filesystems/overlayfs.rst says: whiteouts are character devices 0/0, hidden
// directories have the extended attribute "overlay.opaque", renamed ones "overlay.redirect".
//
// So it works on its upper through the VFS, with a private mount of each layer and the credentials of who mounted:
// the dentry cache and the watches of the upper's own file system stay true, and the mounter needs every permission.
//
// Locks: its own come before those of its layers (lock_rank.h). copy_up_mutex() makes one step of "the copy goes to its
// place" and of "the name is taken away".
#ifndef MOAT_FS_OVERLAY_GUEST_OVERLAY_FS_H_
#define MOAT_FS_OVERLAY_GUEST_OVERLAY_FS_H_

#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "fs/overlay/guest_overlay_options.h"

namespace moat {

class GuestOverlayInode;

class GuestOverlayFs final : public FileSystem {
 public:
  // Checks how the layers lie (kEINVAL, kELOOP) and prepares the work directory.
  static Result<RefPtr<GuestOverlayFs>> Create(const VfsContext& ctx, GuestOverlayOptions options);

  RefPtr<Inode> root() override;
  Result<FsStat> StatFs() override;
  Result<void> SyncAll() override;
  std::string ShowOptions() const override { return options_.Show(); }
  bool can_be_written() const override { return has_upper(); }
  bool takes_new_options() const override { return false; }  // a remount by mount(2) ignores them
  int stack_depth() const override { return depth_; }

 private:
  friend class GuestOverlayInode;
  friend class AsMounter;
  GuestOverlayFs(const VfsContext& ctx, GuestOverlayOptions options, int depth);
  ~GuestOverlayFs() override;
  void OnLastUnref() override;
  static Result<int> CheckLayers(const GuestOverlayOptions& o);
  Result<void> TakeLayers(const VfsContext& ctx);
  Result<void> PrepareWork(const VfsContext& ctx, const VfsPath& base);
  Result<void> MarkVolatile(const VfsContext& ctx);

  bool has_upper() const { return static_cast<bool>(upper_); }
  VfsPath UpperPlace(RefPtr<Dentry> dentry) const { return VfsPath(upper_.mount, std::move(dentry)); }
  LockRank directory_rank() const { return depth_ == 1 ? LockRank::kStackedDirectory1 : LockRank::kStackedDirectory2; }
  Mutex& copy_up_mutex() { return copy_up_mu_; }
  std::string NewWorkName() { return "#" + std::to_string(next_work_.fetch_add(1, std::memory_order_relaxed)); }
  // "trusted.overlay.opaque"
  std::string XattrName(std::string_view name) const { return xattr_prefix_ + std::string(name); }

  // --- identity: at most one inode for what is one object ---
  // `lowers`: of a directory, what it merges with. `lower_path`: where in the layers those were found.
  struct Lowers {
    std::vector<RefPtr<Inode>> inodes;
    std::vector<uint16_t> layers;
    std::optional<std::string> path;  // none: too long to be a redirect
  };
  RefPtr<GuestOverlayInode> InodeOfUpper(RefPtr<Dentry> upper, Lowers lowers);
  // What no upper object stands for is known by its place.
  RefPtr<GuestOverlayInode> InodeOfLower(RefPtr<GuestOverlayInode> parent, std::string_view name, Lowers lowers);
  // ... and found there until its name goes, or its copy is found instead. Null: nothing in memory.
  RefPtr<GuestOverlayInode> AtPlace(const GuestOverlayInode& parent, std::string_view name);
  void Forget(GuestOverlayInode& inode);
  void MoveToUpper(GuestOverlayInode& inode, Inode& upper);
  void Drop(GuestOverlayInode& inode);  // by its destructor
  void ForgetLocked(GuestOverlayInode& inode) ABSL_EXCLUSIVE_LOCKS_REQUIRED(table_mu_);
  // st_ino and d_ino: the layer's own number, unless the layers lie in several file systems.
  uint64_t UpperIno(uint64_t ino) const { return ino ^ (upper_fs_index_ << 57); }
  uint64_t LowerIno(size_t layer, uint64_t ino) const { return ino ^ (lower_fs_index_[layer] << 57); }
  // The number that an upper object had before its copy-up, or its own.
  uint64_t InoOfUpper(uint64_t upper_ino);

  const GuestOverlayOptions options_;
  const int depth_;
  const RefPtr<const Credentials> mounter_;
  const std::string xattr_prefix_;
  // Constant after Create. The places of the layers in private mounts, which keep their file systems.
  VfsPath upper_, work_;
  std::vector<VfsPath> lowers_;
  RefPtr<MountNamespace> mounts_;  // of no task: nothing is mounted on anything in it
  VfsPath mounts_root_;
  bool reads_xattrs_ = false;  // the mounter may see ours
  bool no_xattrs_ = false;     // the upper refuses ours
  uint64_t upper_fs_index_ = 0;
  std::vector<uint64_t> lower_fs_index_;
  RefPtr<GuestOverlayInode> root_;

  std::atomic<uint64_t> next_work_{1};
  Mutex copy_up_mu_;

  Mutex table_mu_{LockRank::kOverlayTable};
  std::unordered_map<const Inode*, GuestOverlayInode*> by_upper_ ABSL_GUARDED_BY(table_mu_);
  std::map<std::pair<const GuestOverlayInode*, std::string>, GuestOverlayInode*> by_place_ ABSL_GUARDED_BY(table_mu_);
  std::unordered_map<uint64_t, uint64_t> copied_ino_ ABSL_GUARDED_BY(table_mu_);  // upper's number -> overlay's
};

// A context on behalf of the mounter. `owner`: as whom new objects are made, when it is somebody else: the caller.
class AsMounter {
 public:
  AsMounter(const GuestOverlayFs& fs, const VfsContext& caller);
  AsMounter(const GuestOverlayFs& fs, const VfsContext& caller, Kuid owner, Kgid group);
  operator const VfsContext&() const { return ctx_; }  // NOLINT(google-explicit-constructor)

 private:
  static VfsContext Make(const GuestOverlayFs& fs, const VfsContext& caller, const Credentials& cred);
  const RefPtr<const Credentials> cred_;
  const VfsContext ctx_;
};

}  // namespace moat

#endif  // MOAT_FS_OVERLAY_GUEST_OVERLAY_FS_H_
