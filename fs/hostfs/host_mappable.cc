#include "fs/hostfs/host_mappable.h"

namespace moat {

HostMappable::~HostMappable() {
  MutexLock lock(inode_->mappable_mu_);
  if (inode_->mappable_ == this) inode_->mappable_ = nullptr;
}

Result<HostPages> HostMappable::Translate(uint64_t offset, uint64_t length, bool write) {
  uint64_t size = TRY(inode_->Size());
  if (offset >= size) return kENXIO;
  uint64_t end;
  if (__builtin_add_overflow(offset, length, &end)) end = ~uint64_t{0};
  // The last page is the host's to zero past the end of the file.
  end = std::min(end, PageCeil(size));
  HostPages pages;
  pages.fd = TRY(inode_->HostFd(write));
  pages.range = {offset, end};
  pages.writable = inode_->CachedHostFd(true) == pages.fd;
  return pages;
}

Result<void> HostMappable::AddMapping(MappingSpace&, GuestAddr, GuestAddr, uint64_t, bool shared_writable) {
  if (shared_writable) inode_->MappedWritable(1);
  return {};
}

void HostMappable::RemoveMapping(MappingSpace&, GuestAddr, GuestAddr, uint64_t, bool shared_writable) {
  if (shared_writable) inode_->MappedWritable(-1);
}

RefPtr<RefCounted> HostMappable::Derived(absl::FunctionRef<RefPtr<RefCounted>()> make) {
  return inode_->DerivedFromBytes(make);
}

Mappable::Identity HostMappable::identity() const {
  DeviceId dev = inode_->fs().device();
  return {dev.major, dev.minor, inode_->ino()};
}

Result<void> HostMappable::Sync(uint64_t, uint64_t) {
  if (inode_->host_fs().read_only_mount()) return {};
  return inode_->host_fs().client().Sync(inode_->handle(), GoferClient::SyncKind::kData);
}

}  // namespace moat
