// One-shot timers. Their callbacks run one after the other on one timer thread, which sleeps until the earliest
// deadline and costs nothing while no timer is armed. Derive from Timer, or use FunctionTimer.
// Arm, Disarm and Cancel are O(log n) and may be called from any thread and from callbacks. Deadlines are of the
// host's CLOCK_MONOTONIC (clock.h). Lock: kTimerWheel, which is not held while a callback runs, so that a callback
// may take any lock; it must be short and must not block.
#ifndef MOAT_PLATFORM_FIBER_TIMER_H_
#define MOAT_PLATFORM_FIBER_TIMER_H_

#include <cstddef>

#include "absl/functional/any_invocable.h"
#include "platform/fiber/clock.h"

namespace moat {

class Timer {
 public:
  Timer() = default;
  // The derived class's destructor (or its owner) must have called Cancel; a pending timer aborts.
  virtual ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  // (Re-)arms: OnTimer runs once at or soon after `when`; an earlier deadline is forgotten. kNoDeadline disarms.
  void Arm(Deadline when);
  // Forgets the deadline; true when it was pending. The callback may still be running on the timer thread.
  bool Disarm();
  // Like Disarm, and also waits until no callback of this timer runs (not when called from that callback, which then
  // must not touch the timer again if its owner destroys it). Hold no lock that the callback takes.
  bool Cancel();
  // Waits until the callback that runs at this moment, if one does, has returned; what is armed stays armed. Not when
  // called from a callback. Hold no lock that the callback takes.
  void AwaitCallback();
  // The deadline that is pending, else kNoDeadline.
  Deadline deadline() const;

 protected:
  virtual void OnTimer() = 0;

 private:
  friend class TimerQueue;
  static constexpr size_t kNotQueued = ~size_t{0};
  size_t index_ = kNotQueued;  // place in the queue's heap; guarded by its lock
};

class FunctionTimer final : public Timer {
 public:
  explicit FunctionTimer(absl::AnyInvocable<void()> fn) : fn_(std::move(fn)) {}
  ~FunctionTimer() override { Cancel(); }

 private:
  void OnTimer() override { fn_(); }
  absl::AnyInvocable<void()> fn_;
};

// Starts the timer thread now instead of at the first Arm: for the sentry before its lockdown.
void StartTimerThread();

}  // namespace moat

#endif  // MOAT_PLATFORM_FIBER_TIMER_H_
