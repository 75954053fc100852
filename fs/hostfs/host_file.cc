#include "fs/hostfs/host_file.h"

#include <fcntl.h>
#include <sys/uio.h>

#include "fs/hostfs/host_io.h"
#include "fs/vfs/permissions.h"

namespace moat {
Result<size_t> HostRegularFile::PRead(const VfsContext&, IoDest& dst, int64_t offset) {
  return HostRead(TRY(inode_->HostFd(false)), dst, offset, 0);
}

Result<size_t> HostRegularFile::Read(const VfsContext& ctx, IoDest& dst) {
  // As File::Read, but for where the size comes from: fresh attributes would cost a round trip after each write.
  int64_t want = static_cast<int64_t>(dst.remaining());
  if (inode_->host_fs().exclusive()) {
    const auto size = static_cast<int64_t>(TRY(inode_->Size()));
    const int64_t left = size - offset();
    // Every copy of a file ends with such a read. Files without a size (a bind mount of proc's) may have contents.
    if (left <= 0 && size > 0) return size_t{0};
    want = std::min(want, std::max<int64_t>(left, 0));
  }
  int64_t from;
  {
    MutexLock lock(offset_mutex());
    from = offset();
    set_offset(from + want);
  }
  Result<size_t> n = PRead(ctx, dst, from);
  int64_t moved = n.ok() ? static_cast<int64_t>(*n) : 0;
  if (moved != want) {
    MutexLock lock(offset_mutex());
    if (offset() == from + want) set_offset(from + moved);
  }
  return n;
}

Result<size_t> HostRegularFile::PWrite(const VfsContext& ctx, IoSource& src, int64_t offset) {
  uint64_t end;
  // pwrite(2), "BUGS": O_APPEND wins over the offset.
  if ((flags() & O_APPEND) != 0) return Append(ctx, src, end);
  TRY(LimitWrite(ctx, src, offset));
  if (src.remaining() == 0) return size_t{0};
  size_t n = TRY(HostWrite(TRY(inode_->HostFd(true)), src, offset, 0));
  inode_->Wrote(static_cast<uint64_t>(offset), n);
  return n;
}

Result<size_t> HostRegularFile::Append(const VfsContext& ctx, IoSource& src, uint64_t& end) {
  end = TRY(inode_->Size());
  TRY(LimitWrite(ctx, src, static_cast<int64_t>(end)));
  if (src.remaining() == 0) return size_t{0};
  size_t n = TRY(HostWrite(TRY(inode_->HostFd(true)), src, 0, RWF_APPEND));
  end = TRY(inode_->Appended(n));
  return n;
}

Result<size_t> HostRegularFile::Write(const VfsContext& ctx, IoSource& src) {
  if ((flags() & O_APPEND) == 0) return File::Write(ctx, src);
  TRY(RemovePrivileges(ctx, *inode_));
  uint64_t end;
  size_t n = TRY(Append(ctx, src, end));
  if (n != 0) set_offset(static_cast<int64_t>(end));
  return n;
}

Result<int64_t> HostRegularFile::Seek(const VfsContext& ctx, int64_t offset, int whence) {
  if (whence == SEEK_DATA || whence == SEEK_HOLE) {
    return SeekWithin(TRY(FindExtent(ctx, offset, whence)), SEEK_SET, 0);
  }
  return SeekWithin(offset, whence, whence == SEEK_END ? TRY(inode_->Size()) : 0);
}

Result<int64_t> HostRegularFile::FindExtent(const VfsContext&, int64_t offset, int whence) {
  if (offset < 0) return kENXIO;
  return inode_->host_fs().client().Seek(inode_->handle(), offset, whence);
}

Result<void> HostRegularFile::Allocate(const VfsContext& ctx, int mode, int64_t offset, int64_t length) {
  if (inode_->host_fs().read_only_mount()) return kEROFS;
  int64_t end;
  if (__builtin_add_overflow(offset, length, &end)) return kEFBIG;
  if ((mode & FALLOC_FL_KEEP_SIZE) == 0 && static_cast<uint64_t>(end) > ctx.file_size_limit) return kEFBIG;
  uint64_t before = inode_->generation();
  gofer::Attr attr = TRY(inode_->host_fs().client().Allocate(inode_->handle(), mode, offset, length));
  inode_->Refresh(inode_->host_fs().ToKstat(attr), before);
  return {};
}

Result<void> HostRegularFile::Sync(bool data_only) {
  if (inode_->host_fs().read_only_mount()) return {};
  return inode_->host_fs().client().Sync(inode_->handle(),
                                         data_only ? GoferClient::SyncKind::kData : GoferClient::SyncKind::kFile);
}

}  // namespace moat
