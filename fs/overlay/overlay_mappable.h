// OverlayMappable: an overlay file as mm maps it: the layer's own mappable, exchanged at copy-up. Mappings that were
// made before show the copy afterwards. At most one at a time per inode. Thread-safe. Lock: kOverlayMappable.
#ifndef MOAT_FS_OVERLAY_OVERLAY_MAPPABLE_H_
#define MOAT_FS_OVERLAY_OVERLAY_MAPPABLE_H_

#include <compare>
#include <set>

#include "fs/overlay/layered_inode.h"
#include "fs/vfs/filesystem.h"
#include "platform/memory/mappable.h"

namespace moat {

class OverlayMappable final : public Mappable {
 public:
  OverlayMappable(RefPtr<LayeredInode> inode, RefPtr<Mappable> current)
      : fs_(&inode->fs()), inode_(std::move(inode)), current_(std::move(current)) {}

  Result<HostPages> Translate(uint64_t offset, uint64_t length, bool write) override;
  Result<void> AddMapping(MappingSpace& space, GuestAddr start, GuestAddr end, uint64_t offset,
                          bool shared_writable) override;
  void RemoveMapping(MappingSpace& space, GuestAddr start, GuestAddr end, uint64_t offset,
                     bool shared_writable) override;
  bool notes_stores() const override { return true; }  // the upper's does; a lower is not stored to
  RefPtr<RefCounted> Derived(absl::FunctionRef<RefPtr<RefCounted>()> make) override;
  Identity identity() const override;
  Result<void> Sync(uint64_t offset, uint64_t length) override;

  // Moves all mappings over to `next` and takes the pages of the present one away. Nothing to do when it is the same.
  void SwitchTo(RefPtr<Mappable> next);

 private:
  ~OverlayMappable() override;
  RefPtr<Mappable> Current();

  struct Mapping {
    MappingSpace* space;
    GuestAddr start, end;
    uint64_t offset;
    bool shared_writable;
    auto operator<=>(const Mapping&) const = default;
  };
  // A mapping may be the last that is left of an unmounted file system. Destroyed after the inode.
  const RefPtr<FileSystem> fs_;
  const RefPtr<LayeredInode> inode_;
  Mutex mu_{LockRank::kOverlayMappable};
  RefPtr<Mappable> current_ ABSL_GUARDED_BY(mu_);
  // Keeps the descriptors of an answer that mm got just before the switch.
  RefPtr<Mappable> previous_ ABSL_GUARDED_BY(mu_);
  std::multiset<Mapping> mappings_ ABSL_GUARDED_BY(mu_);
};

}  // namespace moat

#endif  // MOAT_FS_OVERLAY_OVERLAY_MAPPABLE_H_
