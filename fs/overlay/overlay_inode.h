// OverlayInode: one object of an overlay: an upper one, a lower one, or a lower one and its copy; for directories,
// all that merge. See overlay_fs.h.
#ifndef MOAT_FS_OVERLAY_OVERLAY_INODE_H_
#define MOAT_FS_OVERLAY_OVERLAY_INODE_H_

#include <string>
#include <unordered_set>
#include <vector>

#include "fs/overlay/overlay_fs.h"
#include "fs/vfs/inode.h"

namespace moat {

class OverlayMappable;

class OverlayInode final : public Inode {
 public:
  Result<Kstat> GetAttr() override;
  Result<Access> GetAccess() override { return layer().GetAccess(); }
  Result<void> SetAttr(const VfsContext& ctx, const AttrChange& change) override;

  Result<RefPtr<Inode>> Lookup(const VfsContext& ctx, std::string_view name) override;
  RefPtr<RefCounted> LookAhead(const VfsContext& ctx, std::span<const std::string_view> names) override;
  Result<RefPtr<Inode>> Create(const VfsContext& ctx, std::string_view name, uint32_t mode) override;
  Result<RefPtr<Inode>> Mkdir(const VfsContext& ctx, std::string_view name, uint32_t mode) override;
  Result<RefPtr<Inode>> Mknod(const VfsContext& ctx, std::string_view name, uint32_t mode, DeviceId dev) override;
  Result<RefPtr<Inode>> Symlink(const VfsContext& ctx, std::string_view name, std::string_view target) override;
  Result<void> Link(const VfsContext& ctx, std::string_view name, Inode& target) override;
  Result<void> Unlink(const VfsContext& ctx, std::string_view name, Inode& child) override;
  Result<void> Rmdir(const VfsContext& ctx, std::string_view name, Inode& child) override;
  Result<void> Rename(const VfsContext& ctx, std::string_view old_name, Inode& child, Inode& new_dir,
                      std::string_view new_name, Inode* replaced, unsigned flags) override;
  Result<RefPtr<Inode>> CreateTemporary(const VfsContext& ctx, uint32_t mode) override;

  Result<std::string> Readlink(const VfsContext& ctx) override { return layer().Readlink(ctx); }
  Result<RefPtr<File>> Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) override;
  Result<std::string> GetXattr(const VfsContext& ctx, std::string_view name) override;
  Result<void> SetXattr(const VfsContext& ctx, std::string_view name, std::string_view value, int flags) override;
  Result<void> RemoveXattr(const VfsContext& ctx, std::string_view name) override;
  Result<std::vector<std::string>> ListXattr(const VfsContext& ctx) override { return layer().ListXattr(ctx); }
  Result<RefPtr<Mappable>> GetMappable() override;

  // --- layers; for the files, mappings and directories of this inode ---
  // The upper object once there is one, else null. It never changes again.
  Inode* upper() const { return upper_raw_.load(std::memory_order_acquire); }
  // Where data and attributes are now.
  Inode& layer() const {
    Inode* u = upper();
    return u != nullptr ? *u : *lowers_[0];
  }
  const std::vector<RefPtr<Inode>>& lowers() const { return lowers_; }
  OverlayFs& overlay() const { return static_cast<OverlayFs&>(fs()); }
  // Makes the copy in the upper, if there is none; of a regular file the first `data_limit` bytes. kEROFS without an
  // upper. No lock is held while data is copied: of two threads that copy, one throws its copy away.
  Result<void> CopyUp(const VfsContext& ctx, uint64_t data_limit = ~uint64_t{0});
  // True when names of the lower are hidden here.
  bool IsWhiteout(std::string_view name) const;

 private:
  friend class OverlayFs;
  friend class OverlayMappable;
  OverlayInode(OverlayFs& fs, uint32_t type, uint64_t ino, RefPtr<Inode> upper, std::vector<RefPtr<Inode>> lowers);
  ~OverlayInode() override;

  bool lower_born() const { return !lowers_.empty(); }
  // The names of this directory's layers.
  Result<RefPtr<Inode>> LookupUpper(const VfsContext& ctx, std::string_view name);
  Result<std::vector<RefPtr<Inode>>> LookupLowers(const VfsContext& ctx, std::string_view name);
  // Hides `name` of the lowers, and gives the directory the times of a changed one.
  Result<void> Hide(const VfsContext& ctx, std::string_view name);
  // Removes `name`, which leads to `child`, from the upper if it is there, and hides the lower's.
  Result<void> RemoveName(const VfsContext& ctx, std::string_view name, OverlayInode& child);
  // Gives `child`, which has a copy, the name `name` in this directory's upper, where its lower name stands.
  Result<void> Place(const VfsContext& ctx, std::string_view name, OverlayInode& child);
  Result<bool> IsEmptyDirectory(const VfsContext& ctx);
  // One name more or less of a file; a directory's only name went.
  void NamesChangedBy(const VfsContext& ctx, int delta);
  void DirectoryRemoved(const VfsContext& ctx);
  // Without names nobody finds the object any more: its anchor and its place in memory go. Else it is kept.
  void KeepWhileNamed(const VfsContext& ctx);
  Result<uint32_t> LinkCount();
  void AddWhiteout(std::string_view name);
  Result<RefPtr<Inode>> AdoptNew(Result<RefPtr<Inode>> made);

  Result<RefPtr<Inode>> MakeCopy(const VfsContext& ctx, const std::string& anchor, uint64_t data_limit);
  Result<void> CopyData(const VfsContext& ctx, Inode& to, uint64_t data_limit);
  Result<void> CopyXattrs(const VfsContext& ctx, Inode& to);
  void DiscardAnchor(const VfsContext& ctx, const std::string& anchor, Inode& copy);

  const std::vector<RefPtr<Inode>> lowers_;
  std::atomic<Inode*> upper_raw_{nullptr};  // owned: one reference, given back by the destructor

  mutable Mutex mu_{LockRank::kOverlay};
  std::string anchor_ ABSL_GUARDED_BY(mu_);   // name in the work directory; empty: none
  int nlink_delta_ ABSL_GUARDED_BY(mu_) = 0;  // lower-born: names made minus names removed in the overlay
  std::unordered_set<std::string> whiteouts_ ABSL_GUARDED_BY(mu_);
  std::atomic<bool> has_whiteouts_{false};
  std::atomic<bool> removed_{false};  // a directory that has lost its name

  Mutex mappable_mu_{LockRank::kOverlayTable};  // apart from mu_: mm drops mappables with its own locks held
  OverlayMappable* mappable_ ABSL_GUARDED_BY(mappable_mu_) = nullptr;
};

// A place for an inner inode whose file is opened by the overlay: no mount, a nameless dentry.
VfsPath InnerPath(Inode& inode);

}  // namespace moat

#endif  // MOAT_FS_OVERLAY_OVERLAY_INODE_H_
