// OverlayDirectory: an open directory of an overlay. The merged listing is made when reading starts, and again after a
// rewind; positions count its entries, so they stay right while names come and go (readdir(3)).
#ifndef MOAT_FS_OVERLAY_OVERLAY_DIRECTORY_H_
#define MOAT_FS_OVERLAY_OVERLAY_DIRECTORY_H_

#include <memory>
#include <string>
#include <vector>

#include "fs/overlay/layered_inode.h"
#include "fs/vfs/file.h"

namespace moat {

class OverlayDirectory final : public File {
 public:
  OverlayDirectory(RefPtr<LayeredInode> inode, const VfsPath& path, OpenFlags flags)
      : File(path, flags), inode_(std::move(inode)) {}

  Result<void> ReadDir(const VfsContext& ctx, DirEntrySink& sink) override;
  Result<int64_t> Seek(const VfsContext& ctx, int64_t offset, int whence) override;
  Result<void> Sync(bool) override { return {}; }
  Result<size_t> PRead(const VfsContext&, IoDest&, int64_t) override { return kEISDIR; }
  Result<Kstat> GetAttr() override { return inode_->GetAttr(); }

 private:
  using Listing = std::vector<LayerEntry>;
  const RefPtr<LayeredInode> inode_;
  Mutex mu_{LockRank::kOverlayTable};
  std::shared_ptr<const Listing> listing_ ABSL_GUARDED_BY(mu_);
};

}  // namespace moat

#endif  // MOAT_FS_OVERLAY_OVERLAY_DIRECTORY_H_
