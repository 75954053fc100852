// Copying an object of a lower layer of a guest's overlay into the upper: made in the work directory, then moved to
// where its name stands, below copies of its parents.
#include <sys/stat.h>

#include "fs/overlay/guest_overlay_inode.h"

namespace moat {

Result<void> GuestOverlayInode::CopyUp(const VfsContext& ctx, uint64_t data_limit) {
  if (upper() != nullptr) return {};
  if (!overlay().has_upper()) return kEROFS;
  // The topmost parent first; the root has an upper.
  std::vector<RefPtr<GuestOverlayInode>> parents;
  for (RefPtr<GuestOverlayInode> p = parent_; p->upper() == nullptr; p = p->parent_) parents.push_back(p);
  while (!parents.empty()) {
    TRY(parents.back()->CopyUpThis(ctx, 0));
    parents.pop_back();
  }
  return CopyUpThis(ctx, data_limit);
}

Result<void> GuestOverlayInode::CopyUpThis(const VfsContext& ctx, uint64_t data_limit) {
  AsMounter mounter(overlay(), ctx);
  std::string work_name = overlay().NewWorkName();
  RefPtr<Dentry> copy = TRY(MakeCopy(mounter, work_name, data_limit));
  Result<void> placed = PlaceCopy(mounter, work_name, copy);
  if (!placed.ok()) {
    // kEALREADY: another thread's copy was faster. A failure leaves a stray name in the work directory.
    const VfsPath& work = overlay().work_;
    (void)(is_dir() ? vfs::Rmdir(mounter, work, work_name) : vfs::Unlink(mounter, work, work_name));
    return placed.error() == kEALREADY ? Result<void>() : placed;
  }
  return MoveMappings();
}

Result<RefPtr<Dentry>> GuestOverlayInode::MakeCopy(const VfsContext& mounter, const std::string& name,
                                                   uint64_t data_limit) {
  Inode& from = *lowers()[0];
  Kstat st = TRY(from.GetAttr());
  const VfsPath& work = overlay().work_;
  // Ids that the upper cannot store must not become somebody else's.
  UserNamespace* ns = overlay().upper_.mount->fs().user_ns();
  if (ns != nullptr && !ns->HasMapping(st.uid, st.gid)) return kEOVERFLOW;
  switch (type()) {
    case S_IFREG:
      TRY(vfs::Mknod(mounter, work, name, S_IFREG | (st.mode & 0777), {}));
      break;
    case S_IFDIR:
      TRY(vfs::Mkdir(mounter, work, name, st.mode & 0777));
      break;
    case S_IFLNK:
      TRY(vfs::Symlink(mounter, TRY(from.Readlink(mounter)), work, name));
      break;
    default:
      TRY(vfs::Mknod(mounter, work, name, type() | (st.mode & 0777), st.rdev));
  }
  RefPtr<Dentry> copy = TRY(work.dentry->LookupChild(mounter, name));
  Inode* to = copy->inode_ptr();
  if (to == nullptr || to->type() != type()) return kEIO;  // somebody else was in the work directory
  Result<void> filled = [&]() -> Result<void> {
    if (type() == S_IFREG) TRY(CopyFileData(mounter, from, *to, std::min(data_limit, st.size)));
    const std::string& prefix = overlay().xattr_prefix_;
    TRY(CopyXattrs(mounter, from, *to, [&](std::string_view attr) {
      return attr.starts_with(prefix) && !attr.substr(prefix.size()).starts_with("overlay.");
    }));
    AttrChange change;
    if (type() != S_IFLNK) change.mode = st.mode & 07777;
    change.uid = st.uid;
    change.gid = st.gid;
    change.atime = st.atime;
    change.mtime = st.mtime;
    return vfs::SetAttr(mounter, VfsPath(work.mount, copy), change);
  }();
  if (!filled.ok()) {
    (void)(is_dir() ? vfs::Rmdir(mounter, work, name) : vfs::Unlink(mounter, work, name));
    return filled.error();
  }
  return copy;
}

Result<void> GuestOverlayInode::PlaceCopy(const VfsContext& mounter, const std::string& work_name,
                                          RefPtr<Dentry> copy) {
  MutexLock lock(overlay().copy_up_mutex());
  if (upper() != nullptr) return kEALREADY;
  if (removed()) {
    // Only descriptors lead here any more: the copy is nameless, too.
    TRY(vfs::Unlink(mounter, overlay().work_, work_name));
  } else {
    VfsPath parent = parent_->UpperPath();
    Kstat before = TRY(parent_->upper()->GetAttr());
    TRY(vfs::Rename(mounter, overlay().work_, work_name, parent, name_, 0));
    // The guest's directory did not change.
    AttrChange times;
    times.atime = before.atime;
    times.mtime = before.mtime;
    (void)vfs::SetAttr(mounter, parent, times);
  }
  RefPtr<Inode> inode = copy->inode();
  {
    MutexLock dentry_lock(mu_);
    upper_dentry_ = std::move(copy);
  }
  PublishUpper(inode);
  overlay().MoveToUpper(*this, *inode);
  return {};
}

}  // namespace moat
