#include "platform/fiber/wait_queue.h"

#include <sys/epoll.h>

#include "platform/base/log.h"

namespace moat {

namespace {
// Notify looks at the head without the lock.
void Set(Waiter*& head, Waiter* w) { __atomic_store_n(&head, w, __ATOMIC_RELAXED); }
}  // namespace

WaitQueue::~WaitQueue() { MOAT_CHECK(head_ == nullptr); }

void WaitQueue::Add(Waiter& w, bool exclusive) {
  MutexLock lock(mu_);
  w.exclusive_ = exclusive;
  w.prev_ = tail_;
  w.next_ = nullptr;
  if (tail_ != nullptr) {
    tail_->next_ = &w;
  } else {
    Set(head_, &w);
  }
  tail_ = &w;
}

void WaitQueue::Remove(Waiter& w) {
  MutexLock lock(mu_);
  if (w.prev_ != nullptr) {
    w.prev_->next_ = w.next_;
  } else {
    Set(head_, w.next_);
  }
  (w.next_ != nullptr ? w.next_->prev_ : tail_) = w.prev_;
  w.prev_ = w.next_ = nullptr;
}

void WaitQueue::Notify(EventMask events) {
  // Publishes the caller's state change before the look at the list, so that a waiter which registers
  // concurrently either is seen here or sees the change when it polls after registering.
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (__atomic_load_n(&head_, __ATOMIC_RELAXED) == nullptr) return;
  MutexLock lock(mu_);
  bool exclusive_done = false;
  for (Waiter* w = head_; w != nullptr; w = w->next_) {
    EventMask ready = events & (w->mask_ | EPOLLERR | EPOLLHUP);
    if (ready == 0 || (w->exclusive_ && exclusive_done)) continue;
    bool took = w->OnEvent(ready);
    if (w->exclusive_ && took) exclusive_done = true;
  }
}

}  // namespace moat
