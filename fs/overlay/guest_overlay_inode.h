// GuestOverlayInode: one object of an overlay that a guest mounted. See guest_overlay_fs.h.
#ifndef MOAT_FS_OVERLAY_GUEST_OVERLAY_INODE_H_
#define MOAT_FS_OVERLAY_GUEST_OVERLAY_INODE_H_

#include <string>
#include <vector>

#include "fs/overlay/guest_overlay_fs.h"
#include "fs/overlay/layered_inode.h"

namespace moat {

class GuestOverlayInode final : public LayeredInode {
 public:
  Result<Kstat> GetAttr() override;
  Result<void> SetAttr(const VfsContext& ctx, const AttrChange& change) override;
  // What the caller may, and what the mounter may in the layer (Linux's ovl_permission).
  Result<void> CheckPermission(const VfsContext& ctx, int mask) override;

  Result<RefPtr<Inode>> Lookup(const VfsContext& ctx, std::string_view name) override;
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

  // The overlay's own attributes are its own business: a guest's of such a name are stored under another.
  Result<std::string> GetXattr(const VfsContext& ctx, std::string_view name) override;
  Result<void> SetXattr(const VfsContext& ctx, std::string_view name, std::string_view value, int flags) override;
  Result<void> RemoveXattr(const VfsContext& ctx, std::string_view name) override;
  Result<std::vector<std::string>> ListXattr(const VfsContext& ctx) override;

  Result<void> CopyUp(const VfsContext& ctx, uint64_t data_limit = ~uint64_t{0}) override;
  Result<std::vector<LayerEntry>> MergedNames(const VfsContext& ctx) override;
  // No name leads here any more.
  bool removed() const { return removed_.load(std::memory_order_acquire); }

 private:
  friend class GuestOverlayFs;
  using Lowers = GuestOverlayFs::Lowers;
  GuestOverlayInode(GuestOverlayFs& fs, uint32_t type, uint64_t ino, RefPtr<Dentry> upper, Lowers lowers,
                    RefPtr<GuestOverlayInode> parent, std::string_view name);
  ~GuestOverlayInode() override;

  GuestOverlayFs& overlay() const { return static_cast<GuestOverlayFs&>(fs()); }
  // This object in the upper, which it must have.
  VfsPath UpperPath() const;
  // New objects in here belong to the caller.
  Result<AsMounter> AsOwner(const VfsContext& ctx);

  // --- looking through the layers (guest_overlay_lookup.cc) ---
  struct Search;
  Result<Lowers> FindInLowers(const VfsContext& ctx, std::string_view name, Inode* upper_child);
  Result<void> SearchLayer(const VfsContext& ctx, Inode& base, size_t layer, Search& search);
  // A whiteout, as a device or as the mark on an empty file.
  Result<bool> IsWhiteout(const VfsContext& ctx, Inode& inode) const;
  std::string OwnXattr(const VfsContext& ctx, Inode& inode, std::string_view name) const;  // empty: none
  // The child in the upper, whiteouts included; null when there is none, or no upper.
  Result<RefPtr<Dentry>> UpperChild(const VfsContext& ctx, std::string_view name) const;
  // Would `name` come to light if the upper did not have it?
  Result<bool> LowerHas(const VfsContext& ctx, std::string_view name);
  Result<bool> IsEmptyDirectory(const VfsContext& ctx);

  // --- changing names (guest_overlay_names.cc, guest_overlay_rename.cc) ---
  enum class NameOf { kNewObject, kLink };
  template <typename Make>
  Result<RefPtr<Inode>> MakeName(const VfsContext& ctx, std::string_view name, uint32_t type, uint32_t mode,
                                 NameOf what, Make make);
  // Gives an object that was made in the work directory what it would have got in this one: S_ISGID, lists.
  Result<void> Inherit(const VfsContext& mounter, const VfsPath& made, uint32_t mode);
  Result<void> RemoveName(const VfsContext& ctx, std::string_view name, GuestOverlayInode& child);
  // A whiteout in the work directory; its name there.
  Result<std::string> MakeWhiteout(const VfsContext& mounter);
  // Empties an upper directory that holds nothing but whiteouts.
  Result<void> ClearWhiteouts(const VfsContext& mounter, const VfsPath& dir);
  Result<void> MarkOpaque(const VfsContext& mounter, const VfsPath& dir);
  // A directory may move when nothing of it stays behind in a lower, or redirects are on.
  bool MayMove() const;
  // Marks a directory that goes into `to`, so that it shows the same there.
  Result<void> PrepareMove(const VfsContext& mounter, GuestOverlayInode& to);
  void NameRemoved();

  // --- copying (guest_overlay_copy_up.cc) ---
  Result<void> CopyUpThis(const VfsContext& ctx, uint64_t data_limit);
  Result<RefPtr<Dentry>> MakeCopy(const VfsContext& mounter, const std::string& name, uint64_t data_limit);
  Result<void> PlaceCopy(const VfsContext& mounter, const std::string& work_name, RefPtr<Dentry> copy);

  // Constant: which layers lowers() are of; the directory's path in them ("" the root, "/a/b"), as a redirect names it.
  const std::vector<uint16_t> layers_;
  const std::optional<std::string> lower_path_;
  // Constant: where the object stands while it has no copy. (Directories on the way have theirs before they are moved.)
  RefPtr<GuestOverlayInode> parent_;
  const std::string name_;

  std::atomic<bool> removed_{false};
  mutable Mutex mu_{LockRank::kOverlay};
  RefPtr<Dentry> upper_dentry_ ABSL_GUARDED_BY(mu_);  // set once
};

}  // namespace moat

#endif  // MOAT_FS_OVERLAY_GUEST_OVERLAY_INODE_H_
