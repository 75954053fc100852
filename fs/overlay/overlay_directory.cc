#include "fs/overlay/overlay_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include "fs/vfs/dentry.h"

namespace moat {
Result<void> OverlayDirectory::ReadDir(const VfsContext& ctx, DirEntrySink& sink) {
  std::shared_ptr<const Listing> listing;
  uint64_t at = static_cast<uint64_t>(offset());
  {
    MutexLock lock(mu_);
    if (at != 0) listing = listing_;
  }
  if (!listing) {
    listing = std::make_shared<const Listing>(TRY(inode_->MergedNames(ctx)));
    MutexLock lock(mu_);
    listing_ = listing;
  }
  // Position n is before entry n: "." is 0, ".." is 1.
  for (; at < listing->size() + 2; ++at) {
    bool room;
    int64_t next = static_cast<int64_t>(at + 1);
    if (at == 0) {
      room = sink.Add(".", inode_->ino(), DT_DIR, next);
    } else if (at == 1) {
      RefPtr<Dentry> parent = path().dentry ? path().dentry->parent() : nullptr;
      RefPtr<Inode> up = parent ? parent->inode() : nullptr;
      room = sink.Add("..", up ? up->ino() : inode_->ino(), DT_DIR, next);
    } else {
      const LayerEntry& e = (*listing)[at - 2];
      room = sink.Add(e.name, e.ino, e.type, next);
    }
    if (!room) return {};
    set_offset(next);
  }
  return {};
}

Result<int64_t> OverlayDirectory::Seek(const VfsContext&, int64_t offset, int whence) {
  if (whence == SEEK_CUR) {
    if (__builtin_add_overflow(offset, this->offset(), &offset)) return kEOVERFLOW;
  } else if (whence != SEEK_SET) {
    return kEINVAL;
  }
  if (offset < 0) return kEINVAL;
  set_offset(offset);
  return offset;
}

}  // namespace moat
