// CpuShare: CPU time of tasks without asking the host, for whose clocks of other threads the sentry has no call. Its
// clock runs as the monotonic one while every running task can have a CPU, and slower by CPUs / tasks when more run:
// what a fair scheduler gives to each. So all tasks together never use more than there is. Not seen: other load of the
// host, and tasks that keep to fewer CPUs.
#ifndef MOAT_SENTRY_KERNEL_CPU_SHARE_H_
#define MOAT_SENTRY_KERNEL_CPU_SHARE_H_

#include <atomic>

#include "platform/base/mutex.h"
#include "platform/fiber/clock.h"

namespace moat {

// Thread-safe.
class CpuShare {
 public:
  explicit CpuShare(int cpus, Nanos (*clock)() = MonotonicNow) : cpus_(cpus), clock_(clock) { Rebase(); }
  CpuShare(const CpuShare&) = delete;

  // A task runs, in the guest or in the sentry; it sleeps or ends.
  void Enter() {
    if (running_.fetch_add(1, std::memory_order_relaxed) >= cpus_) Rebase();
  }
  void Leave() {
    if (running_.fetch_sub(1, std::memory_order_relaxed) > cpus_) Rebase();
  }
  // What a task that runs all the time has got so far, nanoseconds from an arbitrary start; never goes back.
  Nanos Now() const;

 private:
  static constexpr int kShift = 32;
  struct Base {
    Nanos real = 0;                          // the reading of clock_ when the speed last changed
    Nanos cpu = 0;                           // and what Now() was
    uint64_t speed = uint64_t{1} << kShift;  // fixed point, at most 1
  };
  static Nanos At(const Base& base, Nanos real);
  Base Load() const;
  void Rebase();

  const int cpus_;
  Nanos (*const clock_)();
  // Read far more often than written, so not in the line of the counter. Odd while a writer is at it.
  alignas(64) std::atomic<int> version_{0};
  std::atomic<Nanos> real_{0}, cpu_{0};
  std::atomic<uint64_t> speed_{uint64_t{1} << kShift};
  alignas(64) std::atomic<int> running_{0};
  Mutex mu_{LockRank::kLeaf};  // of writers
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_CPU_SHARE_H_
