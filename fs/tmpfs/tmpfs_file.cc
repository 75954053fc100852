#include <fcntl.h>
#include <linux/falloc.h>

#include "fs/tmpfs/tmpfs_inode.h"

#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif

namespace moat {
namespace {

class TmpfsFile final : public File {
 public:
  TmpfsFile(VfsPath path, OpenFlags flags, RefPtr<TmpfsRegular> inode)
      : File(std::move(path), flags), inode_(std::move(inode)) {}

  Result<size_t> PRead(const VfsContext&, IoDest& dst, int64_t offset) override {
    Result<size_t> n = inode_->data().Read(dst, static_cast<uint64_t>(offset));
    if (n.ok()) inode_->TouchAccess(path(), flags());
    return n;
  }
  Result<size_t> PWrite(const VfsContext&, IoSource& src, int64_t offset) override {
    Result<size_t> n = inode_->data().Write(src, static_cast<uint64_t>(offset));
    if (n.ok() && *n != 0) inode_->TouchData();
    return n;
  }
  Result<int64_t> Seek(const VfsContext&, int64_t offset, int whence) override {
    if (whence == SEEK_DATA || whence == SEEK_HOLE) {
      if (offset < 0) return kENXIO;
      uint64_t at = static_cast<uint64_t>(offset);
      at = whence == SEEK_DATA ? TRY(inode_->data().SeekData(at)) : TRY(inode_->data().SeekHole(at));
      return SeekWithin(static_cast<int64_t>(at), SEEK_SET, 0);
    }
    return SeekWithin(offset, whence, inode_->data().size());
  }
  Result<void> Allocate(const VfsContext& ctx, int mode, int64_t offset, int64_t length) override {
    int64_t end;
    if (offset < 0 || length <= 0) return kEINVAL;
    if (__builtin_add_overflow(offset, length, &end)) return kEFBIG;
    bool grows = (mode & FALLOC_FL_KEEP_SIZE) == 0;
    if (grows && static_cast<uint64_t>(end) > std::max(ctx.file_size_limit, inode_->data().size())) return kEFBIG;
    TRY(inode_->data().Allocate(mode, static_cast<uint64_t>(offset), static_cast<uint64_t>(length)));
    inode_->TouchData();
    return {};
  }
  Result<void> Sync(bool) override { return {}; }
  Result<RefPtr<Mappable>> GetMappable() override { return inode_->GetMappable(); }

 private:
  const RefPtr<TmpfsRegular> inode_;
};

}  // namespace

TmpfsRegular::TmpfsRegular(TmpfsFs& fs, const New& n, uint32_t seals, bool temporary)
    : TmpfsInode(fs, n),
      data_(MakeRef<PagedData>(fs.memory(), fs.quota(), Mappable::Identity{fs.device().major, fs.device().minor, ino()},
                               seals)),
      temporary_(temporary) {}

bool TmpfsRegular::ExecSealed() const { return (data_->seals() & F_SEAL_EXEC) != 0; }

Result<RefPtr<File>> TmpfsRegular::Open(const VfsContext&, const VfsPath& path, OpenFlags flags) {
  return RefPtr<File>(MakeRef<TmpfsFile>(path, flags, RefPtr<TmpfsRegular>(this)));
}

}  // namespace moat
