// Futexes: the wait queues behind futex(2), futex_waitv(2) and the futex2 calls, with priority-inheritance
// ownership and robust lists. Our scheduler has no priorities to lend, so PI futexes keep their protocol
// (ownership in the word, hand-over at unlock, EDEADLK, owner death) in arrival order.
//
// No lock is held while a guest word is read or written. A waiter is queued first and looks at the word second,
// so a wake-up between the two finds it; the price is a wake-up that may count a waiter whose word had already
// changed, which futex(2) allows ("spurious wake-ups").
//
// Thread-safe. Locks: kFutex, one per bucket, in address order. Source: futex(2), get_robust_list(2),
// Documentation/locking/robust-futex-ABI.rst, pi-futex.rst.
#ifndef MOAT_SENTRY_KERNEL_FUTEX_H_
#define MOAT_SENTRY_KERNEL_FUTEX_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include "platform/base/mutex.h"
#include "platform/base/result.h"
#include "platform/fiber/parker.h"
#include "sentry/mm/memory_manager.h"

namespace moat {

class Task;

// What a futex word is: equal keys are one futex.
struct FutexKey {
  RefPtr<RefCounted> object;  // the address space of a private futex, else the mapped object; kept alive
  uint64_t offset = 0;
  bool operator==(const FutexKey& o) const { return object == o.object && offset == o.offset; }
  // kEINVAL: not aligned to 4; kEFAULT: not mapped (shared keys only: a private one needs no mapping).
  static Result<FutexKey> Make(MemoryManager& mm, GuestAddr addr, bool shared);
};

// One sleeper on one word. Lives on the waiting task's stack, or in its array for futex_waitv.
struct FutexWaiter {
  enum class State : uint32_t {
    kQueued,
    kWoken,          // taken out by a wake
    kGranted,        // taken out by an unlock: the word says that this task owns it
    kRequeueFailed,  // FUTEX_CMP_REQUEUE_PI could not lock on our behalf; `error` says why
  };
  FutexKey key;
  uint32_t bitset = ~0u;
  bool pi = false;                // waits for ownership, not for a wake
  bool wants_requeue_pi = false;  // FUTEX_WAIT_REQUEUE_PI: only a requeue may take it
  int32_t tid = 0;                // of the waiting task, as its words name it
  int32_t owner_tid = 0;          // pi: who held the word when this task queued
  FutexKey requeue_target;        // of FUTEX_WAIT_REQUEUE_PI
  Parker* parker = nullptr;
  Errno error = kEFAULT;  // with kRequeueFailed
  std::atomic<State> state{State::kQueued};
  bool queued = false;  // guarded by the lock of its bucket
  std::atomic<class FutexBucket*> bucket{nullptr};
  FutexWaiter* prev = nullptr;
  FutexWaiter* next = nullptr;
};

class FutexBucket {
 public:
  Mutex mu{LockRank::kFutex};
  FutexWaiter* head ABSL_GUARDED_BY(mu) = nullptr;
  FutexWaiter* tail ABSL_GUARDED_BY(mu) = nullptr;
  std::atomic<uint32_t> waiters{0};  // lets a wake of an unused word skip the lock

  void Append(FutexWaiter& w) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void Take(FutexWaiter& w) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
};

// futex_waitv(2)'s element, copied in.
struct FutexWaitSpec {
  GuestAddr addr;
  uint32_t expected;
  bool shared;
};

class FutexTable {
 public:
  // Sleeps while the word is `expected`. kEAGAIN: it was not. kETIMEDOUT, kERESTARTSYS on a signal.
  Result<void> Wait(Task& t, GuestAddr addr, bool shared, uint32_t expected, uint32_t bitset, Deadline deadline);
  // The index of a woken one.
  Result<int64_t> WaitMultiple(Task& t, std::span<const FutexWaitSpec> specs, Deadline deadline);
  // How many were woken, at most `count`.
  Result<int64_t> Wake(MemoryManager& mm, GuestAddr addr, bool shared, int count, uint32_t bitset);
  // FUTEX_WAKE_OP: `op` is the encoded operation.
  Result<int64_t> WakeOp(MemoryManager& mm, GuestAddr addr1, GuestAddr addr2, bool shared, int count1, int count2,
                         uint32_t op);
  // Wakes `wake` sleepers of addr1 and moves up to `requeue` others to addr2. `expected` null: FUTEX_REQUEUE.
  // `compare_shared2` lets futex_requeue(2) mix flags.
  Result<int64_t> Requeue(MemoryManager& mm, GuestAddr addr1, bool shared1, GuestAddr addr2, bool shared2, int wake,
                          int requeue, const uint32_t* expected);

  // --- priority inheritance ---
  Result<void> LockPi(Task& t, GuestAddr addr, bool shared, Deadline deadline, bool try_only);
  Result<void> UnlockPi(Task& t, GuestAddr addr, bool shared);
  Result<void> WaitRequeuePi(Task& t, GuestAddr addr1, uint32_t expected, uint32_t bitset, GuestAddr addr2, bool shared,
                             Deadline deadline);
  Result<int64_t> CmpRequeuePi(Task& t, GuestAddr addr1, GuestAddr addr2, bool shared, int requeue, uint32_t expected);

  // --- a task's end (or its execve) ---
  // Hands over PI words that others wait for, as the exiting task `tid`, then walks the robust list at `robust_head`.
  void ReleaseAtExit(MemoryManager& mm, int32_t tid, GuestAddr robust_head);

 private:
  static constexpr size_t kBuckets = 256;
  FutexBucket& BucketOf(const FutexKey& key);
  void Enqueue(FutexWaiter& w);
  // True when `w` was still queued, and is no more.
  bool Dequeue(FutexWaiter& w);
  // Moves the rest of a wake; collects at most `count` waiters of `key` that `bitset` selects.
  int WakeKey(const FutexKey& key, int count, uint32_t bitset);
  // Takes the first PI waiter of `key` out, and says whether others remain.
  FutexWaiter* TakePiWaiter(const FutexKey& key, bool& more);
  // Gives the word, now owned by `from`, to the next waiter or to nobody. `died` is FUTEX_OWNER_DIED or 0.
  Result<void> HandOver(MemoryManager& mm, GuestAddr addr, const FutexKey& key, uint32_t from, uint32_t died);
  Result<void> AcquireQueued(Task& t, GuestAddr addr, FutexWaiter& w, Deadline deadline);
  // Hands over the words that `tid` owns as far as their sleepers know.
  void ReleaseOwned(MemoryManager& mm, int32_t tid);
  void ReleaseRobust(MemoryManager& mm, int32_t tid, GuestAddr entry, int64_t offset, bool pi, bool pending);
  std::array<FutexBucket, kBuckets> buckets_;
  std::atomic<int> pi_calls_{0};  // LockPi and WaitRequeuePi under way: no waiter has an owner without one
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_FUTEX_H_
