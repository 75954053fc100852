#include "sentry/kernel/cpu_share.h"

#include <algorithm>
#include <climits>

namespace moat {

Nanos CpuShare::At(const Base& base, Nanos real) {
  const Nanos passed = std::max<Nanos>(real - base.real, 0);
  return base.cpu + static_cast<Nanos>(static_cast<unsigned __int128>(passed) * base.speed >> kShift);
}

CpuShare::Base CpuShare::Load() const {
  return {real_.load(std::memory_order_relaxed), cpu_.load(std::memory_order_relaxed),
          speed_.load(std::memory_order_relaxed)};
}

Nanos CpuShare::Now() const {
  for (;;) {
    const int before = version_.load(std::memory_order_acquire);
    const Base base = Load();
    // Read before the second look at the version, as a writer reads it after its first mark: old speeds end where new
    // ones begin, or the clock would go back.
    const Nanos real = clock_();
    std::atomic_thread_fence(std::memory_order_acquire);
    if ((before & 1) == 0 && version_.load(std::memory_order_relaxed) == before) [[likely]]
      return At(base, real);
    if ((before & 1) != 0) version_.wait(before);
  }
}

void CpuShare::Rebase() {
  MutexLock lock(mu_);
  const int version = version_.load(std::memory_order_relaxed);
  version_.store(version + 1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_seq_cst);
  const Base old = Load();
  // Whoever changes the count across the number of CPUs comes here afterwards: the last one sees what holds.
  const int running = std::max(running_.load(std::memory_order_relaxed), cpus_);
  const Nanos real = clock_();
  cpu_.store(old.real == 0 ? real : At(old, real), std::memory_order_relaxed);
  real_.store(real, std::memory_order_relaxed);
  speed_.store((static_cast<uint64_t>(cpus_) << kShift) / running, std::memory_order_relaxed);
  version_.store(static_cast<int>((static_cast<unsigned>(version) + 2) & INT_MAX), std::memory_order_release);
  version_.notify_all();
}

}  // namespace moat
