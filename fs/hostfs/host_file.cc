#include "fs/hostfs/host_file.h"

#include <fcntl.h>
#include <sys/uio.h>

#include "fs/hostfs/host_io.h"

namespace moat {
namespace {

// RLIMIT_FSIZE and the largest file offset: shortens `src` to what may be written at `offset`.
Result<void> LimitWrite(const VfsContext& ctx, IoSource& src, uint64_t offset) {
  uint64_t limit = std::min<uint64_t>(ctx.file_size_limit, INT64_MAX);
  if (src.remaining() == 0) return {};
  if (offset >= limit) return kEFBIG;
  src.Truncate(limit - offset);
  return {};
}

}  // namespace

Result<size_t> HostRegularFile::PRead(const VfsContext&, IoDest& dst, int64_t offset) {
  return HostRead(TRY(inode_->HostFd(false)), dst, offset, 0);
}

Result<size_t> HostRegularFile::PWrite(const VfsContext& ctx, IoSource& src, int64_t offset) {
  uint64_t end;
  // pwrite(2), "BUGS": O_APPEND wins over the offset.
  if ((flags() & O_APPEND) != 0) return Append(ctx, src, end);
  TRY(LimitWrite(ctx, src, static_cast<uint64_t>(offset)));
  if (src.remaining() == 0) return size_t{0};
  size_t n = TRY(HostWrite(TRY(inode_->HostFd(true)), src, offset, 0));
  inode_->Wrote(static_cast<uint64_t>(offset), n);
  return n;
}

Result<size_t> HostRegularFile::Append(const VfsContext& ctx, IoSource& src, uint64_t& end) {
  end = TRY(inode_->Size());
  TRY(LimitWrite(ctx, src, end));
  if (src.remaining() == 0) return size_t{0};
  size_t n = TRY(HostWrite(TRY(inode_->HostFd(true)), src, 0, RWF_APPEND));
  end = TRY(inode_->Appended(n));
  return n;
}

Result<size_t> HostRegularFile::Write(const VfsContext& ctx, IoSource& src) {
  if ((flags() & O_APPEND) == 0) return File::Write(ctx, src);
  uint64_t end;
  size_t n = TRY(Append(ctx, src, end));
  if (n != 0) set_offset(static_cast<int64_t>(end));
  return n;
}

Result<int64_t> HostRegularFile::Seek(const VfsContext&, int64_t offset, int whence) {
  if (whence == SEEK_DATA || whence == SEEK_HOLE) {
    if (offset < 0) return kENXIO;
    int64_t at = TRY(inode_->host_fs().client().Seek(inode_->handle(), offset, whence));
    return SeekWithin(at, SEEK_SET, 0);
  }
  return SeekWithin(offset, whence, whence == SEEK_END ? TRY(inode_->Size()) : 0);
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
  return inode_->host_fs().client().Sync(inode_->handle(), data_only ? GoferClient::SyncKind::kData
                                                                     : GoferClient::SyncKind::kFile);
}

}  // namespace moat
