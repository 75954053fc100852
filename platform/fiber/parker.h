// Parker: where one thread of kernel execution (a task's fiber) sleeps and is woken.
// A binary permit, as in java.util.concurrent's LockSupport: Unpark before Park makes Park return at
// once, so a wake-up between "condition checked" and "sleep" is never lost.
// Unpark is safe from any thread and takes no lock above LockRank::kScheduler.
#ifndef MOAT_PLATFORM_FIBER_PARKER_H_
#define MOAT_PLATFORM_FIBER_PARKER_H_

#include <atomic>
#include <cstdint>

#include "platform/fiber/clock.h"

namespace moat {

class Fiber;

class Parker {
 public:
  // Sleeps until Unpark or `deadline` (monotonic). Returns false when the deadline passed without a
  // permit. Spurious returns of true are allowed: callers loop on their condition.
  // Aborts in debug builds when the caller holds a ranked mutex.
  bool Park(Deadline deadline = kNoDeadline);
  void Unpark();
  // Somebody sleeps here whom nobody has woken yet.
  bool asleep() const { return permit_.load(std::memory_order_relaxed) >= 2; }

 private:
  bool ParkFiber(Fiber& self, Deadline deadline);

  std::atomic<uint32_t> permit_{0};  // 0 none, 1 permit, 2 a host thread waits, 3 fiber_ waits
  Fiber* fiber_ = nullptr;           // the sleeper when it is a pooled fiber; valid while permit_ is 3
};

}  // namespace moat

#endif  // MOAT_PLATFORM_FIBER_PARKER_H_
