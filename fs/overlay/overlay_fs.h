// OverlayFs: a private writable upper layer over read-only lower layers. Source: Documentation/filesystems/
// overlayfs.rst for what programs see.
//
// The upper belongs to this instance alone and ends with it, so what ties the layers together is kept in memory and
// not in the upper: whiteouts, opaque directories, and which upper object is the copy of which lower one. That makes
// some things better than Linux's default: hard links of a lower file stay one file after copy-up, directories of
// the lower can be renamed (Linux: EXDEV), an open description follows its file through the copy-up, inode numbers
// never change.
//
// Where copies are: a copied-up object lives in the upper's "work" directory as "#<number>", its anchor. A file keeps
// it until its last name goes, and gets further names by link; a directory leaves it when it is renamed. So a
// copy-up touches no parent, and no chain of parents is copied before it.
#ifndef MOAT_FS_OVERLAY_OVERLAY_FS_H_
#define MOAT_FS_OVERLAY_OVERLAY_FS_H_

#include <string>
#include <unordered_map>
#include <vector>

#include "fs/vfs/filesystem.h"

namespace moat {

class OverlayInode;

class OverlayFs final : public FileSystem {
 public:
  // `upper`: empty, writable, used by nothing else; null makes the overlay read-only. `lowers`: top to bottom, at least
  // one; nobody may change them meanwhile. Roots are the layers' roots. `cred`: who makes the two directories in
  // `upper`.
  static Result<RefPtr<OverlayFs>> Create(const VfsContext& ctx, RefPtr<FileSystem> upper,
                                          std::vector<RefPtr<FileSystem>> lowers);

  RefPtr<Inode> root() override;
  Result<FsStat> StatFs() override;
  Result<void> SyncAll() override;
  std::string ShowOptions() const override;

 private:
  friend class OverlayInode;
  friend class OverlayDirectory;
  explicit OverlayFs(RefPtr<FileSystem> upper, std::vector<RefPtr<FileSystem>> lowers);
  ~OverlayFs() override;
  void OnLastUnref() override;

  // --- identity ---
  // The overlay's inode of an upper object that no lower object stands behind, or of the lower one that it copies.
  RefPtr<OverlayInode> InodeOfUpper(RefPtr<Inode> upper);
  // ... of lower objects of one name, top to bottom: a file, or directories that merge.
  RefPtr<OverlayInode> InodeOfLower(std::vector<RefPtr<Inode>> lowers);
  // st_ino and d_ino of an object in a layer: a lower object's own number where there is one lower, else with the
  // layer in the upper bits.
  uint64_t UpperIno(uint64_t ino) const { return ino ^ (uint64_t{1} << 62); }
  uint64_t LowerIno(size_t layer, uint64_t ino) const { return ino ^ (static_cast<uint64_t>(layer) << 57); }
  size_t LayerOf(const Inode& lower) const;
  // What readdir says for an entry of the upper: a copy keeps its origin's number.
  uint64_t InoOfUpperEntry(uint64_t upper_ino);

  // --- anchors ---
  // The anchor's name of a new copy.
  std::string NewAnchorName();
  // Runs `op` on the work directory with its name operations serialised.
  template <typename Op>
  auto WithWork(Op op) {
    MutexLock lock(work_mu_);
    return op(*work_);
  }

  // Keeps a copied-up (or otherwise changed) lower-born inode in memory for as long as it has a name.
  void Pin(OverlayInode& inode);
  void Unpin(OverlayInode& inode);
  void RegisterUpper(OverlayInode& inode, uint64_t upper_ino);
  void Drop(OverlayInode& inode);  // by its destructor

  const RefPtr<FileSystem> upper_fs_;  // null: read-only
  const std::vector<RefPtr<FileSystem>> lower_fs_;
  RefPtr<Inode> work_;         // constant after Create
  RefPtr<OverlayInode> root_;  // likewise

  Mutex work_mu_{LockRank::kOverlay};
  std::atomic<uint64_t> next_anchor_{1};

  Mutex table_mu_{LockRank::kOverlayTable};
  std::unordered_map<const Inode*, OverlayInode*> by_lower_ ABSL_GUARDED_BY(table_mu_);
  std::unordered_map<uint64_t, OverlayInode*> by_upper_ ABSL_GUARDED_BY(table_mu_);  // by the upper's inode number
  std::unordered_map<OverlayInode*, RefPtr<OverlayInode>> pins_ ABSL_GUARDED_BY(table_mu_);
};

}  // namespace moat

#endif  // MOAT_FS_OVERLAY_OVERLAY_FS_H_
