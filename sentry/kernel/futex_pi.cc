// Priority-inheritance futexes and robust lists: who owns a word, and what happens when the owner ends.
#include <linux/futex.h>

#include "sentry/kernel/blocking.h"
#include "sentry/kernel/futex.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"

namespace moat {
namespace {

constexpr int kRobustListLimit = 2048;  // ROBUST_LIST_LIMIT

class PiCall {
 public:
  explicit PiCall(std::atomic<int>& calls) : calls_(calls) { calls_.fetch_add(1, std::memory_order_seq_cst); }
  ~PiCall() { calls_.fetch_sub(1, std::memory_order_seq_cst); }
  PiCall(const PiCall&) = delete;
  PiCall& operator=(const PiCall&) = delete;

 private:
  std::atomic<int>& calls_;
};

bool HoldsWord(uint32_t word, int32_t tid) { return (word & FUTEX_TID_MASK) == static_cast<uint32_t>(tid); }

// Waits until the task that took `w` out of its queue has said why.
FutexWaiter::State Settled(FutexWaiter& w) {
  FutexWaiter::State s;
  while ((s = w.state.load(std::memory_order_acquire)) == FutexWaiter::State::kQueued) w.parker->Park();
  return s;
}

}  // namespace

FutexWaiter* FutexTable::TakePiWaiter(const FutexKey& key, bool& more) {
  FutexBucket& b = BucketOf(key);
  FutexWaiter* first = nullptr;
  more = false;
  MutexLock lock(b.mu);
  for (FutexWaiter *w = b.head, *next; w != nullptr; w = next) {
    next = w->next;
    if (!w->pi || !(w->key == key)) continue;
    if (first != nullptr) {
      more = true;
      break;
    }
    first = w;
    b.Take(*w);
  }
  return first;
}

Result<void> FutexTable::HandOver(MemoryManager& mm, GuestAddr addr, const FutexKey& key, uint32_t from,
                                  uint32_t died) {
  uint32_t word = TRY(mm.Load32(addr));
  bool more = false;
  FutexWaiter* next = nullptr;
  Result<void> result;
  for (;;) {
    if ((word & FUTEX_TID_MASK) != from) {
      result = kEPERM;
      break;
    }
    if (next == nullptr) next = TakePiWaiter(key, more);
    uint32_t desired = next != nullptr ? static_cast<uint32_t>(next->tid) | (more ? FUTEX_WAITERS : 0) | died : died;
    Result<uint32_t> seen = mm.CompareExchange32(addr, word, desired);
    if (!seen.ok()) {
      result = seen.error();
      break;
    }
    if (*seen == word) break;
    word = *seen;
  }
  if (next != nullptr) {
    // The word cannot be given (unmapped, or stolen by a store of the guest): the sleeper must not sleep for ever.
    Parker* parker = next->parker;
    if (!result.ok()) next->error = result.error();
    next->state.store(result.ok() ? FutexWaiter::State::kGranted : FutexWaiter::State::kRequeueFailed,
                      std::memory_order_release);
    parker->Unpark();
  }
  return result;
}

// `w` is queued on the word at `addr`: takes the word when it is free, else sleeps until it is handed over.
Result<void> FutexTable::AcquireQueued(Task& t, GuestAddr addr, FutexWaiter& w, Deadline deadline) {
  auto give_up = [&](Errno why) -> Result<void> {
    if (Dequeue(w)) return why;
    return Settled(w) == FutexWaiter::State::kGranted ? Result<void>() : w.error;
  };
  for (;;) {
    Result<uint32_t> word = t.memory().Load32(addr);
    if (!word.ok()) return give_up(word.error());
    uint32_t owner = *word & FUTEX_TID_MASK;
    if (owner == 0) {
      uint32_t keep = *word & (FUTEX_WAITERS | FUTEX_OWNER_DIED);
      Result<uint32_t> seen = t.memory().CompareExchange32(addr, *word, static_cast<uint32_t>(w.tid) | keep);
      if (!seen.ok()) return give_up(seen.error());
      if (*seen != *word) continue;
      // Ours. Nobody hands over a word that has no owner, so we are still queued.
      Dequeue(w);
      return {};
    }
    if (owner == static_cast<uint32_t>(w.tid) && w.state.load() == FutexWaiter::State::kQueued)
      return give_up(kEDEADLK);
    const RefPtr<Task> holder = t.kernel().FindTask(static_cast<int32_t>(owner), *t.pid_ns());
    if (!holder || holder->exited()) return give_up(kESRCH);
    {
      FutexBucket& b = BucketOf(w.key);
      MutexLock lock(b.mu);
      w.owner_tid = static_cast<int32_t>(owner);
    }
    if (holder->releases_futexes() && w.state.load() == FutexWaiter::State::kQueued) {
      // It gives the word away, or will soon be gone.
      constexpr Nanos kLookAgain = 1'000'000;
      Result<void> parked = ParkInterruptible(t, DeadlineAfter(kLookAgain));
      if (!parked.ok() && parked.error() == kERESTARTSYS) return give_up(kERESTARTNOINTR);
      continue;
    }
    if (*word & FUTEX_WAITERS) break;
    Result<uint32_t> seen = t.memory().CompareExchange32(addr, *word, *word | FUTEX_WAITERS);
    if (!seen.ok()) return give_up(seen.error());
    if (*seen == *word) break;
  }
  while (w.state.load(std::memory_order_acquire) == FutexWaiter::State::kQueued) {
    Result<void> parked = ParkInterruptible(t, deadline);
    if (!parked.ok()) return give_up(parked.error() == kERESTARTSYS ? kERESTARTNOINTR : parked.error());
  }
  return Settled(w) == FutexWaiter::State::kGranted ? Result<void>() : w.error;
}

Result<void> FutexTable::LockPi(Task& t, GuestAddr addr, bool shared, Deadline deadline, bool try_only) {
  FutexKey key = TRY(FutexKey::Make(t.memory(), addr, shared));
  int32_t tid = t.tid();
  uint32_t word = TRY(t.memory().Load32(addr));
  while ((word & FUTEX_TID_MASK) == 0) {
    uint32_t keep = word & (FUTEX_WAITERS | FUTEX_OWNER_DIED);
    uint32_t seen = TRY(t.memory().CompareExchange32(addr, word, static_cast<uint32_t>(tid) | keep));
    if (seen == word) return {};
    word = seen;
  }
  if (HoldsWord(word, tid)) return kEDEADLK;
  if (try_only) return kEAGAIN;
  const PiCall counted(pi_calls_);
  FutexWaiter w;
  w.key = std::move(key);
  w.pi = true;
  w.tid = tid;
  w.parker = &t.parker();
  Enqueue(w);
  return AcquireQueued(t, addr, w, deadline);
}

Result<void> FutexTable::UnlockPi(Task& t, GuestAddr addr, bool shared) {
  FutexKey key = TRY(FutexKey::Make(t.memory(), addr, shared));
  if (!HoldsWord(TRY(t.memory().Load32(addr)), t.tid())) return kEPERM;
  return HandOver(t.memory(), addr, key, static_cast<uint32_t>(t.tid()), 0);
}

Result<void> FutexTable::WaitRequeuePi(Task& t, GuestAddr addr1, uint32_t expected, uint32_t bitset, GuestAddr addr2,
                                       bool shared, Deadline deadline) {
  if (bitset == 0 || addr1 == addr2) return kEINVAL;
  const PiCall counted(pi_calls_);
  FutexWaiter w;
  w.key = TRY(FutexKey::Make(t.memory(), addr1, shared));
  w.requeue_target = TRY(FutexKey::Make(t.memory(), addr2, shared));
  w.bitset = bitset;
  w.wants_requeue_pi = true;
  w.tid = t.tid();
  w.parker = &t.parker();
  Enqueue(w);
  Result<uint32_t> word = t.memory().Load32(addr1);
  Errno end = !word.ok() ? word.error() : *word != expected ? kEAGAIN : Errno::kOK;
  while (end == Errno::kOK && w.state.load(std::memory_order_acquire) == FutexWaiter::State::kQueued) {
    Result<void> parked = ParkInterruptible(t, deadline);
    if (!parked.ok()) end = parked.error();
  }
  if (end != Errno::kOK && Dequeue(w)) return end == kERESTARTSYS ? kEAGAIN : end;
  return Settled(w) == FutexWaiter::State::kGranted ? Result<void>() : w.error;
}

Result<int64_t> FutexTable::CmpRequeuePi(Task& t, GuestAddr addr1, GuestAddr addr2, bool shared, int requeue,
                                         uint32_t expected) {
  if (requeue < 0 || addr1 == addr2) return kEINVAL;
  MemoryManager& mm = t.memory();
  FutexKey from = TRY(FutexKey::Make(mm, addr1, shared));
  FutexKey to = TRY(FutexKey::Make(mm, addr2, shared));
  if (TRY(mm.Load32(addr1)) != expected) return kEAGAIN;
  FutexBucket& a = BucketOf(from);
  FutexBucket& b = BucketOf(to);
  int64_t moved = 0;
  {
    MutexLock2 lock(a.mu, b.mu);
    for (FutexWaiter *w = a.head, *next; w != nullptr && moved <= requeue; w = next) {
      next = w->next;
      if (!(w->key == from)) continue;
      if (!w->wants_requeue_pi || !(w->requeue_target == to)) return kEINVAL;
      a.Take(*w);
      w->key = to;
      w->wants_requeue_pi = false;
      w->pi = true;
      b.waiters.fetch_add(1, std::memory_order_relaxed);
      b.Append(*w);
      ++moved;
    }
  }
  if (moved == 0) return 0;
  // The word is free: the first one has it now. Owned: the owner must come through FUTEX_UNLOCK_PI.
  uint32_t word = TRY(mm.Load32(addr2));
  for (;;) {
    if ((word & FUTEX_TID_MASK) == 0) {
      TRY(HandOver(mm, addr2, to, 0, word & FUTEX_OWNER_DIED));
      break;
    }
    if (word & FUTEX_WAITERS) break;
    uint32_t seen = TRY(mm.CompareExchange32(addr2, word, word | FUTEX_WAITERS));
    if (seen == word) break;
    word = seen;
  }
  return moved;
}

void FutexTable::ReleaseRobust(MemoryManager& mm, int32_t tid, GuestAddr entry, int64_t offset, bool pi, bool pending) {
  GuestAddr addr = entry + static_cast<uint64_t>(offset);
  Result<FutexKey> key = FutexKey::Make(mm, addr, /*shared=*/true);
  Result<uint32_t> word = mm.Load32(addr);
  if (!key.ok() || !word.ok()) return;
  // The owner died between "unlocked" and "woke": wake one in its stead.
  if (pending && !pi && *word == 0) {
    WakeKey(*key, 1, FUTEX_BITSET_MATCH_ANY);
    FutexKey private_key{RefPtr<RefCounted>(&mm), addr};
    WakeKey(private_key, 1, FUTEX_BITSET_MATCH_ANY);
    return;
  }
  for (;;) {
    if (!HoldsWord(*word, tid)) return;
    Result<uint32_t> seen = mm.CompareExchange32(addr, *word, (*word & FUTEX_WAITERS) | FUTEX_OWNER_DIED);
    if (!seen.ok()) return;
    if (*seen == *word) break;
    word = seen;
  }
  if (pi || !(*word & FUTEX_WAITERS)) return;
  // Robust mutexes may sleep on a shared or a private key; Linux keys by the flag, we try both.
  FutexKey private_key{RefPtr<RefCounted>(&mm), addr};
  if (WakeKey(*key, 1, FUTEX_BITSET_MATCH_ANY) == 0) WakeKey(private_key, 1, FUTEX_BITSET_MATCH_ANY);
}

void FutexTable::ReleaseOwned(MemoryManager& mm, int32_t tid) {
  if (pi_calls_.load(std::memory_order_seq_cst) == 0) return;
  for (FutexBucket& b : buckets_) {
    for (;;) {
      FutexKey key;
      {
        MutexLock lock(b.mu);
        FutexWaiter* w = b.head;
        while (w != nullptr && !(w->pi && w->owner_tid == tid && w->key.object == &mm)) w = w->next;
        if (w == nullptr) break;
        w->owner_tid = 0;  // looked at once, whatever comes of it
        key = w->key;
      }
      [[maybe_unused]] Result<void> r = HandOver(mm, key.offset, key, static_cast<uint32_t>(tid), FUTEX_OWNER_DIED);
    }
  }
}

void FutexTable::ReleaseAtExit(MemoryManager& mm, int32_t tid, GuestAddr robust_head) {
  struct Head {  // struct robust_list_head
    uint64_t next;
    int64_t offset;
    uint64_t pending;
  } head;
  // Before the robust walk clears the owner from the words.
  ReleaseOwned(mm, tid);
  if (robust_head == 0 || mm.CopyIn(&head, robust_head, sizeof head) != sizeof head) return;
  uint64_t pending = head.pending & ~1ull;
  uint64_t entry = head.next;
  for (int i = 0; i < kRobustListLimit && (entry & ~1ull) != robust_head && (entry & ~1ull) != 0; ++i) {
    uint64_t at = entry & ~1ull;
    uint64_t next;
    if (mm.CopyIn(&next, at, sizeof next) != sizeof next) break;
    if (at != pending) ReleaseRobust(mm, tid, at, head.offset, entry & 1, false);
    entry = next;
  }
  if (pending != 0) ReleaseRobust(mm, tid, pending, head.offset, head.pending & 1, true);
}

}  // namespace moat
