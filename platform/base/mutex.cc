#include "platform/base/mutex.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace moat {
namespace {

void FutexWait(std::atomic<uint32_t>& word, uint32_t value) {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nullptr, nullptr, 0);
}
void FutexWake(std::atomic<uint32_t>& word, int count) {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

#ifndef NDEBUG
struct Held {
  LockRank rank;
  const void* mutex;
};
constexpr int kMaxHeld = 32;
thread_local Held held[kMaxHeld];
thread_local int held_count = 0;

// The calling thread is about to take `mutex`: aborts when its order is wrong.
void Note(LockRank rank, const void* mutex) {
  if (held_count == kMaxHeld) {
    fprintf(stderr, "moat: more than %d locks held by one thread\n", kMaxHeld);
    __builtin_trap();  // dies of SIGILL: no host call outside of the lists
  }
  if (rank != LockRank::kLog) {
    for (int i = 0; i < held_count; ++i) {
      if (held[i].rank >= rank && held[i].rank != LockRank::kLog) {
        fprintf(stderr, "moat: lock order: rank %d taken while rank %d is held\n", static_cast<int>(rank),
                static_cast<int>(held[i].rank));
        __builtin_trap();  // dies of SIGILL: no host call outside of the lists
      }
    }
  }
  held[held_count++] = {rank, mutex};
}

void Forget(const void* mutex) {
  for (int i = held_count - 1; i >= 0; --i) {
    if (held[i].mutex != mutex) continue;
    for (int j = i; j + 1 < held_count; ++j) held[j] = held[j + 1];
    --held_count;
    return;
  }
  fprintf(stderr, "moat: a mutex is unlocked by a thread that does not hold it\n");
  __builtin_trap();  // dies of SIGILL: no host call outside of the lists
}
#else
void Note(LockRank, const void*) {}
void Forget(const void*) {}
#endif

}  // namespace

#ifndef NDEBUG
void Mutex::NoteLock(LockRank rank, const void* mutex) { Note(rank, mutex); }
void Mutex::NoteUnlock(LockRank, const void* mutex) { Forget(mutex); }
int HeldLocksForDebug() { return held_count; }
#else
int HeldLocksForDebug() { return 0; }
#endif

void Mutex::LockSlow() {
  // Spin briefly: holders run a short straight line and rarely sleep.
  for (int i = 0; i < 64; ++i) {
    uint32_t expected = 0;
    if (state_.load(std::memory_order_relaxed) == 0 &&
        state_.compare_exchange_weak(expected, 1, std::memory_order_acquire)) {
      return;
    }
    __builtin_ia32_pause();
  }
  while (state_.exchange(2, std::memory_order_acquire) != 0) FutexWait(state_, 2);
}

void Mutex::UnlockSlow() { FutexWake(state_, 1); }

MutexLock2::MutexLock2(Mutex& a, Mutex& b)
    : first_(&a < &b ? &a : &b), second_(&a == &b ? nullptr : (&a < &b ? &b : &a)) {
  first_->Lock();
  if (second_ == nullptr) return;
  uint32_t expected = 0;  // equal ranks: bypass the rank check of Lock, in address order
  if (!second_->state_.compare_exchange_strong(expected, 1, std::memory_order_acquire)) second_->LockSlow();
  Mutex::NoteLock(LockRank::kLog, second_);
}

MutexLock2::~MutexLock2() {
  if (second_ != nullptr) second_->Unlock();
  first_->Unlock();
}

void SharedMutex::Lock() {
  Note(rank_, this);
  uint32_t s = state_.load(std::memory_order_relaxed);
  for (;;) {
    if ((s & ~kWriterWaiting) == 0) {
      if (state_.compare_exchange_weak(s, kWriter, std::memory_order_acquire)) return;
      continue;
    }
    if (!(s & kWriterWaiting)) {
      if (!state_.compare_exchange_weak(s, s | kWriterWaiting, std::memory_order_relaxed)) continue;
      s |= kWriterWaiting;
    }
    FutexWait(state_, s);
    s = state_.load(std::memory_order_relaxed);
  }
}

void SharedMutex::Unlock() {
  Forget(this);
  state_.store(0, std::memory_order_release);
  FutexWake(state_, 1 << 30);
}

void SharedMutex::LockShared() {
  Note(rank_, this);
  uint32_t s = state_.load(std::memory_order_relaxed);
  for (;;) {
    if (!(s & (kWriter | kWriterWaiting))) {
      if (state_.compare_exchange_weak(s, s + 1, std::memory_order_acquire)) return;
      continue;
    }
    FutexWait(state_, s);
    s = state_.load(std::memory_order_relaxed);
  }
}

void SharedMutex::UnlockShared() {
  Forget(this);
  uint32_t s = state_.fetch_sub(1, std::memory_order_release) - 1;
  if (s == kWriterWaiting) FutexWake(state_, 1 << 30);
}

}  // namespace moat
