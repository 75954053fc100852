// Making and removing names in a guest's overlay. A name that a lower has is taken away by a whiteout in the upper,
// and what is made where a whiteout stands is made in the work directory and put in its place.
#include <linux/fs.h>
#include <sys/stat.h>

#include "fs/overlay/guest_overlay_inode.h"
#include "fs/vfs/posix_acl.h"

namespace moat {

Result<void> GuestOverlayInode::MarkOpaque(const VfsContext& mounter, const VfsPath& dir) {
  if (overlay().no_xattrs_) return kEIO;
  return vfs::SetXattr(mounter, dir, overlay().XattrName("opaque"), "y", 0);
}

Result<std::string> GuestOverlayInode::MakeWhiteout(const VfsContext& mounter) {
  std::string name = overlay().NewWorkName();
  TRY(vfs::Mknod(mounter, overlay().work_, name, S_IFCHR, DeviceId{0, 0}));
  return name;
}

Result<void> GuestOverlayInode::ClearWhiteouts(const VfsContext& mounter, const VfsPath& dir) {
  Inode& inode = *dir.dentry->inode_ptr();
  std::vector<LayerEntry> entries = TRY(ListLayer(mounter, inode));
  if (entries.empty()) return {};
  // Without its whiteouts the directory must not show what they hid, should it stay after all.
  if (!overlay().no_xattrs_) TRY(MarkOpaque(mounter, dir));
  for (const LayerEntry& e : entries) {
    RefPtr<Dentry> child = TRY(dir.dentry->LookupChild(mounter, e.name));
    if (child->inode_ptr() == nullptr) continue;
    if (!TRY(IsWhiteout(mounter, *child->inode_ptr()))) return kENOTEMPTY;
    TRY(vfs::Unlink(mounter, dir, e.name));
  }
  return {};
}

Result<void> GuestOverlayInode::Inherit(const VfsContext& mounter, const VfsPath& made, uint32_t mode) {
  AttrChange change;
  change.mode = mode & 07777;
  RefPtr<const PosixAcl> acl, inherited = TRY(GetAcl(AclKind::kDefault));
  if (inherited) acl = inherited->ForNewFile(*change.mode);
  TRY(vfs::SetAttr(mounter, made, change));
  Inode& inode = *made.dentry->inode_ptr();
  if (acl) TRY(inode.SetAcl(mounter, AclKind::kAccess, std::move(acl)));
  if (inherited && inode.is_dir()) TRY(inode.SetAcl(mounter, AclKind::kDefault, std::move(inherited)));
  return {};
}

// `make(context, directory, name)` makes an object of `type` in the upper.
template <typename Make>
Result<RefPtr<Inode>> GuestOverlayInode::MakeName(const VfsContext& ctx, std::string_view name, uint32_t type,
                                                  uint32_t mode, NameOf what, Make make) {
  TRY(CopyUp(ctx));
  AsMounter mounter(overlay(), ctx);
  AsMounter owner = TRY(AsOwner(ctx));
  VfsPath dir = UpperPath();
  bool is_dir = type == S_IFDIR;
  RefPtr<Dentry> whiteout = TRY(UpperChild(mounter, name));
  if (!whiteout) {
    TRY(make(owner, dir, name));
  } else {
    const VfsPath& work = overlay().work_;
    std::string made = overlay().NewWorkName();
    TRY(make(owner, work, made));
    Result<void> placed = [&]() -> Result<void> {
      VfsPath place(work.mount, TRY(work.dentry->LookupChild(mounter, made)));
      if (place.dentry->inode_ptr() == nullptr) return kENOENT;
      if (what == NameOf::kNewObject && type != S_IFLNK) TRY(Inherit(mounter, place, mode));
      if (is_dir) TRY(MarkOpaque(mounter, place));
      return vfs::Rename(mounter, work, made, dir, name, is_dir ? RENAME_EXCHANGE : 0);
    }();
    if (!placed.ok()) {
      (void)(is_dir ? vfs::Rmdir(mounter, work, made) : vfs::Unlink(mounter, work, made));
      return placed.error();
    }
    if (is_dir) (void)vfs::Unlink(mounter, work, made);  // the whiteout that stood there
  }
  RefPtr<Dentry> child = TRY(UpperChild(mounter, name));
  if (!child) return kENOENT;  // removed meanwhile, in the upper itself
  // Nothing merges with it now; should a layer get that name one day, it must not either.
  if (is_dir && !whiteout && !lowers().empty()) (void)MarkOpaque(mounter, VfsPath(dir.mount, child));
  return RefPtr<Inode>(overlay().InodeOfUpper(std::move(child), {}));
}

Result<RefPtr<Inode>> GuestOverlayInode::Create(const VfsContext& ctx, std::string_view name, uint32_t mode) {
  return MakeName(ctx, name, S_IFREG, mode, NameOf::kNewObject,
                  [&](const VfsContext& as, const VfsPath& dir, std::string_view at) {
                    return vfs::Mknod(as, dir, at, S_IFREG | (mode & 07777), {});
                  });
}
Result<RefPtr<Inode>> GuestOverlayInode::Mkdir(const VfsContext& ctx, std::string_view name, uint32_t mode) {
  return MakeName(
      ctx, name, S_IFDIR, mode, NameOf::kNewObject,
      [&](const VfsContext& as, const VfsPath& dir, std::string_view at) { return vfs::Mkdir(as, dir, at, mode); });
}
Result<RefPtr<Inode>> GuestOverlayInode::Mknod(const VfsContext& ctx, std::string_view name, uint32_t mode,
                                               DeviceId dev) {
  if (S_ISCHR(mode) && dev == DeviceId{0, 0}) return kEPERM;  // it would hide itself
  return MakeName(ctx, name, mode & S_IFMT, mode, NameOf::kNewObject,
                  [&](const VfsContext& as, const VfsPath& dir, std::string_view at) -> Result<void> {
                    if (!S_ISSOCK(mode)) return vfs::Mknod(as, dir, at, mode & (S_IFMT | 07777), dev);
                    TRY(vfs::MknodSocket(as, dir, at, mode & 07777));
                    return {};
                  });
}
Result<RefPtr<Inode>> GuestOverlayInode::Symlink(const VfsContext& ctx, std::string_view name,
                                                 std::string_view target) {
  return MakeName(
      ctx, name, S_IFLNK, 0777, NameOf::kNewObject,
      [&](const VfsContext& as, const VfsPath& dir, std::string_view at) { return vfs::Symlink(as, target, dir, at); });
}
Result<void> GuestOverlayInode::Link(const VfsContext& ctx, std::string_view name, Inode& target) {
  if (&target.fs() != &fs()) return kEXDEV;
  GuestOverlayInode& inode = static_cast<GuestOverlayInode&>(target);
  TRY(inode.CopyUp(ctx));
  TRY(MakeName(ctx, name, inode.type(), 0, NameOf::kLink,
               [&](const VfsContext& as, const VfsPath& dir, std::string_view at) {
                 return vfs::Link(AsMounter(overlay(), as), inode.UpperPath(), dir, at);
               }));
  return {};
}

Result<RefPtr<Inode>> GuestOverlayInode::CreateTemporary(const VfsContext& ctx, uint32_t mode) {
  TRY(CopyUp(ctx));
  VfsPath dir = UpperPath();
  RefPtr<Inode> made = TRY(upper()->CreateTemporary(TRY(AsOwner(ctx)), mode));
  RefPtr<Dentry> dentry = Dentry::CreateUnlinked(*dir.dentry, std::move(made), "#tmp");
  return RefPtr<Inode>(overlay().InodeOfUpper(std::move(dentry), {}));
}

void GuestOverlayInode::NameRemoved() {
  bool gone = is_dir() || upper() == nullptr;
  if (!gone) {
    Result<Kstat> st = upper()->GetAttr();
    gone = st.ok() && st->nlink == 0;
  }
  if (!gone) return;
  removed_.store(true, std::memory_order_release);
  overlay().Forget(*this);
}

Result<void> GuestOverlayInode::RemoveName(const VfsContext& ctx, std::string_view name, GuestOverlayInode& child) {
  TRY(CopyUp(ctx));
  AsMounter mounter(overlay(), ctx);
  bool below = TRY(LowerHas(mounter, name));
  VfsPath dir = UpperPath();
  // The child's copy must not come to its place after the name is gone.
  MutexLock lock(overlay().copy_up_mutex());
  RefPtr<Dentry> in_upper = TRY(UpperChild(mounter, name));
  if (!in_upper) {
    TRY(vfs::Mknod(mounter, dir, name, S_IFCHR, DeviceId{0, 0}));
  } else if (TRY(IsWhiteout(mounter, *in_upper->inode_ptr()))) {
    return kENOENT;  // put there behind our back
  } else if (!below) {
    if (child.is_dir()) TRY(ClearWhiteouts(mounter, VfsPath(dir.mount, in_upper)));
    TRY(child.is_dir() ? vfs::Rmdir(mounter, dir, name) : vfs::Unlink(mounter, dir, name));
  } else {
    const VfsPath& work = overlay().work_;
    std::string whiteout = TRY(MakeWhiteout(mounter));
    Result<void> swapped = [&]() -> Result<void> {
      if (child.is_dir()) TRY(ClearWhiteouts(mounter, VfsPath(dir.mount, in_upper)));
      return vfs::Rename(mounter, work, whiteout, dir, name, child.is_dir() ? RENAME_EXCHANGE : 0);
    }();
    if (!swapped.ok()) {
      (void)vfs::Unlink(mounter, work, whiteout);
      return swapped;
    }
    if (child.is_dir()) (void)vfs::Rmdir(mounter, work, whiteout);  // the directory, under the whiteout's name
  }
  child.NameRemoved();
  return {};
}

Result<void> GuestOverlayInode::Unlink(const VfsContext& ctx, std::string_view name, Inode& child) {
  return RemoveName(ctx, name, static_cast<GuestOverlayInode&>(child));
}

Result<void> GuestOverlayInode::Rmdir(const VfsContext& ctx, std::string_view name, Inode& child) {
  GuestOverlayInode& dir = static_cast<GuestOverlayInode&>(child);
  if (!TRY(dir.IsEmptyDirectory(ctx))) return kENOTEMPTY;
  return RemoveName(ctx, name, dir);
}

}  // namespace moat
