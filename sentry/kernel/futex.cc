#include "sentry/kernel/futex.h"

#include <linux/futex.h>

#include <algorithm>
#include <climits>

#include "sentry/kernel/blocking.h"
#include "sentry/kernel/task.h"

namespace moat {

Result<FutexKey> FutexKey::Make(MemoryManager& mm, GuestAddr addr, bool shared) {
  if (addr % sizeof(uint32_t) != 0) return kEINVAL;
  if (addr >= mm.environment().max_address) return kEFAULT;
  if (!shared) return FutexKey{RefPtr<RefCounted>(&mm), addr};
  TRY(mm.Load32(addr));  // Linux finds the page by touching it: kEFAULT when that cannot be
  WordIdentity word = TRY(mm.IdentifyWord(addr));
  if (word.mappable) return FutexKey{std::move(word.mappable), word.offset};
  return FutexKey{RefPtr<RefCounted>(&mm), addr};
}

void FutexBucket::Append(FutexWaiter& w) {
  w.prev = tail;
  w.next = nullptr;
  (tail != nullptr ? tail->next : head) = &w;
  tail = &w;
  w.queued = true;
  w.bucket.store(this, std::memory_order_release);
}

void FutexBucket::Take(FutexWaiter& w) {
  (w.prev != nullptr ? w.prev->next : head) = w.next;
  (w.next != nullptr ? w.next->prev : tail) = w.prev;
  w.prev = w.next = nullptr;
  w.queued = false;
  waiters.fetch_sub(1, std::memory_order_relaxed);
}

FutexBucket& FutexTable::BucketOf(const FutexKey& key) {
  uint64_t h = reinterpret_cast<uintptr_t>(key.object.get()) ^ (key.offset >> 2) * 0x9e3779b97f4a7c15ull;
  return buckets_[(h >> 24 ^ h >> 40 ^ h) % kBuckets];
}

void FutexTable::Enqueue(FutexWaiter& w) {
  FutexBucket& b = BucketOf(w.key);
  // Counted before the word is looked at, so that a waker that sees no waiter changed the word early enough
  // for us to notice (both sides are sequentially consistent).
  b.waiters.fetch_add(1, std::memory_order_seq_cst);
  MutexLock lock(b.mu);
  b.Append(w);
}

bool FutexTable::Dequeue(FutexWaiter& w) {
  for (;;) {
    FutexBucket* b = w.bucket.load(std::memory_order_acquire);
    MutexLock lock(b->mu);
    if (b != w.bucket.load(std::memory_order_relaxed)) continue;  // requeued meanwhile
    if (!w.queued) return false;
    b->Take(w);
    return true;
  }
}

namespace {

// A waiter's last step, done by whoever took it out, with its bucket locked: afterwards it may be gone.
void Finish(FutexWaiter& w, FutexWaiter::State state) {
  Parker* parker = w.parker;
  w.state.store(state, std::memory_order_release);
  parker->Unpark();
}

}  // namespace

Result<void> FutexTable::Wait(Task& t, GuestAddr addr, bool shared, uint32_t expected, uint32_t bitset,
                              Deadline deadline) {
  if (bitset == 0) return kEINVAL;
  FutexWaiter w;
  w.key = TRY(FutexKey::Make(t.memory(), addr, shared));
  w.bitset = bitset;
  w.parker = &t.parker();
  Enqueue(w);
  Result<uint32_t> word = t.memory().Load32(addr);
  if (!word.ok() || *word != expected) {
    if (!Dequeue(w) && word.ok()) return {};  // woken before we looked: the wake counted us
    return word.ok() ? kEAGAIN : word.error();
  }
  while (w.state.load(std::memory_order_acquire) == FutexWaiter::State::kQueued) {
    Result<void> parked = ParkInterruptible(t, deadline);
    if (!parked.ok()) {
      if (!Dequeue(w)) return {};
      return parked.error();
    }
  }
  Dequeue(w);  // passes through the bucket's lock: the waker has left `w`
  return {};
}

Result<int64_t> FutexTable::WaitMultiple(Task& t, std::span<const FutexWaitSpec> specs, Deadline deadline) {
  std::vector<FutexWaiter> waiters(specs.size());
  for (size_t i = 0; i < specs.size(); ++i) {
    waiters[i].key = TRY(FutexKey::Make(t.memory(), specs[i].addr, specs[i].shared));
    waiters[i].parker = &t.parker();
  }
  size_t queued = 0;
  // Leaves all queues; the last one that had been woken, or -1.
  auto leave = [&] {
    int64_t woken = -1;
    for (size_t i = 0; i < queued; ++i) {
      if (!Dequeue(waiters[i])) woken = static_cast<int64_t>(i);
    }
    return woken;
  };
  for (size_t i = 0; i < specs.size(); ++i) {
    Enqueue(waiters[i]);
    ++queued;
    Result<uint32_t> word = t.memory().Load32(specs[i].addr);
    if (word.ok() && *word == specs[i].expected) continue;
    int64_t woken = leave();
    if (woken >= 0) return woken;
    return word.ok() ? kEAGAIN : word.error();
  }
  for (;;) {
    bool woken = std::any_of(waiters.begin(), waiters.end(), [](const FutexWaiter& w) {
      return w.state.load(std::memory_order_acquire) != FutexWaiter::State::kQueued;
    });
    if (woken) return leave();
    Result<void> parked = ParkInterruptible(t, deadline);
    if (!parked.ok()) {
      int64_t index = leave();
      if (index >= 0) return index;
      return parked.error();
    }
  }
}

int FutexTable::WakeKey(const FutexKey& key, int count, uint32_t bitset) {
  FutexBucket& b = BucketOf(key);
  std::atomic_thread_fence(std::memory_order_seq_cst);  // pairs with Enqueue: the guest's store came first
  if (b.waiters.load(std::memory_order_relaxed) == 0) return 0;
  int woken = 0;
  MutexLock lock(b.mu);
  for (FutexWaiter *w = b.head, *next; w != nullptr && woken < count; w = next) {
    next = w->next;
    if (!(w->key == key) || w->pi || w->wants_requeue_pi || (w->bitset & bitset) == 0) continue;
    b.Take(*w);
    Finish(*w, FutexWaiter::State::kWoken);
    ++woken;
  }
  return woken;
}

Result<int64_t> FutexTable::Wake(MemoryManager& mm, GuestAddr addr, bool shared, int count, uint32_t bitset) {
  if (bitset == 0) return kEINVAL;
  FutexKey key = TRY(FutexKey::Make(mm, addr, shared));
  // Linux wakes one even when asked for none or fewer.
  return WakeKey(key, std::max(count, 1), bitset);
}

Result<int64_t> FutexTable::WakeOp(MemoryManager& mm, GuestAddr addr1, GuestAddr addr2, bool shared, int count1,
                                   int count2, uint32_t encoded) {
  FutexKey key1 = TRY(FutexKey::Make(mm, addr1, shared));
  FutexKey key2 = TRY(FutexKey::Make(mm, addr2, shared));
  uint32_t op = encoded >> 28 & 7;
  uint32_t cmp = encoded >> 24 & 15;
  auto sign_extend12 = [](uint32_t v) { return static_cast<int32_t>(v << 20) >> 20; };
  int32_t oparg = sign_extend12(encoded >> 12 & 0xfff);
  int32_t cmparg = sign_extend12(encoded & 0xfff);
  if (encoded & static_cast<uint32_t>(FUTEX_OP_OPARG_SHIFT) << 28) oparg = static_cast<int32_t>(1u << (oparg & 31));

  uint32_t old = TRY(mm.Load32(addr2));
  for (;;) {
    uint32_t arg = static_cast<uint32_t>(oparg);
    uint32_t desired;
    switch (op) {
      case FUTEX_OP_SET:
        desired = arg;
        break;
      case FUTEX_OP_ADD:
        desired = old + arg;
        break;
      case FUTEX_OP_OR:
        desired = old | arg;
        break;
      case FUTEX_OP_ANDN:
        desired = old & ~arg;
        break;
      case FUTEX_OP_XOR:
        desired = old ^ arg;
        break;
      default:
        return kENOSYS;
    }
    uint32_t seen = TRY(mm.CompareExchange32(addr2, old, desired));
    if (seen == old) break;
    old = seen;
  }
  int32_t before = static_cast<int32_t>(old);
  bool second;
  switch (cmp) {
    case FUTEX_OP_CMP_EQ:
      second = before == cmparg;
      break;
    case FUTEX_OP_CMP_NE:
      second = before != cmparg;
      break;
    case FUTEX_OP_CMP_LT:
      second = before < cmparg;
      break;
    case FUTEX_OP_CMP_LE:
      second = before <= cmparg;
      break;
    case FUTEX_OP_CMP_GT:
      second = before > cmparg;
      break;
    case FUTEX_OP_CMP_GE:
      second = before >= cmparg;
      break;
    default:
      return kENOSYS;
  }
  int64_t woken = WakeKey(key1, std::max(count1, 1), FUTEX_BITSET_MATCH_ANY);
  if (second) woken += WakeKey(key2, std::max(count2, 1), FUTEX_BITSET_MATCH_ANY);
  return woken;
}

Result<int64_t> FutexTable::Requeue(MemoryManager& mm, GuestAddr addr1, bool shared1, GuestAddr addr2, bool shared2,
                                    int wake, int requeue, const uint32_t* expected) {
  if (wake < 0 || requeue < 0) return kEINVAL;
  FutexKey from = TRY(FutexKey::Make(mm, addr1, shared1));
  FutexKey to = TRY(FutexKey::Make(mm, addr2, shared2));
  // Looked at before the buckets are locked: a sleeper that comes later is woken or moved too, which a caller that
  // just saw the expected value cannot tell from one that came earlier.
  if (expected != nullptr && TRY(mm.Load32(addr1)) != *expected) return kEAGAIN;
  FutexBucket& a = BucketOf(from);
  FutexBucket& b = BucketOf(to);
  int64_t woken = 0, moved = 0;
  MutexLock2 lock(a.mu, b.mu);
  for (FutexWaiter *w = a.head, *next; w != nullptr; w = next) {
    next = w->next;
    if (!(w->key == from)) continue;
    if (w->pi || w->wants_requeue_pi) return kEINVAL;  // FUTEX_CMP_REQUEUE_PI is the call for these
    if (woken < wake) {
      a.Take(*w);
      Finish(*w, FutexWaiter::State::kWoken);
      ++woken;
      continue;
    }
    if (moved == requeue) break;
    ++moved;
    if (from == to) continue;
    a.Take(*w);
    w->key = to;
    b.waiters.fetch_add(1, std::memory_order_relaxed);
    b.Append(*w);
  }
  return woken + moved;
}

}  // namespace moat
