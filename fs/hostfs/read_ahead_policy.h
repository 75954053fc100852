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

// Whether something that is seen is mostly used; what was long ago counts for little.
class UseRatio {
 public:
  void Seen() {
    if (seen_.fetch_add(1, std::memory_order_relaxed) < kMemory) return;
    seen_.store(kMemory / 2, std::memory_order_relaxed);
    used_.store(used_.load(std::memory_order_relaxed) / 2, std::memory_order_relaxed);
  }
  void Used() { used_.fetch_add(1, std::memory_order_relaxed); }
  // At least half of a few.
  bool MostlyUsed() const {
    uint32_t seen = seen_.load(std::memory_order_relaxed);
    return seen >= kFew && used_.load(std::memory_order_relaxed) * 2 >= seen;
  }

 private:
  static constexpr uint32_t kMemory = 64, kFew = 4;
  std::atomic<uint32_t> seen_{0}, used_{0};
};

class ReadAheadPolicy {
 public:
  // Names that the first batch in a directory asks for. A directory that is gone through doubles its own from there.
  static constexpr uint32_t kMinWindow = 4, kMaxWindow = gofer::kMaxLookUp;
  uint32_t first_window() const { return window_.load(std::memory_order_relaxed); }
  // A whole batch was wanted; most of one was not.
  void BatchUsed() { SetWindow(first_window() * 2); }
  void BatchWasted() { SetWindow(first_window() / 2); }

  // Regular files that were looked up and then read, directories that were looked up and then listed.
  UseRatio files, directories;
  // Entries that are no directories, where a caller that goes along a listing came by: whether it looked them up.
  UseRatio plain;
  // What should come along with a lookup of so many names.
  uint32_t Flags(size_t names) const {
    bool donate = files.MostlyUsed() && waiting_fds() + names <= kMaxWaitingFds;
    return (donate ? gofer::kDonate : 0u) | (directories.MostlyUsed() ? gofer::kList : 0u);
  }
  // Descriptors that no lookup has taken yet.
  static constexpr size_t kMaxWaitingFds = 256;
  void FdWaits() { waiting_fds_.fetch_add(1, std::memory_order_relaxed); }
  void FdTaken() { waiting_fds_.fetch_sub(1, std::memory_order_relaxed); }
  size_t waiting_fds() const { return waiting_fds_.load(std::memory_order_relaxed); }

 private:
  void SetWindow(uint32_t n) { window_.store(std::clamp(n, kMinWindow, kMaxWindow), std::memory_order_relaxed); }

  std::atomic<uint32_t> window_{kMinWindow};
  std::atomic<size_t> waiting_fds_{0};
};

}  // namespace moat

#endif  // MOAT_FS_HOSTFS_READ_AHEAD_POLICY_H_
