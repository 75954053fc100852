// VmaSet: the areas of one address space, and the search for free room between them. Not thread-safe.
// Source: mmap(2); Linux's top-down layout and stack guard gap.
#ifndef MOAT_SENTRY_MM_VMA_SET_H_
#define MOAT_SENTRY_MM_VMA_SET_H_

#include <optional>

#include "sentry/mm/range_map.h"
#include "sentry/mm/vma.h"

namespace moat {

// Linux's stack_guard_gap: what must stay free below a growing stack.
inline constexpr uint64_t kStackGuardGap = 256 * kPageSize;

class VmaSet : public RangeMap<Vma> {
 public:
  // The highest free [a, a + length) within [low, high), a full guard gap away from growing stacks above.
  std::optional<GuestAddr> FindTopDown(GuestAddr low, GuestAddr high, uint64_t length);
  // The lowest one.
  std::optional<GuestAddr> FindBottomUp(GuestAddr low, GuestAddr high, uint64_t length);
  // True when [start, end) is free, guard gap of a growing area above included.
  bool IsFree(GuestAddr start, GuestAddr end);

 private:
  // Where the room that `vma` needs begins: below its start when it is a growing stack.
  static GuestAddr GapStart(const Vma& vma) {
    if (!vma.Has(kVmaGrowsDown)) return vma.start;
    return vma.start > kStackGuardGap ? vma.start - kStackGuardGap : 0;
  }
};

}  // namespace moat

#endif  // MOAT_SENTRY_MM_VMA_SET_H_
