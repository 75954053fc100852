// Mutex and SharedMutex: small, ranked, annotated for clang's thread-safety analysis.
//   Mutex mu_{LockRank::kInode};
//   int size_ ABSL_GUARDED_BY(mu_);
//   MutexLock lock(mu_);
// A mutex blocks the host thread, never a fiber: hold one only for a short straight line, never across
// a suspension (fiber::Suspend checks in debug builds), a host call that may block, or a copy to or from
// guest memory.
#ifndef MOAT_PLATFORM_BASE_MUTEX_H_
#define MOAT_PLATFORM_BASE_MUTEX_H_

#include <atomic>
#include <cstdint>

#include "absl/base/thread_annotations.h"
#include "platform/base/lock_rank.h"

namespace moat {

class ABSL_LOCKABLE Mutex {
 public:
  explicit Mutex(LockRank rank) : rank_(rank) {}
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION() {
    NoteLock(rank_, this);
    uint32_t expected = 0;
    if (!state_.compare_exchange_strong(expected, 1, std::memory_order_acquire)) [[unlikely]]
      LockSlow();
  }
  void Unlock() ABSL_UNLOCK_FUNCTION() {
    NoteUnlock(rank_, this);
    if (state_.exchange(0, std::memory_order_release) == 2) [[unlikely]]
      UnlockSlow();
  }
  bool TryLock() ABSL_EXCLUSIVE_TRYLOCK_FUNCTION(true) {
    uint32_t expected = 0;
    if (!state_.compare_exchange_strong(expected, 1, std::memory_order_acquire)) return false;
    NoteLock(LockRank::kLog, this);
    return true;
  }
  void AssertHeld() const ABSL_ASSERT_EXCLUSIVE_LOCK() {}
  LockRank rank() const { return rank_; }

 private:
  friend class MutexLock2;
  void LockSlow();
  void UnlockSlow();
#ifdef NDEBUG
  static void NoteLock(LockRank, const void*) {}
  static void NoteUnlock(LockRank, const void*) {}
#else
  static void NoteLock(LockRank rank, const void* mutex);
  static void NoteUnlock(LockRank rank, const void* mutex);
#endif

  std::atomic<uint32_t> state_{0};  // 0 free, 1 held, 2 held with waiters
  const LockRank rank_;
};

// Number of ranked mutexes that the calling thread holds; always 0 in release builds.
int HeldLocksForDebug();

class ABSL_SCOPED_LOCKABLE MutexLock {
 public:
  explicit MutexLock(Mutex& mu) ABSL_EXCLUSIVE_LOCK_FUNCTION(mu) : mu_(mu) { mu_.Lock(); }
  ~MutexLock() ABSL_UNLOCK_FUNCTION() { mu_.Unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mu_;
};

// Locks two mutexes of one rank in address order; the two may be the same mutex.
class ABSL_SCOPED_LOCKABLE MutexLock2 {
 public:
  MutexLock2(Mutex& a, Mutex& b) ABSL_EXCLUSIVE_LOCK_FUNCTION(a, b);
  ~MutexLock2() ABSL_UNLOCK_FUNCTION();
  MutexLock2(const MutexLock2&) = delete;
  MutexLock2& operator=(const MutexLock2&) = delete;

 private:
  Mutex* first_;
  Mutex* second_;  // null when both are one
};

// Reader-writer lock: many readers or one writer; writers are preferred over new readers.
class ABSL_LOCKABLE SharedMutex {
 public:
  explicit SharedMutex(LockRank rank) : rank_(rank) {}
  SharedMutex(const SharedMutex&) = delete;
  SharedMutex& operator=(const SharedMutex&) = delete;

  void Lock() ABSL_EXCLUSIVE_LOCK_FUNCTION();
  void Unlock() ABSL_UNLOCK_FUNCTION();
  void LockShared() ABSL_SHARED_LOCK_FUNCTION();
  void UnlockShared() ABSL_UNLOCK_FUNCTION();

 private:
  static constexpr uint32_t kWriter = 1u << 31;
  static constexpr uint32_t kWriterWaiting = 1u << 30;
  std::atomic<uint32_t> state_{0};  // reader count | kWriter | kWriterWaiting
  const LockRank rank_;
};

class ABSL_SCOPED_LOCKABLE ReaderLock {
 public:
  explicit ReaderLock(SharedMutex& mu) ABSL_SHARED_LOCK_FUNCTION(mu) : mu_(mu) { mu_.LockShared(); }
  ~ReaderLock() ABSL_UNLOCK_FUNCTION() { mu_.UnlockShared(); }
  ReaderLock(const ReaderLock&) = delete;

 private:
  SharedMutex& mu_;
};

class ABSL_SCOPED_LOCKABLE WriterLock {
 public:
  explicit WriterLock(SharedMutex& mu) ABSL_EXCLUSIVE_LOCK_FUNCTION(mu) : mu_(mu) { mu_.Lock(); }
  ~WriterLock() ABSL_UNLOCK_FUNCTION() { mu_.Unlock(); }
  WriterLock(const WriterLock&) = delete;

 private:
  SharedMutex& mu_;
};

}  // namespace moat

#endif  // MOAT_PLATFORM_BASE_MUTEX_H_
