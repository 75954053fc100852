#include "sentry/kernel/rlimits.h"

namespace moat {

Rlimits::Rlimits() {
  for (auto& s : soft_) s.store(RLIM_INFINITY, std::memory_order_relaxed);
  hard_.fill(RLIM_INFINITY);
  // Linux's INIT_RLIMITS; what depends on the machine's memory there has the value of a small machine here.
  auto set = [this](int resource, uint64_t soft, uint64_t hard) {
    soft_[resource].store(soft, std::memory_order_relaxed);
    hard_[resource] = hard;
  };
  set(RLIMIT_STACK, 8 << 20, RLIM_INFINITY);
  set(RLIMIT_CORE, 0, RLIM_INFINITY);
  set(RLIMIT_NPROC, 31'000, 31'000);
  set(RLIMIT_NOFILE, 1024, 1 << 20);
  set(RLIMIT_MEMLOCK, 8 << 20, 8 << 20);
  set(RLIMIT_SIGPENDING, 31'000, 31'000);
  set(RLIMIT_MSGQUEUE, 819'200, 819'200);
  set(RLIMIT_NICE, 0, 0);
  set(RLIMIT_RTPRIO, 0, 0);
}

Rlimits::Rlimits(const Rlimits& o) {
  MutexLock lock(o.mu_);
  for (int i = 0; i < kRlimitCount; ++i) soft_[i].store(o.Soft(i), std::memory_order_relaxed);
  hard_ = o.hard_;
}

Rlimit Rlimits::Get(int resource) const {
  MutexLock lock(mu_);
  return {Soft(resource), hard_[resource]};
}

Result<Rlimit> Rlimits::Exchange(int resource, const Rlimit& limit, bool may_raise) {
  if (limit.soft > limit.hard) return kEINVAL;
  MutexLock lock(mu_);
  Rlimit old{Soft(resource), hard_[resource]};
  if (limit.hard > old.hard && !may_raise) return kEPERM;
  soft_[resource].store(limit.soft, std::memory_order_relaxed);
  hard_[resource] = limit.hard;
  return old;
}

void Rlimits::Set(int resource, const Rlimit& limit) {
  MutexLock lock(mu_);
  soft_[resource].store(limit.soft, std::memory_order_relaxed);
  hard_[resource] = limit.hard;
}

}  // namespace moat
