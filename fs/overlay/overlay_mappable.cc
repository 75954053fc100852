#include "fs/overlay/overlay_mappable.h"

namespace moat {

OverlayMappable::~OverlayMappable() {
  MutexLock lock(inode_->mappable_mu_);
  if (inode_->mappable_ == this) inode_->mappable_ = nullptr;
}

RefPtr<Mappable> OverlayMappable::Current() {
  MutexLock lock(mu_);
  return current_;
}

Result<HostPages> OverlayMappable::Translate(uint64_t offset, uint64_t length, bool write) {
  // The layer's descriptors live as long as the inode, which this object keeps.
  return Current()->Translate(offset, length, write);
}

Result<void> OverlayMappable::AddMapping(MappingSpace& space, GuestAddr start, GuestAddr end, uint64_t offset,
                                         bool shared_writable) {
  MutexLock lock(mu_);
  TRY(current_->AddMapping(space, start, end, offset, shared_writable));
  mappings_.insert({&space, start, end, offset, shared_writable});
  return {};
}

void OverlayMappable::RemoveMapping(MappingSpace& space, GuestAddr start, GuestAddr end, uint64_t offset,
                                    bool shared_writable) {
  MutexLock lock(mu_);
  auto it = mappings_.find({&space, start, end, offset, shared_writable});
  if (it != mappings_.end()) mappings_.erase(it);
  current_->RemoveMapping(space, start, end, offset, shared_writable);
}

RefPtr<RefCounted> OverlayMappable::Derived(absl::FunctionRef<RefPtr<RefCounted>()> make) {
  return Current()->Derived(make);
}

Mappable::Identity OverlayMappable::identity() const {
  DeviceId dev = inode_->fs().device();
  return {dev.major, dev.minor, inode_->ino()};
}

Result<void> OverlayMappable::Sync(uint64_t offset, uint64_t length) { return Current()->Sync(offset, length); }

void OverlayMappable::SwitchTo(RefPtr<Mappable> next) {
  MutexLock lock(mu_);
  if (current_ == next.get()) return;
  // It happens once: an upper object stays.
  previous_ = std::move(current_);
  current_ = std::move(next);
  for (const Mapping& m : mappings_) {
    // The new layer is writable and private: it has no reason to refuse.
    (void)current_->AddMapping(*m.space, m.start, m.end, m.offset, m.shared_writable);
    previous_->RemoveMapping(*m.space, m.start, m.end, m.offset, m.shared_writable);
    m.space->InvalidateMapping(m.start, m.end);
  }
}

}  // namespace moat
