// MemoryManager: mremap(2).
#include <sys/mman.h>

#include <algorithm>

#include "sentry/mm/memory_manager.h"

namespace moat {

Result<void> MemoryManager::ResizeCheck(const Vma& vma, uint64_t old_length, uint64_t new_length,
                                        const MmLimits& limits) {
  if (new_length <= old_length) return {};
  const uint64_t growth = new_length - old_length;
  if (vma.Has(kVmaLocked) && !limits.can_lock && totals_.locked + growth > limits.memlock) return kEAGAIN;
  Vma grown = vma;
  grown.start = 0;
  grown.end = growth;
  return CheckLimits(grown, 0, limits);
}

Result<void> MemoryManager::MoveMapping(GuestAddr from, uint64_t old_length, GuestAddr to, uint64_t new_length,
                                        bool keep_old) {
  Vma moved = vmas_.Find(from)->second;
  moved.offset = moved.mappable ? moved.OffsetOf(from) : 0;
  moved.start = to;
  moved.end = to + new_length;
  moved.flags &= ~kVmaAccounted;
  TRY(InsertVma(std::move(moved)));
  if (old_length == 0) return {};  // a second mapping of shared pages: faults bring them in
  const GuestAddr from_end = from + old_length;
  {
    MutexLock pages(pages_mu_);
    pages_.SplitAt(from);
    pages_.SplitAt(from_end);
    std::vector<PageRun> runs;
    for (auto it = pages_.FirstAbove(from); it != pages_.end() && it->second.start < from_end; it = pages_.Erase(it)) {
      runs.push_back(std::move(it->second));
    }
    ForgetSpans();
    if (!runs.empty()) space_->Unmap(from, old_length);
    for (PageRun& run : runs) {
      run.start = run.start - from + to;
      run.end = run.end - from + to;
      run.host_prot = PageRun::kHostUnmapped;
      PageMap::iterator it = pages_.Insert(std::move(run));
      MapRun(it->second);
    }
    pages_.JoinRange(to, to + new_length);
  }
  if (!keep_old) {
    RemoveMappings(from, from_end);
  } else {
    ChangeVmas(from, from_end, [](Vma& v) { v.flags &= ~(kVmaLocked | kVmaLockOnFault); });
  }
  return {};
}

Result<GuestAddr> MemoryManager::MremapLocked(GuestAddr old_addr, uint64_t old_length, uint64_t new_length, int flags,
                                              GuestAddr new_addr, const MmLimits& limits) {
  const bool fixed = (flags & MREMAP_FIXED) != 0;
  const bool keep_old = (flags & MREMAP_DONTUNMAP) != 0;
  GuestAddr old_end, new_end;
  if (!ValidRange(old_addr, old_length, &old_end)) return kEINVAL;
  VmaSet::iterator it = vmas_.Find(old_addr);
  if (it == vmas_.end()) return kEFAULT;
  if (fixed || keep_old) {
    if (new_addr % kPageSize != 0 || !ValidRange(new_addr, new_length, &new_end)) return kEINVAL;
    if (fixed && new_addr < env_.min_address) return kEPERM;
    if (fixed && old_addr < new_end && new_addr < old_end) return kEINVAL;
  }
  if (old_length == 0) {
    if (!it->second.shared()) return kEINVAL;
    if ((flags & MREMAP_MAYMOVE) == 0) return kEINVAL;
  }
  if (keep_old && (it->second.kind != VmaKind::kPlain && it->second.kind != VmaKind::kHeap)) return kEINVAL;

  if (AnySealed(old_addr, std::max(old_end, old_addr + 1)) || (fixed && AnySealed(new_addr, new_end))) return kEPERM;
  if (fixed) {
    RemoveMappings(new_addr, new_end);
    it = vmas_.Find(old_addr);
  }
  if (old_length > new_length) {
    RemoveMappings(old_addr + new_length, old_end);
    old_length = new_length;
    old_end = old_addr + old_length;
    it = vmas_.Find(old_addr);
    if (it == vmas_.end()) return kEFAULT;
    if (!fixed && !keep_old) return old_addr;
  }
  const Vma vma = it->second;
  if (old_length > vma.end - old_addr) return kEFAULT;
  if (old_length == new_length && !fixed && !keep_old) return old_addr;
  TRY(ResizeCheck(vma, keep_old ? 0 : old_length, new_length, limits));

  if (!fixed && !keep_old && old_length != 0 && old_end == vma.end && ValidRange(old_addr, new_length, &new_end) &&
      vmas_.IsFree(old_end, new_end)) {
    Vma more = vma;
    more.flags &= ~kVmaAccounted;
    more.offset = vma.mappable ? vma.OffsetOf(vma.end - kPageSize) + kPageSize : vma.offset + vma.length();
    more.start = old_end;
    more.end = new_end;
    uint64_t offset_end;
    if (vma.mappable && __builtin_add_overflow(more.offset, more.length(), &offset_end)) return kEINVAL;
    TRY(InsertVma(std::move(more)));
    return old_addr;
  }
  if ((flags & MREMAP_MAYMOVE) == 0) return kENOMEM;
  GuestAddr to = new_addr;
  if (!fixed) to = TRY(FindRoom(new_addr, new_length, 0, kPageSize));
  TRY(MoveMapping(old_addr, old_length, to, new_length, keep_old));
  return to;
}

Result<GuestAddr> MemoryManager::Mremap(GuestAddr old_addr, uint64_t old_length, uint64_t new_length, int flags,
                                        GuestAddr new_addr, const MmLimits& limits, Context* caller) {
  NoteLimits(limits);
  if ((flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0) return kEINVAL;
  if ((flags & MREMAP_FIXED) != 0 && (flags & MREMAP_MAYMOVE) == 0) return kEINVAL;
  if ((flags & MREMAP_DONTUNMAP) != 0 && ((flags & MREMAP_MAYMOVE) == 0 || old_length != new_length)) return kEINVAL;
  if (old_addr % kPageSize != 0) return kEINVAL;
  const uint64_t old_rounded = PageCeil(old_length), new_rounded = PageCeil(new_length);
  if (new_rounded == 0 || old_rounded < old_length) return kEINVAL;
  if (new_rounded > env_.max_address) return (flags & MREMAP_FIXED) != 0 ? kEINVAL : kENOMEM;

  UnpatchCalls(old_addr, old_addr + old_rounded);
  bool locked = false;
  Result<GuestAddr> moved = [&]() -> Result<GuestAddr> {
    MutexLock mapping(mapping_mu_);
    const GuestAddr to = TRY(MremapLocked(old_addr, old_rounded, new_rounded, flags, new_addr, limits));
    VmaSet::iterator it = vmas_.Find(to);
    locked = it != vmas_.end() && it->second.Has(kVmaLocked) && !it->second.Has(kVmaLockOnFault);
    return to;
  }();
  Result<void> mapped;
  if (moved.ok()) {
    mapped = MapEagerly(*moved, *moved + new_rounded);
    if ((flags & MREMAP_DONTUNMAP) != 0) (void)MapEagerly(old_addr, old_addr + old_rounded);
    if (locked) (void)Populate(*moved, *moved + new_rounded, false);
  }
  (void)Finish(caller);  // a mapping that the host refused now is tried again by the fault
  return moved;
}

}  // namespace moat
