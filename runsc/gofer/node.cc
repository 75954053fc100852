#include "runsc/gofer/node.h"

namespace moat::gofer {
namespace {

// A handle is generation << 32 | index + 1.
Handle MakeHandle(uint32_t index, uint32_t generation) { return (Handle{generation} << 32) | (index + 1); }
uint32_t IndexOf(Handle h) { return static_cast<uint32_t>(h) - 1; }
uint32_t GenerationOf(Handle h) { return static_cast<uint32_t>(h >> 32); }

}  // namespace

Handle NodeTable::Insert(RefPtr<Node> node) {
  MutexLock lock(mu_);
  uint32_t index;
  if (!free_.empty()) {
    index = free_.back();
    free_.pop_back();
  } else {
    if (slots_.size() >= kMaxNodes) return 0;
    index = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  }
  slots_[index].node = std::move(node);
  return MakeHandle(index, slots_[index].generation);
}

Result<RefPtr<Node>> NodeTable::Get(Handle handle) const {
  MutexLock lock(mu_);
  uint32_t index = IndexOf(handle);
  if (index >= slots_.size()) return kEBADF;
  const Slot& slot = slots_[index];
  if (!slot.node || slot.generation != GenerationOf(handle)) return kEBADF;
  return slot.node;
}

Result<void> NodeTable::Remove(Handle handle) {
  RefPtr<Node> last;  // closed after the lock is gone
  MutexLock lock(mu_);
  uint32_t index = IndexOf(handle);
  if (index >= slots_.size()) return kEBADF;
  Slot& slot = slots_[index];
  if (!slot.node || slot.generation != GenerationOf(handle)) return kEBADF;
  last = std::move(slot.node);
  ++slot.generation;
  free_.push_back(index);
  return {};
}

size_t NodeTable::size() const {
  MutexLock lock(mu_);
  return slots_.size() - free_.size();
}

}  // namespace moat::gofer
