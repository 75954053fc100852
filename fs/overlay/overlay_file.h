// OverlayFile: an open regular file of an overlay. It works on a description of the layer where the data is, and moves
// to the copy when there is one, also when it was opened before. Thread-safe.
#ifndef MOAT_FS_OVERLAY_OVERLAY_FILE_H_
#define MOAT_FS_OVERLAY_OVERLAY_FILE_H_

#include "fs/overlay/layered_inode.h"
#include "fs/vfs/file.h"

namespace moat {

class OverlayFile final : public File {
 public:
  OverlayFile(RefPtr<LayeredInode> inode, const VfsPath& path, OpenFlags flags)
      : File(path, flags), inode_(std::move(inode)), open_flags_(flags.flags) {}

  // Opens the layer's file; once, before anything else.
  Result<void> OpenInner(const VfsContext& ctx);

  Result<size_t> PRead(const VfsContext& ctx, IoDest& dst, int64_t offset) override;
  Result<size_t> PWrite(const VfsContext& ctx, IoSource& src, int64_t offset) override;
  Result<int64_t> Seek(const VfsContext& ctx, int64_t offset, int whence) override;
  Result<void> Allocate(const VfsContext& ctx, int mode, int64_t offset, int64_t length) override;
  Result<void> Sync(bool data_only) override;
  Result<int64_t> Ioctl(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg) override;
  Result<RefPtr<Mappable>> GetMappable() override { return inode_->GetMappable(); }
  Result<Kstat> GetAttr() override { return inode_->GetAttr(); }

 private:
  Result<RefPtr<File>> Inner(const VfsContext& ctx);

  const RefPtr<LayeredInode> inode_;
  const int open_flags_;
  Mutex mu_{LockRank::kOverlayTable};
  RefPtr<File> inner_ ABSL_GUARDED_BY(mu_);
  const Inode* inner_inode_ ABSL_GUARDED_BY(mu_) = nullptr;
};

}  // namespace moat

#endif  // MOAT_FS_OVERLAY_OVERLAY_FILE_H_
