#include "fs/overlay/overlay_file.h"

#include <fcntl.h>
#include <unistd.h>

namespace moat {

Result<RefPtr<File>> OverlayFile::Inner(const VfsContext& ctx) {
  Inode& now = inode_->layer();
  {
    MutexLock lock(mu_);
    if (inner_inode_ == &now) return inner_;
  }
  // The offset, O_APPEND and what happened while opening are this description's business.
  OpenFlags flags{open_flags_ & (O_ACCMODE | O_DIRECT | O_NOATIME | O_SYNC | O_DSYNC | O_LARGEFILE)};
  RefPtr<File> opened = TRY(now.Open(ctx, InnerPath(now), flags));
  RefPtr<File> before;
  MutexLock lock(mu_);
  before = std::exchange(inner_, opened);
  inner_inode_ = &now;
  return opened;
}

Result<void> OverlayFile::OpenInner(const VfsContext& ctx) {
  TRY(Inner(ctx));
  return {};
}

Result<size_t> OverlayFile::PRead(const VfsContext& ctx, IoDest& dst, int64_t offset) {
  return TRY(Inner(ctx))->PRead(ctx, dst, offset);
}

Result<size_t> OverlayFile::PWrite(const VfsContext& ctx, IoSource& src, int64_t offset) {
  return TRY(Inner(ctx))->PWrite(ctx, src, offset);
}

Result<int64_t> OverlayFile::Seek(const VfsContext& ctx, int64_t offset, int whence) {
  if (whence == SEEK_DATA || whence == SEEK_HOLE) {
    int64_t at = TRY(TRY(Inner(ctx))->Seek(ctx, offset, whence));
    return SeekWithin(at, SEEK_SET, 0);
  }
  return SeekWithin(offset, whence, whence == SEEK_END ? TRY(inode_->GetAttr()).size : 0);
}

Result<void> OverlayFile::Allocate(const VfsContext& ctx, int mode, int64_t offset, int64_t length) {
  return TRY(Inner(ctx))->Allocate(ctx, mode, offset, length);
}

Result<void> OverlayFile::Sync(bool data_only) {
  // A lower never changes; a description that still stands there has nothing to sync.
  if (inode_->upper() == nullptr) return {};
  RefPtr<File> inner;
  {
    MutexLock lock(mu_);
    inner = inner_;
  }
  return inner->Sync(data_only);
}

Result<int64_t> OverlayFile::Ioctl(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg) {
  return TRY(Inner(ctx))->Ioctl(ctx, memory, cmd, arg);
}

}  // namespace moat
