// Copying an object of a lower layer into the upper.
#include "fs/overlay/overlay_inode.h"

namespace moat {

Result<void> OverlayInode::CopyUp(const VfsContext& ctx, uint64_t data_limit) {
  if (upper() != nullptr) return {};
  if (!overlay().upper_fs_) return kEROFS;
  // The guest's limit on file sizes is about its own writes.
  VfsContext unlimited = ctx;
  unlimited.file_size_limit = ~uint64_t{0};
  std::string anchor = overlay().NewAnchorName();
  RefPtr<Inode> copy = TRY(MakeCopy(unlimited, anchor, data_limit));
  bool lost;
  {
    MutexLock lock(mu_);
    lost = upper() != nullptr;
    if (!lost) {
      anchor_ = anchor;
      PublishUpper(copy);
    }
  }
  if (lost) {
    DiscardAnchor(unlimited, anchor, *copy);
    return {};
  }
  overlay().RegisterUpper(*this, copy->ino());
  KeepWhileNamed(unlimited);
  return MoveMappings();
}

void OverlayInode::DiscardAnchor(const VfsContext& ctx, const std::string& anchor, Inode& copy) {
  // A failure leaves a stray name in the work directory, which nobody sees.
  (void)overlay().WithWork(
      [&](Inode& work) { return copy.is_dir() ? work.Rmdir(ctx, anchor, copy) : work.Unlink(ctx, anchor, copy); });
}

Result<RefPtr<Inode>> OverlayInode::MakeCopy(const VfsContext& ctx, const std::string& anchor, uint64_t data_limit) {
  Inode& from = *lowers()[0];
  Kstat st = TRY(from.GetAttr());
  uint32_t mode = st.mode & 07777;
  std::string target;
  if (type() == S_IFLNK) target = TRY(from.Readlink(ctx));
  RefPtr<Inode> copy = TRY(overlay().WithWork([&](Inode& work) -> Result<RefPtr<Inode>> {
    switch (type()) {
      case S_IFREG:
        return work.Create(ctx, anchor, mode);
      case S_IFDIR:
        return work.Mkdir(ctx, anchor, mode);
      case S_IFLNK:
        return work.Symlink(ctx, anchor, target);
      default:
        return work.Mknod(ctx, anchor, type() | mode, st.rdev);
    }
  }));
  Result<void> filled = [&]() -> Result<void> {
    if (type() == S_IFREG) TRY(CopyFileData(ctx, from, *copy, std::min(data_limit, st.size)));
    TRY(CopyXattrs(ctx, from, *copy));
    AttrChange change;
    if (type() != S_IFLNK) change.mode = mode;
    change.uid = st.uid;
    change.gid = st.gid;
    change.atime = st.atime;
    change.mtime = st.mtime;
    return copy->SetAttr(ctx, change);
  }();
  if (!filled.ok()) {
    DiscardAnchor(ctx, anchor, *copy);
    return filled.error();
  }
  return copy;
}

}  // namespace moat
