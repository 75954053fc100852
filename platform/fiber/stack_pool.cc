#include "platform/fiber/stack_pool.h"

#include <sys/mman.h>

namespace moat {
namespace {

constexpr size_t kGuard = 4096;

void Unmap(Stack s) { munmap(s.base - kGuard, s.size + kGuard); }

}  // namespace

StackPool::~StackPool() {
  for (Stack s : free_) Unmap(s);
}

Stack StackPool::Take() {
  {
    MutexLock lock(mu_);
    if (!free_.empty()) {
      Stack s = free_.back();
      free_.pop_back();
      return s;
    }
  }
  // The whole range is reserved without access first; a stack's pages become real when they are touched.
  void* p = mmap(nullptr, size_ + kGuard, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return {};
  Stack s{static_cast<std::byte*>(p) + kGuard, size_};
  if (mprotect(s.base, s.size, PROT_READ | PROT_WRITE) != 0) {
    Unmap(s);
    return {};
  }
  return s;
}

void StackPool::Give(Stack stack) {
  {
    MutexLock lock(mu_);
    if (free_.size() < keep_) {
      free_.push_back(stack);
      return;
    }
  }
  Unmap(stack);
}

}  // namespace moat
