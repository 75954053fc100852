// Resource limits of a thread group, and the accounts of a user that some of them count against.
// Thread-safe. Source: getrlimit(2), prlimit(2).
#ifndef MOAT_SENTRY_KERNEL_RLIMITS_H_
#define MOAT_SENTRY_KERNEL_RLIMITS_H_

#include <sys/resource.h>

#include <array>
#include <atomic>
#include <cstdint>

#include "platform/base/mutex.h"
#include "platform/base/ref_ptr.h"
#include "platform/base/result.h"
#include "platform/cred/user_namespace.h"

namespace moat {

inline constexpr int kRlimitCount = 16;  // RLIM_NLIMITS of the kernel: RLIMIT_CPU..RLIMIT_RTTIME

struct Rlimit {
  uint64_t soft = ~uint64_t{0};
  uint64_t hard = ~uint64_t{0};
};

class Rlimits {
 public:
  Rlimits();  // Linux's defaults for init
  Rlimits(const Rlimits& o);
  Rlimit Get(int resource) const;
  uint64_t Soft(int resource) const { return soft_[resource].load(std::memory_order_relaxed); }
  // Sets and returns the one before; the permission to raise is the caller's check (`may_raise`): kEPERM.
  Result<Rlimit> Exchange(int resource, const Rlimit& limit, bool may_raise);
  void Set(int resource, const Rlimit& limit);

 private:
  mutable Mutex mu_{LockRank::kLeaf};
  std::array<std::atomic<uint64_t>, kRlimitCount> soft_;
  std::array<uint64_t, kRlimitCount> hard_ ABSL_GUARDED_BY(mu_);
};

// What one real user id has in use over all its processes (Linux's user_struct).
class UserAccount : public RefCounted {
 public:
  explicit UserAccount(Kuid uid) : uid(uid) {}
  const Kuid uid;
  std::atomic<int64_t> processes{0};       // tasks: RLIMIT_NPROC
  std::atomic<int64_t> queued_signals{0};  // RLIMIT_SIGPENDING
  std::atomic<int64_t> mqueue_bytes{0};    // RLIMIT_MSGQUEUE
  std::atomic<int64_t> pipe_pages{0};
  std::atomic<int64_t> inotify_instances{0};
  std::atomic<int64_t> in_flight_files{0};  // descriptors in AF_UNIX messages: RLIMIT_NOFILE (ETOOMANYREFS)
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_RLIMITS_H_
