// DentryLru: which cached dentries to give up when there are too many. A clock: a lookup only sets a dentry's
// used bit, so hits touch no shared list. Thread-safe; its lock is a leaf.
#ifndef MOAT_FS_VFS_DENTRY_LRU_H_
#define MOAT_FS_VFS_DENTRY_LRU_H_

#include <cstddef>

#include "fs/vfs/dentry.h"

namespace moat {

class DentryLru {
 public:
  static DentryLru& Get();
  void Add(Dentry* d);
  void Remove(Dentry* d);
  // Evicts a few unused dentries when the bound is passed. No dentry lock may be held.
  void Shrink();
  void SetLimit(size_t limit) { limit_.store(limit, std::memory_order_relaxed); }
  size_t size() const { return size_.load(std::memory_order_relaxed); }
  static constexpr size_t kDefaultLimit = 100'000;

 private:
  Mutex mu_{LockRank::kLeaf};
  Dentry* head_ ABSL_GUARDED_BY(mu_) = nullptr;  // oldest
  Dentry* tail_ ABSL_GUARDED_BY(mu_) = nullptr;
  std::atomic<size_t> size_{0};
  std::atomic<size_t> limit_{kDefaultLimit};
};

}  // namespace moat

#endif  // MOAT_FS_VFS_DENTRY_LRU_H_
