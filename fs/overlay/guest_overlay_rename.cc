// rename(2) in a guest's overlay: everything is copied up, renamed in the upper, and a whiteout put where a lower would
// show through. A directory that merges moves only with redirects on (EXDEV, which mv(1) knows).
#include <linux/fs.h>

#include "fs/overlay/guest_overlay_inode.h"

namespace moat {

bool GuestOverlayInode::MayMove() const {
  if (!is_dir() || lowers().empty()) return true;
  return overlay().options_.redirect == GuestOverlayOptions::Redirect::kOn && !overlay().no_xattrs_ && lower_path_;
}

Result<void> GuestOverlayInode::PrepareMove(const VfsContext& mounter, GuestOverlayInode& to) {
  if (!is_dir()) return {};
  if (!lowers().empty()) {
    return vfs::SetXattr(mounter, UpperPath(), overlay().XattrName("redirect"), *lower_path_, 0);
  }
  if (to.lowers().empty()) return {};
  return MarkOpaque(mounter, UpperPath()).ok() ? Result<void>() : kEXDEV;
}

Result<void> GuestOverlayInode::Rename(const VfsContext& ctx, std::string_view old_name, Inode& child, Inode& new_dir,
                                       std::string_view new_name, Inode* replaced, unsigned flags) {
  if ((flags & RENAME_WHITEOUT) != 0) return kEINVAL;
  bool exchange = (flags & RENAME_EXCHANGE) != 0;
  GuestOverlayInode& moved = static_cast<GuestOverlayInode&>(child);
  GuestOverlayInode& to = static_cast<GuestOverlayInode&>(new_dir);
  GuestOverlayInode* gone = static_cast<GuestOverlayInode*>(replaced);
  if (!moved.MayMove() || (exchange && !gone->MayMove())) return kEXDEV;
  if (gone != nullptr && gone->is_dir() && !exchange && !TRY(gone->IsEmptyDirectory(ctx))) return kENOTEMPTY;
  TRY(CopyUp(ctx));
  TRY(to.CopyUp(ctx));
  TRY(moved.CopyUp(ctx));
  if (exchange) TRY(gone->CopyUp(ctx));

  AsMounter mounter(overlay(), ctx);
  const VfsPath& work = overlay().work_;
  VfsPath from_dir = UpperPath(), to_dir = to.UpperPath();
  TRY(moved.PrepareMove(mounter, to));
  if (exchange) TRY(gone->PrepareMove(mounter, *this));
  // Made first: where there is no room for it, nothing has happened yet.
  std::string whiteout;
  if (!exchange && TRY(LowerHas(mounter, old_name))) whiteout = TRY(MakeWhiteout(mounter));

  bool swap_whiteout = false;  // a directory takes a whiteout's place by exchange
  Result<void> renamed = [&]() -> Result<void> {
    MutexLock lock(overlay().copy_up_mutex());
    RefPtr<Dentry> target = TRY(to.UpperChild(mounter, new_name));
    if (target && !exchange) {
      bool is_whiteout = TRY(IsWhiteout(mounter, *target->inode_ptr()));
      swap_whiteout = is_whiteout && moved.is_dir();
      if (!is_whiteout && gone != nullptr && gone->is_dir()) {
        TRY(ClearWhiteouts(mounter, VfsPath(to_dir.mount, target)));
      }
    }
    unsigned how = exchange || swap_whiteout ? RENAME_EXCHANGE : 0;
    TRY(vfs::Rename(mounter, from_dir, old_name, to_dir, new_name, how));
    if (gone != nullptr && !exchange) gone->NameRemoved();
    return {};
  }();
  if (!renamed.ok() || swap_whiteout) {
    // After the exchange a whiteout stands at the old name already.
    if (!whiteout.empty()) {
      (void)vfs::Unlink(mounter, work, whiteout);
    } else if (renamed.ok()) {
      (void)vfs::Unlink(mounter, from_dir, old_name);
    }
    return renamed;
  }
  if (!whiteout.empty()) TRY(vfs::Rename(mounter, work, whiteout, from_dir, old_name, 0));
  return {};
}

}  // namespace moat
