// GuestMemory: the only way to touch a guest address. Implemented by sentry/mm's MemoryManager.
// Contract: copies never block on guest activity; they may fault pages in. A short count means that the
// byte at `addr + count` is not accessible (EFAULT). Never called with a ranked mutex held.
// Thread-safe. Source: copy_from_user/copy_to_user, access rules of mmap(2).
#ifndef MOAT_PLATFORM_USERMEM_GUEST_MEMORY_H_
#define MOAT_PLATFORM_USERMEM_GUEST_MEMORY_H_

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "platform/base/result.h"

namespace moat {

using GuestAddr = uint64_t;

inline constexpr uint64_t kPageSize = 4096;
inline constexpr uint64_t PageFloor(uint64_t x) { return x & ~(kPageSize - 1); }
// Wraps to 0 above the last page: check the guest's value first.
inline constexpr uint64_t PageCeil(uint64_t x) { return (x + kPageSize - 1) & ~(kPageSize - 1); }

// What a callback over host segments did: how many bytes, or why none.
using SegmentIo = absl::FunctionRef<Result<size_t>(const iovec* segments, int count)>;

class GuestMemory {
 public:
  virtual ~GuestMemory() = default;

  // Bytes copied, `n` unless a fault stopped it.
  virtual size_t CopyIn(void* dst, GuestAddr src, size_t n) = 0;
  virtual size_t CopyOut(GuestAddr dst, const void* src, size_t n) = 0;
  virtual size_t ZeroOut(GuestAddr dst, size_t n) = 0;

  // Translates [addr, addr+n) to host addresses valid during `io` (at most 16 segments; the range may
  // be cut short, never to 0) and calls `io` once, for a host call that moves data straight to or from
  // the guest. kEFAULT when not even the first byte is accessible. `to_guest`: the callback writes the memory.
  virtual Result<size_t> WithSegments(GuestAddr addr, size_t n, bool to_guest, SegmentIo io) = 0;

  // Atomic operations on aligned guest words (kEINVAL if not aligned), for futexes and rseq.
  virtual Result<uint32_t> Load32(GuestAddr addr) = 0;
  // Stores `desired` if the word is `expected`; returns the word's value before.
  virtual Result<uint32_t> CompareExchange32(GuestAddr addr, uint32_t expected, uint32_t desired) = 0;
};

}  // namespace moat

#endif  // MOAT_PLATFORM_USERMEM_GUEST_MEMORY_H_
