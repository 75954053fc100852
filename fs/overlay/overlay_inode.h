// OverlayInode: one object of an overlay: an upper one, a lower one, or a lower one and its copy; for directories,
// all that merge. See overlay_fs.h.
#ifndef MOAT_FS_OVERLAY_OVERLAY_INODE_H_
#define MOAT_FS_OVERLAY_OVERLAY_INODE_H_

#include <string>
#include <unordered_set>
#include <vector>

#include "fs/overlay/layered_inode.h"
#include "fs/overlay/overlay_fs.h"

namespace moat {

class OverlayInode final : public LayeredInode {
 public:
  Result<Kstat> GetAttr() override;
  Result<void> SetAttr(const VfsContext& ctx, const AttrChange& change) override;
  Result<void> CheckPermission(const VfsContext& ctx, int mask) override { return layer().CheckPermission(ctx, mask); }

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

  Result<std::string> GetXattr(const VfsContext& ctx, std::string_view name) override;
  Result<void> SetXattr(const VfsContext& ctx, std::string_view name, std::string_view value, int flags) override;
  Result<void> RemoveXattr(const VfsContext& ctx, std::string_view name) override;
  Result<std::vector<std::string>> ListXattr(const VfsContext& ctx) override { return layer().ListXattr(ctx); }

  OverlayFs& overlay() const { return static_cast<OverlayFs&>(fs()); }
  Result<void> CopyUp(const VfsContext& ctx, uint64_t data_limit = ~uint64_t{0}) override;
  Result<std::vector<LayerEntry>> MergedNames(const VfsContext& ctx) override;
  // True when names of the lower are hidden here.
  bool IsWhiteout(std::string_view name) const;

 private:
  friend class OverlayFs;
  OverlayInode(OverlayFs& fs, uint32_t type, uint64_t ino, RefPtr<Inode> upper, std::vector<RefPtr<Inode>> lowers);
  ~OverlayInode() override;

  bool lower_born() const { return !lowers().empty(); }
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
  void DiscardAnchor(const VfsContext& ctx, const std::string& anchor, Inode& copy);

  mutable Mutex mu_{LockRank::kOverlay};
  std::string anchor_ ABSL_GUARDED_BY(mu_);   // name in the work directory; empty: none
  int nlink_delta_ ABSL_GUARDED_BY(mu_) = 0;  // lower-born: names made minus names removed in the overlay
  std::unordered_set<std::string> whiteouts_ ABSL_GUARDED_BY(mu_);
  std::atomic<bool> has_whiteouts_{false};
  std::atomic<bool> removed_{false};  // a directory that has lost its name
};

}  // namespace moat

#endif  // MOAT_FS_OVERLAY_OVERLAY_INODE_H_
