// ReadAheadPolicy: how much a file system asks its gofer for before it is wanted, learned from what became of earlier
// answers. Thread-safe; the numbers are hints, so nothing is ordered.
#ifndef MOAT_FS_HOSTFS_READ_AHEAD_POLICY_H_
#define MOAT_FS_HOSTFS_READ_AHEAD_POLICY_H_

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "fs/hostfs/protocol.h"

namespace moat {

class ReadAheadPolicy {
 public:
  // Names that the first batch in a directory asks for. A directory that is gone through doubles its own from there.
  static constexpr uint32_t kMinWindow = 4, kMaxWindow = gofer::kMaxLookUp;
  uint32_t first_window() const { return window_.load(std::memory_order_relaxed); }
  // A whole batch was wanted; most of one was not.
  void BatchUsed() { SetWindow(first_window() * 2); }
  void BatchWasted() { SetWindow(first_window() / 2); }

  // Whether descriptors come along: when at least half of the regular files that were looked up were then read.
  void LookedUp() {
    if (looked_up_.fetch_add(1, std::memory_order_relaxed) < kMemory) return;
    // Older files count for less and less.
    looked_up_.store(kMemory / 2, std::memory_order_relaxed);
    opened_.store(opened_.load(std::memory_order_relaxed) / 2, std::memory_order_relaxed);
  }
  void Opened() { opened_.fetch_add(1, std::memory_order_relaxed); }
  bool Donate(size_t names) const {
    uint32_t looked_up = looked_up_.load(std::memory_order_relaxed);
    return looked_up >= kMinWindow && opened_.load(std::memory_order_relaxed) * 2 >= looked_up &&
           waiting_fds_.load(std::memory_order_relaxed) + names <= kMaxWaitingFds;
  }
  // Descriptors that no lookup has taken yet.
  static constexpr size_t kMaxWaitingFds = 256;
  void FdWaits() { waiting_fds_.fetch_add(1, std::memory_order_relaxed); }
  void FdTaken() { waiting_fds_.fetch_sub(1, std::memory_order_relaxed); }
  size_t waiting_fds() const { return waiting_fds_.load(std::memory_order_relaxed); }

 private:
  static constexpr uint32_t kMemory = 64;
  void SetWindow(uint32_t n) { window_.store(std::clamp(n, kMinWindow, kMaxWindow), std::memory_order_relaxed); }

  std::atomic<uint32_t> window_{kMinWindow};
  std::atomic<uint32_t> looked_up_{0}, opened_{0};
  std::atomic<size_t> waiting_fds_{0};
};

}  // namespace moat

#endif  // MOAT_FS_HOSTFS_READ_AHEAD_POLICY_H_
