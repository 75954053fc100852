// The pool of carriers that run pooled fibers. For platform/fiber, and for platforms with a carrier of their own.
#ifndef MOAT_PLATFORM_FIBER_SCHEDULER_H_
#define MOAT_PLATFORM_FIBER_SCHEDULER_H_

#include "absl/functional/any_invocable.h"
#include "platform/base/result.h"

namespace moat {

class Fiber;

// The pooled fiber that the calling code runs on, or null on any other thread.
Fiber* CurrentFiber();

// Leaves the calling fiber's carrier, with no lock held. `publish(arg)` runs on the carrier once the fiber's state is
// saved: from then on another thread may make it ready. When it returns false, the fiber goes on at once.
void SuspendFiber(Fiber& self, bool (*publish)(void* arg), void* arg);

// Lets a suspended fiber run again. Takes kScheduler.
void MakeReady(Fiber& fiber);

// The same, from any carrier, for a carrier of the pool.
void MakeReadyInPool(Fiber& fiber);

Result<void> StartPooledFiber(absl::AnyInvocable<void()> fn);

}  // namespace moat

#endif  // MOAT_PLATFORM_FIBER_SCHEDULER_H_
