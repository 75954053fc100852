// OwnCarrier: a carrier beside the pool that runs only the fibers that are made ready on it: by its loop, or by fibers
// that it runs. Whoever waits there for longer than a moment has to leave for the pool itself (MakeReadyInPool). For
// platforms that serve many fibers' guests from one CPU.
#ifndef MOAT_PLATFORM_FIBER_OWN_CARRIER_H_
#define MOAT_PLATFORM_FIBER_OWN_CARRIER_H_

#include <memory>
#include <string_view>

#include "platform/base/cpu_set.h"
#include "platform/base/result.h"
#include "platform/fiber/thread.h"

namespace moat {

class OwnCarrier {
 public:
  class Loop {
   public:
    virtual ~Loop() = default;
    // Called on the carrier when it has no ready fiber: makes some ready, or sleeps, or returns for no reason. False:
    // the carrier ends; no fiber may come any more.
    virtual bool LookForWork() = 0;
    // Called on the carrier when a fiber that it runs begins or ends a LongHostSleep.
    virtual void OnLongSleep(bool begins) = 0;
  };

  OwnCarrier();
  OwnCarrier(OwnCarrier&& o) noexcept;
  OwnCarrier& operator=(OwnCarrier&& o) noexcept;
  ~OwnCarrier();

  // `loop` must outlive the carrier. Returns when it runs. kEAGAIN or kENOMEM when the host has no more threads.
  static Result<OwnCarrier> Start(std::string_view name, Loop& loop);
  void Join();

  bool IsCurrent() const;
  // On the carrier: whether a fiber waits to run.
  bool HasReady() const;
  // Where the carrier runs from here on. From any thread.
  void SetAffinity(const CpuSet& cpus);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace moat

#endif  // MOAT_PLATFORM_FIBER_OWN_CARRIER_H_
