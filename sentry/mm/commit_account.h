// CommitAccount: how much memory the guest's address spaces have promised, and vm.overcommit_memory's verdict on
// more. One per sandbox. Lock-free; thread-safe.
// Source: Documentation/mm/overcommit-accounting.rst, proc(5) on overcommit_memory and Committed_AS.
#ifndef MOAT_SENTRY_MM_COMMIT_ACCOUNT_H_
#define MOAT_SENTRY_MM_COMMIT_ACCOUNT_H_

#include <atomic>
#include <cstdint>

#include "platform/base/result.h"

namespace moat {

class CommitAccount {
 public:
  enum class Mode : int { kHeuristic = 0, kAlways = 1, kNever = 2 };

  // `total`: bytes of memory that the sandbox shows as MemTotal.
  explicit CommitAccount(uint64_t total) : total_(total) {}

  // kENOMEM: refused, nothing charged. Heuristic mode refuses only a single request beyond all memory.
  Result<void> Charge(uint64_t bytes);
  void Uncharge(uint64_t bytes) { committed_.fetch_sub(bytes, std::memory_order_relaxed); }

  uint64_t total() const { return total_; }
  uint64_t committed() const { return committed_.load(std::memory_order_relaxed); }
  // CommitLimit of /proc/meminfo.
  uint64_t limit() const;
  Mode mode() const { return mode_.load(std::memory_order_relaxed); }
  void set_mode(Mode m) { mode_.store(m, std::memory_order_relaxed); }
  int ratio() const { return ratio_.load(std::memory_order_relaxed); }
  void set_ratio(int percent) { ratio_.store(percent, std::memory_order_relaxed); }

 private:
  const uint64_t total_;
  std::atomic<uint64_t> committed_{0};
  std::atomic<Mode> mode_{Mode::kHeuristic};
  std::atomic<int> ratio_{50};
};

}  // namespace moat

#endif  // MOAT_SENTRY_MM_COMMIT_ACCOUNT_H_
