#include "fs/vfs/dentry_lru.h"

namespace moat {

DentryLru& DentryLru::Get() {
  static DentryLru* lru = new DentryLru;
  return *lru;
}

void DentryLru::Add(Dentry* d) {
  MutexLock lock(mu_);
  d->lru_prev_ = tail_;
  d->lru_next_ = nullptr;
  (tail_ != nullptr ? tail_->lru_next_ : head_) = d;
  tail_ = d;
  size_.fetch_add(1, std::memory_order_relaxed);
}

void DentryLru::Remove(Dentry* d) {
  MutexLock lock(mu_);
  (d->lru_prev_ != nullptr ? d->lru_prev_->lru_next_ : head_) = d->lru_next_;
  (d->lru_next_ != nullptr ? d->lru_next_->lru_prev_ : tail_) = d->lru_prev_;
  d->lru_prev_ = d->lru_next_ = nullptr;
  size_.fetch_sub(1, std::memory_order_relaxed);
}

void DentryLru::Shrink() {
  if (size() <= limit_.load(std::memory_order_relaxed)) return;
  constexpr int kBatch = 32;
  constexpr int kScan = 128;
  RefPtr<Dentry> victims[kBatch];
  int n = 0;
  {
    MutexLock lock(mu_);
    for (int i = 0; i < kScan && n < kBatch && head_ != nullptr && head_ != tail_; ++i) {
      Dentry* d = head_;
      head_ = d->lru_next_;
      head_->lru_prev_ = nullptr;
      d->lru_prev_ = tail_;
      d->lru_next_ = nullptr;
      tail_->lru_next_ = d;
      tail_ = d;
      // In use, or used since the hand came by: it gets another round.
      if (d->recently_used_.exchange(false, std::memory_order_relaxed) || d->RefCountForTesting() != 1) continue;
      if (d->TryAddRef()) victims[n++] = AdoptRef(d);
    }
  }
  for (int i = 0; i < n; ++i) Dentry::TryEvict(std::move(victims[i]));
}

}  // namespace moat
