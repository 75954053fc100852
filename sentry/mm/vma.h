// Vma: one virtual memory area of a guest address space, as mmap(2) made it. What really backs its pages is
// in the page map (page_map.h). Value type; guarded by MemoryManager's mapping lock.
// Source: mmap(2), madvise(2), proc_pid_maps(5); Linux's struct vm_area_struct.
#ifndef MOAT_SENTRY_MM_VMA_H_
#define MOAT_SENTRY_MM_VMA_H_

#include <sys/mman.h>

#include <cstdint>
#include <string>

#include "platform/base/ref_ptr.h"
#include "platform/memory/mappable.h"
#include "platform/usermem/guest_memory.h"

namespace moat {

// Where a mapping's name in /proc/<pid>/maps comes from. The file layer implements it over a file
// description and so keeps the file alive as long as it is mapped. Thread-safe.
class MappingSource : public RefCounted {
 public:
  // "/usr/lib/libc.so.6", "/dev/zero (deleted)", "[anon:name]".
  virtual std::string MapsName() const = 0;
  // The file description behind it, opaque to mm; null when there is none.
  virtual RefPtr<RefCounted> file() const { return nullptr; }
};

// A fixed name, for prctl(PR_SET_VMA_ANON_NAME) and objects without a path.
class NamedMappingSource final : public MappingSource {
 public:
  explicit NamedMappingSource(std::string name) : name_(std::move(name)) {}
  std::string MapsName() const override { return name_; }

 private:
  const std::string name_;
};

enum class VmaKind : uint8_t { kPlain, kHeap, kStack, kVdso, kVvar };

using VmaFlag = uint32_t;
inline constexpr VmaFlag kVmaShared = 1u << 0;
inline constexpr VmaFlag kVmaGrowsDown = 1u << 1;
inline constexpr VmaFlag kVmaNoReserve = 1u << 2;
inline constexpr VmaFlag kVmaLocked = 1u << 3;
inline constexpr VmaFlag kVmaLockOnFault = 1u << 4;
inline constexpr VmaFlag kVmaDontFork = 1u << 5;
inline constexpr VmaFlag kVmaWipeOnFork = 1u << 6;
inline constexpr VmaFlag kVmaDontDump = 1u << 7;
inline constexpr VmaFlag kVmaHugePage = 1u << 8;
inline constexpr VmaFlag kVmaNoHugePage = 1u << 9;
inline constexpr VmaFlag kVmaSequential = 1u << 11;
inline constexpr VmaFlag kVmaRandom = 1u << 12;
inline constexpr VmaFlag kVmaAccounted = 1u << 13;  // counted by the commit account
inline constexpr VmaFlag kVmaSealed = 1u << 14;     // mseal(2)
inline constexpr VmaFlag kVmaStackArea = 1u << 15;  // MAP_STACK

struct Vma {
  GuestAddr start = 0;
  GuestAddr end = 0;
  uint8_t prot = 0;      // PROT_READ | PROT_WRITE | PROT_EXEC
  uint8_t max_prot = 7;  // what mprotect may give
  VmaKind kind = VmaKind::kPlain;
  uint32_t flags = 0;  // VmaFlag
  // Null for private anonymous memory. Shared anonymous memory has a SharedMemory.
  RefPtr<Mappable> mappable;
  uint64_t offset = 0;  // of `start` in the mappable
  RefPtr<MappingSource> source;

  uint64_t length() const { return end - start; }
  bool shared() const { return (flags & kVmaShared) != 0; }
  bool Has(VmaFlag f) const { return (flags & f) != 0; }  // one of them
  bool accessible() const { return prot != 0; }
  bool anonymous_private() const { return !mappable; }
  bool shared_writable() const { return shared() && (max_prot & PROT_WRITE) != 0; }
  // Private memory that its process may dirty: what RLIMIT_DATA and VmData count (stack excepted).
  bool counts_as_data() const {
    return !shared() && (prot & PROT_WRITE) != 0 && kind != VmaKind::kStack && !Has(kVmaGrowsDown);
  }
  // Private code that its process cannot write to as it is.
  bool constant_code() const {
    return !shared() && kind == VmaKind::kPlain &&
           (prot & (PROT_READ | PROT_WRITE | PROT_EXEC)) == (PROT_READ | PROT_EXEC);
  }
  uint64_t OffsetOf(GuestAddr addr) const { return offset + (addr - start); }
  void CutFront(GuestAddr addr) {
    offset += addr - start;
    start = addr;
  }
  void CutBack(GuestAddr addr) { end = addr; }
  // True when `next`, which starts where this ends, could be one area with it.
  bool Continues(const Vma& next) const {
    return end == next.start && prot == next.prot && max_prot == next.max_prot && kind == next.kind &&
           flags == next.flags && mappable == next.mappable && source == next.source &&
           (!mappable || offset + length() == next.offset);
  }
};

}  // namespace moat

#endif  // MOAT_SENTRY_MM_VMA_H_
