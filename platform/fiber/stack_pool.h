// Stacks for fibers and host threads: mapped by us, with an unmapped page below so that an overflow faults instead of
// writing over something else. Thread-safe. Lock: kScheduler.
#ifndef MOAT_PLATFORM_FIBER_STACK_POOL_H_
#define MOAT_PLATFORM_FIBER_STACK_POOL_H_

#include <cstddef>
#include <vector>

#include "platform/base/mutex.h"

namespace moat {

struct Stack {
  std::byte* base = nullptr;  // lowest usable byte
  size_t size = 0;
  std::byte* top() const { return base + size; }
};

class StackPool {
 public:
  // Keeps up to `keep` unused stacks of `size` bytes (a page multiple) mapped.
  StackPool(size_t size, size_t keep) : size_(size), keep_(keep) {}
  ~StackPool();
  // base is null when the host has no memory left.
  Stack Take();
  void Give(Stack stack);

 private:
  const size_t size_;
  const size_t keep_;
  Mutex mu_{LockRank::kScheduler};
  std::vector<Stack> free_ ABSL_GUARDED_BY(mu_);
};

}  // namespace moat

#endif  // MOAT_PLATFORM_FIBER_STACK_POOL_H_
