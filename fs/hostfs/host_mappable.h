// HostMappable: a regular host file as mm maps it: on the donated descriptor, sharing the host's page cache.
// At most one at a time per inode; keeps the inode, and with it the descriptors, alive. Thread-safe.
#ifndef MOAT_FS_HOSTFS_HOST_MAPPABLE_H_
#define MOAT_FS_HOSTFS_HOST_MAPPABLE_H_

#include "fs/hostfs/host_inode.h"
#include "platform/memory/mappable.h"

namespace moat {

class HostMappable final : public Mappable {
 public:
  explicit HostMappable(RefPtr<HostInode> inode) : fs_(&inode->fs()), inode_(std::move(inode)) {}

  Result<HostPages> Translate(uint64_t offset, uint64_t length, bool write) override;
  // Nothing needs to be withdrawn: a truncation on the host takes the pages out of every mapping by itself.
  Result<void> AddMapping(MappingSpace& space, GuestAddr start, GuestAddr end, uint64_t offset,
                          bool shared_writable) override;
  void RemoveMapping(MappingSpace& space, GuestAddr start, GuestAddr end, uint64_t offset,
                     bool shared_writable) override;
  RefPtr<RefCounted> Derived(absl::FunctionRef<RefPtr<RefCounted>()> make) override;
  Identity identity() const override;
  Result<void> Sync(uint64_t offset, uint64_t length) override;

 private:
  ~HostMappable() override;
  // A mapping may be the last that is left of an unmounted file system. Destroyed after the inode.
  const RefPtr<FileSystem> fs_;
  const RefPtr<HostInode> inode_;
};

}  // namespace moat

#endif  // MOAT_FS_HOSTFS_HOST_MAPPABLE_H_
