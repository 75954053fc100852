// MemoryManager: mseal(2), and remap_file_pages(2), which Linux too makes of mmap.
#include <sys/mman.h>

#include <algorithm>

#include "sentry/mm/memory_manager.h"

namespace moat {

bool MemoryManager::AnySealed(GuestAddr start, GuestAddr end) {
  for (auto it = vmas_.FirstAbove(start); it != vmas_.end() && it->second.start < end; ++it)
    if (it->second.Has(kVmaSealed)) return true;
  return false;
}

Result<void> MemoryManager::Mseal(GuestAddr addr, uint64_t length) {
  const uint64_t rounded = PageCeil(length);
  GuestAddr end;
  if (addr % kPageSize != 0 || (length != 0 && rounded == 0) || __builtin_add_overflow(addr, rounded, &end))
    return kEINVAL;
  if (rounded == 0) return {};
  MutexLock mapping(mapping_mu_);
  if (!FullyMapped(addr, end)) return kENOMEM;
  ChangeVmas(addr, end, [](Vma& v) { v.flags |= kVmaSealed; });
  return {};
}

Result<void> MemoryManager::RemapFilePages(GuestAddr addr, uint64_t length, uint64_t offset, const MmLimits& limits,
                                           Context* caller) {
  addr = PageFloor(addr);
  length = PageFloor(length);
  GuestAddr end;
  uint64_t last;
  if (__builtin_add_overflow(addr, length, &end) || end <= addr) return kEINVAL;
  if (__builtin_add_overflow(offset, length, &last)) return kEINVAL;
  MmapRequest request;
  {
    MutexLock mapping(mapping_mu_);
    VmaSet::iterator it = vmas_.Find(addr);
    if (it == vmas_.end() || !it->second.shared()) return kEINVAL;
    const Vma& first = it->second;
    // Pieces of one object that earlier calls have left side by side count as one area.
    GuestAddr at = first.end;
    for (auto next = it; at < end; at = next->second.end) {
      if (++next == vmas_.end() || next->second.start != at || next->second.mappable != first.mappable ||
          next->second.flags != first.flags || next->second.prot != first.prot) {
        return kEINVAL;
      }
    }
    request.prot = first.prot;
    request.max_prot = first.max_prot;
    request.mappable = first.mappable;
    request.source = first.source;
    request.kind = first.kind;
    if (first.Has(kVmaLocked)) request.flags = MAP_LOCKED;
  }
  request.addr = addr;
  request.length = length;
  request.offset = offset;
  request.flags |= MAP_SHARED | MAP_FIXED | MAP_POPULATE;
  TRY(Mmap(request, limits, caller));
  return {};
}

}  // namespace moat
