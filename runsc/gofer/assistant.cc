#include "runsc/gofer/assistant.h"

#include <immintrin.h>

namespace moat::gofer {
namespace {
// About as long as the job that the assistant is still at when there are no more. To sleep and be woken takes longer.
constexpr int kPatience = 500;

}  // namespace

void Assistant::TakeJobs() {
  for (;;) {
    const uint32_t i = next_.fetch_add(1, std::memory_order_relaxed);
    if (i >= count_) return;
    (*job_)(i);
  }
}

void Assistant::Share(uint32_t count, Job job) {
  uint32_t state = kIdle;
  if (count < kMany || !state_.compare_exchange_strong(state, kClaimed, std::memory_order_acquire)) {
    for (uint32_t i = 0; i < count; ++i) job(i);
    return;
  }
  job_ = &job;
  count_ = count;
  next_.store(0, std::memory_order_relaxed);
  state_.store(kOffered, std::memory_order_release);
  state_.notify_one();
  TakeJobs();
  state = kOffered;
  // Not taken: the assistant is asleep, or has no CPU.
  if (state_.compare_exchange_strong(state, kIdle, std::memory_order_acq_rel)) return;
  for (int i = 0; i < kPatience && state != kDone; ++i) {
    _mm_pause();
    state = state_.load(std::memory_order_acquire);
  }
  while (state != kDone) {
    state_.wait(state, std::memory_order_acquire);
    state = state_.load(std::memory_order_acquire);
  }
  state_.store(kIdle, std::memory_order_release);
}

void Assistant::Work() {
  uint32_t state = kNobody;
  state_.compare_exchange_strong(state, kIdle);
  for (;;) {
    state = kOffered;
    if (state_.compare_exchange_strong(state, kTaken, std::memory_order_acquire)) {
      TakeJobs();
      state_.store(kDone, std::memory_order_release);
      state_.notify_one();
    } else if (state == kStopped) {
      return;
    } else {
      state_.wait(state, std::memory_order_relaxed);
    }
  }
}

void Assistant::Stop() {
  state_.store(kStopped);
  state_.notify_one();
}

}  // namespace moat::gofer
