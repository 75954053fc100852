#include "fs/vfs/filesystem.h"

#include <array>
#include <bit>

#include "platform/base/log.h"

namespace moat {
namespace {

// Minors of the anonymous block device (major 0), lowest first, as Linux's get_anon_bdev.
class AnonymousDevices {
 public:
  uint32_t Take() {
    MutexLock lock(mu_);
    for (size_t i = first_hint_; i < used_.size(); ++i) {
      if (used_[i] == ~uint64_t{0}) continue;
      int bit = std::countr_one(used_[i]);
      used_[i] |= uint64_t{1} << bit;
      first_hint_ = i;
      return static_cast<uint32_t>(i * 64 + bit);
    }
    used_.push_back(1);
    first_hint_ = used_.size() - 1;
    return static_cast<uint32_t>(first_hint_ * 64);
  }
  void Give(uint32_t minor) {
    MutexLock lock(mu_);
    size_t i = minor / 64;
    used_[i] &= ~(uint64_t{1} << (minor % 64));
    if (i < first_hint_) first_hint_ = i;
  }

 private:
  Mutex mu_{LockRank::kLeaf};
  std::vector<uint64_t> used_ ABSL_GUARDED_BY(mu_) = {1};  // minor 0 is never given out
  size_t first_hint_ ABSL_GUARDED_BY(mu_) = 0;
};

AnonymousDevices& Devices() {
  static AnonymousDevices* d = new AnonymousDevices;
  return *d;
}

}  // namespace

FileSystem::FileSystem(std::string_view type_name, LockRank rename_rank)
    : type_name_(type_name), device_{0, Devices().Take()}, rename_mu_(rename_rank) {}

FileSystem::~FileSystem() { Devices().Give(device_.minor); }

RefPtr<Dentry> FileSystem::root_dentry() {
  {
    MutexLock lock(root_mu_);
    if (root_dentry_) return root_dentry_;
  }
  RefPtr<Dentry> made = Dentry::CreateRoot(root());
  MutexLock lock(root_mu_);
  if (!root_dentry_) root_dentry_ = made;
  return root_dentry_;
}

void FileSystem::OnLastUnref() {
  RefPtr<Dentry> root;
  {
    MutexLock lock(root_mu_);
    root = std::move(root_dentry_);
  }
  if (root) root->InvalidateChildren();
  root.reset();
  delete this;
}

}  // namespace moat
