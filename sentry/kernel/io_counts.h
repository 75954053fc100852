// What a task read and wrote, for /proc/<pid>/io. Source: proc_pid_io(5).
#ifndef MOAT_SENTRY_KERNEL_IO_COUNTS_H_
#define MOAT_SENTRY_KERNEL_IO_COUNTS_H_

#include <atomic>
#include <cstdint>

namespace moat {

// Bytes and calls of read(2), write(2) and their like. No disk is behind the sandbox's files that it knows of.
struct IoCounts {
  uint64_t read_bytes = 0, written_bytes = 0, read_calls = 0, write_calls = 0;
  void Add(const IoCounts& o) {
    read_bytes += o.read_bytes;
    written_bytes += o.written_bytes;
    read_calls += o.read_calls;
    write_calls += o.write_calls;
  }
};

// Written by the task itself, read by everybody.
class IoCounter {
 public:
  void CountRead(uint64_t bytes) { Count(read_calls_, read_bytes_, bytes); }
  void CountWrite(uint64_t bytes) { Count(write_calls_, written_bytes_, bytes); }
  IoCounts counts() const {
    return {read_bytes_.load(std::memory_order_relaxed), written_bytes_.load(std::memory_order_relaxed),
            read_calls_.load(std::memory_order_relaxed), write_calls_.load(std::memory_order_relaxed)};
  }

 private:
  static void Count(std::atomic<uint64_t>& calls, std::atomic<uint64_t>& sum, uint64_t bytes) {
    calls.store(calls.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    sum.store(sum.load(std::memory_order_relaxed) + bytes, std::memory_order_relaxed);
  }
  std::atomic<uint64_t> read_bytes_{0}, written_bytes_{0}, read_calls_{0}, write_calls_{0};
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_IO_COUNTS_H_
