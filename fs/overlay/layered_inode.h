// LayeredInode: an object in a stack of layers: an upper one, a lower one, or a lower one and its copy in the upper;
// for directories, all that merge. What the sandbox's own overlay (overlay_inode.h) and those that guests mount
// (guest_overlay_inode.h) have in common: opening, mapping, and following an object into its copy.
#ifndef MOAT_FS_OVERLAY_LAYERED_INODE_H_
#define MOAT_FS_OVERLAY_LAYERED_INODE_H_

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/vfs/inode.h"

namespace moat {

class OverlayMappable;

struct LayerEntry {
  std::string name;
  uint64_t ino;
  uint8_t type;  // DT_*
};

class LayeredInode : public Inode {
 public:
  Result<Access> GetAccess() override { return layer().GetAccess(); }
  Result<std::string> Readlink(const VfsContext& ctx) override { return layer().Readlink(ctx); }
  Result<RefPtr<File>> Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) override;
  Result<RefPtr<Mappable>> GetMappable() override;
  // A lower without lists has none; the upper may get one.
  Result<RefPtr<const PosixAcl>> GetAcl(AclKind kind) override;
  Result<void> SetAcl(const VfsContext& ctx, AclKind kind, RefPtr<const PosixAcl> acl) override;
  bool HasDefaultAcl() const override { return layer().HasDefaultAcl(); }

  // The upper object once there is one, else null. It never changes again.
  Inode* upper() const { return upper_raw_.load(std::memory_order_acquire); }
  // Where data and attributes are now.
  Inode& layer() const {
    Inode* u = upper();
    return u != nullptr ? *u : *lowers_[0];
  }
  const std::vector<RefPtr<Inode>>& lowers() const { return lowers_; }
  // Makes the copy in the upper, if there is none; of a regular file the first `data_limit` bytes. kEROFS without an
  // upper. No lock is held while data is copied: of two threads that copy, one throws its copy away.
  virtual Result<void> CopyUp(const VfsContext& ctx, uint64_t data_limit = ~uint64_t{0}) = 0;
  // All names of this directory but "." and "..", each once.
  virtual Result<std::vector<LayerEntry>> MergedNames(const VfsContext& ctx) = 0;

 protected:
  LayeredInode(FileSystem& fs, uint32_t type, uint64_t ino, RefPtr<Inode> upper, std::vector<RefPtr<Inode>> lowers,
               LockRank dir_rank = LockRank::kDirectory);
  ~LayeredInode() override;

  // The copy is there: everybody works on it from now on. Once.
  void PublishUpper(RefPtr<Inode> copy) { upper_raw_.store(copy.Leak(), std::memory_order_release); }
  // Mappings of the lower file show the copy from now on. After PublishUpper, with no lock held.
  Result<void> MoveMappings();

 private:
  friend class OverlayMappable;
  const std::vector<RefPtr<Inode>> lowers_;
  std::atomic<Inode*> upper_raw_{nullptr};  // owned: one reference, given back by the destructor

  Mutex mappable_mu_{LockRank::kOverlayTable};  // mm drops mappables with its own locks held
  OverlayMappable* mappable_ ABSL_GUARDED_BY(mappable_mu_) = nullptr;
};

// A place for an inner inode whose file is opened by the overlay: no mount, a nameless dentry.
VfsPath InnerPath(Inode& inode);

// What one layer's directory lists, without "." and "..".
Result<std::vector<LayerEntry>> ListLayer(const VfsContext& ctx, Inode& dir);

// The first `limit` bytes of a regular file, holes as holes; the copy gets that size.
Result<void> CopyFileData(const VfsContext& ctx, Inode& from, Inode& to, uint64_t limit);
// All extended attributes but those that `skip` names, and the access control lists. What `to` does not store is lost,
// as on Linux.
Result<void> CopyXattrs(const VfsContext& ctx, Inode& from, Inode& to,
                        const std::function<bool(std::string_view)>& skip = {});

}  // namespace moat

#endif  // MOAT_FS_OVERLAY_LAYERED_INODE_H_
