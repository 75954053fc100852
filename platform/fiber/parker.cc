#include "platform/fiber/parker.h"

#include "platform/base/log.h"
#include "platform/base/mutex.h"
#include "platform/fiber/carrier_observer.h"
#include "platform/fiber/futex.h"
#include "platform/fiber/scheduler.h"
#include "platform/fiber/timer.h"

namespace moat {
namespace {

constexpr uint32_t kNone = 0, kPermit = 1, kThreadWaits = 2, kFiberWaits = 3;

class ParkTimer final : public Timer {
 public:
  explicit ParkTimer(Parker& p) : parker_(p) {}

 private:
  void OnTimer() override { parker_.Unpark(); }
  Parker& parker_;
};

}  // namespace

bool Parker::Park(Deadline deadline) {
#ifndef NDEBUG
  MOAT_CHECK(HeldLocksForDebug() == 0);
#endif
  uint32_t permit = kPermit;
  if (permit_.compare_exchange_strong(permit, kNone, std::memory_order_acquire)) return true;
  if (deadline != kNoDeadline && MonotonicNow() >= deadline) return false;
  CarrierObserver* observer = CurrentCarrierObserver();
  if (observer != nullptr) observer->OnPark();
  if (Fiber* self = CurrentFiber()) {
    const bool permitted = ParkFiber(*self, deadline);
    if (observer != nullptr) observer->OnUnpark();
    return permitted;
  }
  uint32_t none = kNone;
  if (permit_.compare_exchange_strong(none, kThreadWaits, std::memory_order_acq_rel)) {
    HostFutexWait(permit_, kThreadWaits, deadline);
  }
  if (observer != nullptr) observer->OnUnpark();
  if (permit_.exchange(kNone, std::memory_order_acquire) == kPermit) return true;
  return deadline == kNoDeadline || MonotonicNow() < deadline;
}

bool Parker::ParkFiber(Fiber& self, Deadline deadline) {
  // The timer only makes the fiber look again; so a fiber leaves this sleep through Unpark alone, and Unpark, having
  // seen kFiberWaits, may rely on the Parker and the fiber being there.
  ParkTimer timer(*this);
  if (deadline != kNoDeadline) timer.Arm(deadline);
  fiber_ = &self;
  SuspendFiber(
      self,
      [](void* arg) {
        uint32_t none = kNone;
        return static_cast<Parker*>(arg)->permit_.compare_exchange_strong(none, kFiberWaits, std::memory_order_acq_rel);
      },
      this);
  timer.Cancel();
  permit_.exchange(kNone, std::memory_order_acquire);
  return deadline == kNoDeadline || MonotonicNow() < deadline;
}

void Parker::Unpark() {
  uint32_t before = permit_.exchange(kPermit, std::memory_order_acq_rel);
  if (before == kFiberWaits) {
    MakeReady(*fiber_);
  } else if (before == kThreadWaits) {
    // The sleeper may have woken by its deadline and be gone with its Parker: a wake on an address that nobody waits
    // on does no harm.
    HostFutexWake(permit_);
  }
}

}  // namespace moat
