#include "sentry/kernel/rlimits.h"

namespace moat {

namespace {

// Linux's INIT_RLIMITS; what depends on the machine's memory there has the value of a small machine here.
constexpr struct {
  int resource;
  Rlimit limit;
} kDefaults[] = {
    {RLIMIT_STACK, {8 << 20, RLIM_INFINITY}},
    {RLIMIT_CORE, {0, RLIM_INFINITY}},
    {RLIMIT_NPROC, {31'000, 31'000}},
    {RLIMIT_NOFILE, {1024, 1 << 20}},
    {RLIMIT_MEMLOCK, {8 << 20, 8 << 20}},
    {RLIMIT_SIGPENDING, {31'000, 31'000}},
    {RLIMIT_MSGQUEUE, {819'200, 819'200}},
    {RLIMIT_NICE, {0, 0}},
    {RLIMIT_RTPRIO, {0, 0}},
};

}  // namespace

Rlimits::Rlimits() {
  for (auto& s : soft_) s.store(RLIM_INFINITY, std::memory_order_relaxed);
  hard_.fill(RLIM_INFINITY);
  for (const auto& [resource, limit] : kDefaults) {
    soft_[resource].store(limit.soft, std::memory_order_relaxed);
    hard_[resource] = limit.hard;
  }
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
