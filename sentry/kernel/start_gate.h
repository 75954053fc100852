// StartGate: holds a new process before its first instruction: an OCI container is created first and started later.
// Thread-safe. Lock: kWaitQueue.
#ifndef MOAT_SENTRY_KERNEL_START_GATE_H_
#define MOAT_SENTRY_KERNEL_START_GATE_H_

#include <sys/epoll.h>

#include <atomic>

#include "platform/fiber/wait_queue.h"

namespace moat {

class StartGate {
 public:
  void Open() {
    open_.store(true, std::memory_order_release);
    queue_.Notify(EPOLLIN);
  }
  // On the new task's own fiber, before it enters guest code. Who kills a waiting process opens its gate too.
  void Wait(Parker& parker) {
    ParkerWaiter waiter(EPOLLIN, parker);
    queue_.Add(waiter);
    while (!open_.load(std::memory_order_acquire)) parker.Park();
    queue_.Remove(waiter);
  }

 private:
  std::atomic<bool> open_{false};
  WaitQueue queue_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_START_GATE_H_
