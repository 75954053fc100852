// Fibers: threads of kernel execution. A task's kernel side is one.
//
// A *pinned* fiber is a host thread of its own (its carrier) for its whole life: what a platform needs whose guest
// threads answer to one host thread only (Platform::pins_carrier). A *pooled* fiber has a small stack with a guard
// page and runs on whichever carrier of the pool is free; when it parks, the carrier goes on with another one, so
// ten thousand sleepers cost no host threads. Both sleep with Parker and neither may hold a ranked mutex then.
//
// A pooled fiber may continue on another host thread after any Park or Yield: keep no thread_local's address and
// no errno across one.
#ifndef MOAT_PLATFORM_FIBER_FIBER_H_
#define MOAT_PLATFORM_FIBER_FIBER_H_

#include <string_view>

#include "absl/functional/any_invocable.h"
#include "platform/base/result.h"

namespace moat {

enum class FiberKind { kPinned, kPooled };

// Runs `fn` on a new fiber; it ends when `fn` returns. `name` names the host thread of a pinned one.
// kEAGAIN or kENOMEM when the host has no memory or threads left; `fn` was then not run.
// Use FiberKind::kPinned for tasks when the platform's pins_carrier() is true.
Result<void> StartFiber(FiberKind kind, std::string_view name, absl::AnyInvocable<void()> fn);

// Runs `fn` on a pooled fiber soon, on a carrier that has nothing else to do, if a CPU may be free for it. False: none
// is, or nothing is left to run it on; `fn` was then not run, and is as it was.
bool RunElsewhere(absl::AnyInvocable<void()>& fn);

// Before a host call that may sleep long on the calling carrier (guest code runs, a disk is read): other fibers that
// this one has made ready go to other carriers. Costs next to nothing when there are none, or on other threads.
void BeforeHostSleep();

// The same for a host call that takes as long as many switches, for as long as the object lives: a carrier that serves
// others (OwnCarrier) sends them away meanwhile. The fiber may not be suspended.
class LongHostSleep {
 public:
  LongHostSleep();
  ~LongHostSleep();
  LongHostSleep(const LongHostSleep&) = delete;
};

// One pointer that belongs to the calling fiber (or to the thread, off pooled fibers), whichever carrier runs it.
void* FiberValue();
void SetFiberValue(void* value);

// Number of pooled fibers that have not ended. For tests and /proc.
int PooledFiberCount();

// Told when the calling thread or pooled fiber is about to sleep in a Parker, and when it has woken: a platform moves
// the thread to a good CPU then, or lets the guest thread sleep too. Called there, with no lock held. Not owned; null
// removes it. A task's platform context installs itself.
class CarrierObserver {
 public:
  virtual ~CarrierObserver() = default;
  virtual void OnPark() = 0;
  virtual void OnUnpark() = 0;
};
void SetCarrierObserver(CarrierObserver* observer);

}  // namespace moat

#endif  // MOAT_PLATFORM_FIBER_FIBER_H_
