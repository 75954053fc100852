// CopyEpoch: grace periods for memory that copies may still be touching. A copy finds a page under a lock, lets go
// of the lock and then copies; whoever takes the page away meanwhile must not let it be used for something else
// before that copy has ended.
//   reader:  CopyEpoch::Section section(epoch);  look up, copy
//   owner:   make the page unreachable;  stamp = epoch.Stamp();  ...  if (epoch.Reached(stamp)) reuse
// Sections are short and must not nest with a wait for the same epoch inside. Lock-free; thread-safe.
#ifndef MOAT_PLATFORM_MEMORY_COPY_EPOCH_H_
#define MOAT_PLATFORM_MEMORY_COPY_EPOCH_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace moat {

class CopyEpoch {
 public:
  class Section {
   public:
    explicit Section(CopyEpoch& e) : counter_(e.Enter()) {}
    ~Section() { counter_.fetch_sub(1, std::memory_order_release); }
    Section(const Section&) = delete;
    Section& operator=(const Section&) = delete;

   private:
    std::atomic<uint32_t>& counter_;
  };

  // Call it after the object was made unreachable.
  uint64_t Stamp() const { return current_.load(std::memory_order_seq_cst); }

  // True when every section that may have seen what was retired at `stamp` has ended.
  bool Reached(uint64_t stamp) {
    for (;;) {
      uint64_t now = current_.load(std::memory_order_seq_cst);
      if (now >= stamp + 2) return true;
      if (Active(now + 1)) return false;  // sections of epoch now-1 are still running
      current_.compare_exchange_strong(now, now + 1, std::memory_order_seq_cst);
    }
  }
  // Waits until Reached(stamp). The caller is in no section of this epoch.
  void Wait(uint64_t stamp);

 private:
  static constexpr size_t kShards = 8;
  struct alignas(64) Shard {
    std::atomic<uint32_t> active[2] = {0, 0};
  };

  std::atomic<uint32_t>& Enter() {
    static std::atomic<uint32_t> next{0};
    thread_local const size_t shard = next.fetch_add(1, std::memory_order_relaxed) % kShards;
    for (;;) {
      const uint64_t now = current_.load(std::memory_order_seq_cst);
      std::atomic<uint32_t>& counter = shards_[shard].active[now & 1];
      counter.fetch_add(1, std::memory_order_seq_cst);
      // A count that was raised for an epoch already past could be missed by Reached: try again.
      if (current_.load(std::memory_order_seq_cst) == now) [[likely]]
        return counter;
      counter.fetch_sub(1, std::memory_order_release);
    }
  }
  bool Active(uint64_t epoch) const {
    for (const Shard& s : shards_)
      if (s.active[epoch & 1].load(std::memory_order_seq_cst) != 0) return true;
    return false;
  }

  std::atomic<uint64_t> current_{2};
  Shard shards_[kShards];
};

// The one that all copies to and from memory-file pages enter; MemoryFile waits for it before it reuses pages.
CopyEpoch& MemoryCopyEpoch();

}  // namespace moat

#endif  // MOAT_PLATFORM_MEMORY_COPY_EPOCH_H_
