// WaitQueue: who wants to know when an object (file, process, futex, ...) becomes ready.
// The object's owner calls Notify(mask) after a state change; each registered Waiter whose mask
// intersects gets its callback, under the queue's lock. Linux: poll(2)'s wait queues.
//
// Contract: Notify is called after the change is visible and may be called with locks of a rank below
// kWaitQueue held. A callback must not block, must not take a lock ranked at or below kWaitQueue and must
// not add to or remove from the same queue; Parker::Unpark and atomic flags are what it is for.
// After Remove returns, the callback is not running and will not run.
#ifndef MOAT_PLATFORM_FIBER_WAIT_QUEUE_H_
#define MOAT_PLATFORM_FIBER_WAIT_QUEUE_H_

#include <cstdint>

#include "platform/base/mutex.h"
#include "platform/fiber/parker.h"

namespace moat {

// poll(2) bits: EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP, EPOLLRDHUP, EPOLLPRI, ...
using EventMask = uint32_t;

// Bits beside poll's: a notification that carries one is also worth a signal to who asked for signal-driven I/O
// (fcntl(2) O_ASYNC). Not every wake-up is: Linux signals new input, room after a write that found none, a peer gone.
inline constexpr EventMask kAsyncInput = 1u << 24, kAsyncOutput = 1u << 25, kAsyncHangup = 1u << 26;

class WaitQueue;

// Embed or put on the stack; not movable while registered. Derive for a custom callback.
class Waiter {
 public:
  explicit Waiter(EventMask mask) : mask_(mask) {}
  virtual ~Waiter() = default;
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;
  EventMask mask() const { return mask_; }

 protected:
  // `ready` is the intersection of the notified events with mask(). Return true when this waiter took
  // the event exclusively (EPOLLEXCLUSIVE, accept): no further exclusive waiter is then notified.
  virtual bool OnEvent(EventMask ready) = 0;

 private:
  friend class WaitQueue;
  EventMask mask_;
  bool exclusive_ = false;
  Waiter* prev_ = nullptr;
  Waiter* next_ = nullptr;
};

// The usual waiter: wakes a parked task.
class ParkerWaiter final : public Waiter {
 public:
  ParkerWaiter(EventMask mask, Parker& parker) : Waiter(mask), parker_(parker) {}

 private:
  bool OnEvent(EventMask) override {
    parker_.Unpark();
    return true;
  }
  Parker& parker_;
};

class WaitQueue {
 public:
  WaitQueue() = default;
  // For an object that is itself a waiter of other queues and notifies from its callback (epoll): its queue is
  // locked inside of theirs. Such objects form no cycle, so LockRank::kLog (not checked) is right for them.
  explicit WaitQueue(LockRank rank) : mu_(rank) {}
  ~WaitQueue();
  WaitQueue(const WaitQueue&) = delete;

  void Add(Waiter& w, bool exclusive = false);
  void Remove(Waiter& w);
  void Notify(EventMask events);
  bool empty() const { return head_ == nullptr; }  // racy; a hint

 private:
  mutable Mutex mu_{LockRank::kWaitQueue};
  Waiter* head_ = nullptr;  // guarded by mu_, but for the hint above
  Waiter* tail_ ABSL_GUARDED_BY(mu_) = nullptr;
};

// Something that can be polled: a file description, a pidfd's process, ...
class Pollable {
 public:
  virtual ~Pollable() = default;
  // The events of `interest` (plus EPOLLERR and EPOLLHUP) that are ready now. Never blocks.
  virtual EventMask Poll(EventMask interest) = 0;
  virtual WaitQueue& wait_queue() = 0;
};

}  // namespace moat

#endif  // MOAT_PLATFORM_FIBER_WAIT_QUEUE_H_
