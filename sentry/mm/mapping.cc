// MemoryManager: mmap(2), munmap(2), mprotect(2), brk(2).
#include <sys/mman.h>

#include <algorithm>

#include "sentry/mm/memory_manager.h"
#include "sentry/mm/shared_memory.h"

namespace moat {
namespace {

constexpr int kProtBits = PROT_READ | PROT_WRITE | PROT_EXEC;
constexpr int kProtSem = 0x8;  // PROT_SEM of asm-generic/mman-common.h: accepted, without a meaning

uint32_t VmaFlagsOf(int map_flags, bool shared) {
  uint32_t flags = shared ? kVmaShared : 0;
  if ((map_flags & MAP_GROWSDOWN) != 0) flags |= kVmaGrowsDown;
  if ((map_flags & MAP_NORESERVE) != 0) flags |= kVmaNoReserve;
  if ((map_flags & MAP_LOCKED) != 0) flags |= kVmaLocked;
  if ((map_flags & MAP_STACK) != 0) flags |= kVmaStackArea | kVmaNoHugePage;
  return flags;
}

}  // namespace

Result<GuestAddr> MemoryManager::Mmap(const MmapRequest& request, const MmLimits& limits, Context* caller) {
  NoteLimits(limits);
  const int type = request.flags & MAP_TYPE;
  const bool shared = type == MAP_SHARED || type == MAP_SHARED_VALIDATE;
  if (!shared && type != MAP_PRIVATE) return kEINVAL;
  if (request.length == 0) return kEINVAL;
  const uint64_t length = PageCeil(request.length);
  if (length == 0 || length > env_.max_address) return kENOMEM;
  if (request.offset % kPageSize != 0) return kEINVAL;
  uint64_t offset_end;
  if (__builtin_add_overflow(request.offset, length, &offset_end)) return kEOVERFLOW;
  if ((request.flags & MAP_GROWSDOWN) != 0 && (shared || request.mappable)) return kEINVAL;
  const uint8_t prot = request.prot & kProtBits;
  if ((prot & ~request.max_prot) != 0) return kEACCES;

  Vma vma;
  vma.prot = prot;
  vma.max_prot = static_cast<uint8_t>(request.max_prot & kProtBits);
  vma.kind = request.kind;
  vma.flags = VmaFlagsOf(request.flags, shared);
  vma.mappable = request.mappable;
  vma.offset = request.mappable ? request.offset : 0;
  vma.source = request.source;
  if (shared && !vma.mappable) {
    RefPtr<SharedMemory> object =
        TRY(SharedMemory::Create(*env_.memory, *env_.commit, length, (request.flags & MAP_NORESERVE) != 0));
    vma.source = MakeRef<NamedMappingSource>("/dev/zero (deleted)");
    vma.mappable = std::move(object);
  }

  const bool fixed = (request.flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) != 0;
  bool populate = (request.flags & MAP_POPULATE) != 0 && (request.flags & MAP_NONBLOCK) == 0;
  {
    MutexLock mapping(mapping_mu_);
    GuestAddr start = request.addr, end;
    uint64_t replaced = 0;
    if (fixed) {
      if (start % kPageSize != 0) return kEINVAL;
      if (!ValidRange(start, length, &end)) return kENOMEM;
      if (start < env_.min_address) return kEPERM;
      if (vmas_.Overlaps(start, end)) {
        if ((request.flags & MAP_FIXED_NOREPLACE) != 0) return kEEXIST;
        if (AnySealed(start, end)) return kEPERM;
        for (auto it = vmas_.FirstAbove(start); it != vmas_.end() && it->second.start < end; ++it)
          replaced += std::min(end, it->second.end) - std::max(start, it->second.start);
      }
    } else {
      // Whole multiples of 2 MiB lie on a border of it, as on Linux since 6.7: they have most room for huge pages so.
      const bool huge = !vma.mappable && start == 0 && length % MemoryFile::kHugePage == 0;
      start = TRY(FindRoom(PageFloor(start), length, request.flags, huge ? MemoryFile::kHugePage : kPageSize));
      end = start + length;
    }
    vma.start = start;
    vma.end = end;
    vma.flags |= future_lock_;
    if (vma.Has(kVmaLocked)) {
      if (!limits.can_lock) {
        if (limits.memlock == 0) return kEPERM;
        if (totals_.locked + length > limits.memlock) return kEAGAIN;
      }
      populate |= !vma.Has(kVmaLockOnFault);
    }
    TRY(CheckLimits(vma, replaced, limits));
    if (replaced != 0) RemoveMappings(start, end);
    TRY(InsertVma(vma));
  }
  // A dynamic loader, which alone says MAP_DENYWRITE, maps a library whole, then its segments over that, and touches
  // them when the last one, which is writable, is there: one batch for all.
  const bool loads = (request.flags & MAP_DENYWRITE) != 0 && vma.mappable && !shared && (prot & PROT_WRITE) == 0;
  const When when = loads && !populate ? When::kLater : When::kNow;
  Result<void> mapped = MapEagerly(vma.start, vma.end, when);
  if (mapped.ok()) PlaceCode(vma, when, limits, caller);
  if (mapped.ok() && populate) (void)Populate(vma.start, vma.end, false);
  if (mapped.ok() && space_->MayWait()) return vma.start;
  Result<void> flushed = Finish(caller);
  if (!mapped.ok() || !flushed.ok()) {
    (void)Munmap(vma.start, length, caller);
    return kENOMEM;
  }
  return vma.start;
}

Result<void> MemoryManager::Munmap(GuestAddr addr, uint64_t length, Context* caller) {
  if (addr % kPageSize != 0) return kEINVAL;
  const uint64_t rounded = PageCeil(length);
  GuestAddr end;
  if (rounded == 0 || !ValidRange(addr, rounded, &end)) return kEINVAL;
  {
    MutexLock mapping(mapping_mu_);
    if (AnySealed(addr, end)) return kEPERM;
    RemoveMappings(addr, end);
  }
  return Finish(caller);
}

void MemoryManager::ChangeVmas(GuestAddr start, GuestAddr end, absl::FunctionRef<void(Vma&)> change) {
  SplitVma(start);
  SplitVma(end);
  for (auto it = vmas_.FirstAbove(start); it != vmas_.end() && it->second.start < end; ++it) {
    CountVma(it->second, -1);
    change(it->second);
    CountVma(it->second, +1);
  }
  JoinVmas(start, end);
}

Result<void> MemoryManager::Mprotect(GuestAddr addr, uint64_t length, int prot, const MmLimits& limits,
                                     Context* caller) {
  NoteLimits(limits);
  const int grows = prot & (PROT_GROWSDOWN | PROT_GROWSUP);
  prot &= ~(PROT_GROWSDOWN | PROT_GROWSUP);
  if ((prot & PROT_WRITE) != 0) UnpatchCalls(addr, addr + length);
  if (grows == (PROT_GROWSDOWN | PROT_GROWSUP)) return kEINVAL;
  if (addr % kPageSize != 0) return kEINVAL;
  if (length == 0) return {};
  const uint64_t rounded = PageCeil(length);
  GuestAddr end;
  if (rounded == 0 || __builtin_add_overflow(addr, rounded, &end)) return kENOMEM;
  if ((prot & ~(kProtBits | kProtSem)) != 0) return kEINVAL;
  const uint8_t bits = prot & kProtBits;

  Result<void> verdict;
  {
    MutexLock mapping(mapping_mu_);
    VmaSet::iterator it = vmas_.FirstAbove(addr);
    if (it == vmas_.end() || it->second.start >= end) return kENOMEM;
    if (grows == PROT_GROWSDOWN) {
      if (!it->second.Has(kVmaGrowsDown)) return kEINVAL;
      addr = it->second.start;
    } else if (it->second.start > addr) {
      return kENOMEM;
    } else if (grows == PROT_GROWSUP) {
      return kEINVAL;  // no area grows upwards on x86
    }
    // Area by area, as Linux does: what was changed before the first refusal stays changed.
    GuestAddr at = addr;
    while (at < end && verdict.ok()) {
      it = vmas_.Find(at);
      if (it == vmas_.end()) {
        verdict = kENOMEM;
        break;
      }
      const Vma vma = it->second;
      const GuestAddr stop = std::min(end, vma.end);
      if ((bits & ~vma.max_prot) != 0) {
        verdict = kEACCES;
        break;
      }
      if (vma.Has(kVmaSealed)) {
        verdict = kEPERM;
        break;
      }
      if (bits != vma.prot) {
        Vma changed = vma;
        changed.prot = bits;
        bool charge = false;
        if (!vma.counts_as_data() && changed.counts_as_data()) {
          const uint64_t n = stop - at;
          if (n > limits.data || totals_.data > limits.data - n) {
            verdict = kENOMEM;
            break;
          }
        }
        if (!vma.shared() && (bits & PROT_WRITE) != 0 && !vma.Has(kVmaAccounted) && !vma.Has(kVmaNoReserve)) {
          verdict = env_.commit->Charge(stop - at);
          if (!verdict.ok()) break;
          charge = true;
        }
        ChangeVmas(at, stop, [&](Vma& v) {
          v.prot = bits;
          if (charge) v.flags |= kVmaAccounted;
        });
        MutexLock pages(pages_mu_);
        ProtectRuns(at, stop, bits);
      }
      at = stop;
    }
  }
  if (bits != 0) {
    Result<void> mapped = MapEagerly(addr, end);
    if (verdict.ok()) verdict = mapped;
  }
  Result<void> flushed = Finish(caller);
  return verdict.ok() ? flushed : verdict;
}

GuestAddr MemoryManager::Brk(GuestAddr addr, const MmLimits& limits, Context* caller) {
  NoteLimits(limits);
  GuestAddr old_end, new_end;
  bool populate = false;
  {
    MutexLock mapping(mapping_mu_);
    if (addr < brk_start_ || addr >= env_.max_address) return brk_;
    const uint64_t data = image_.data_end - image_.data_start;
    if (limits.data != ~0ull && addr - brk_start_ + data > limits.data) return brk_;
    old_end = PageCeil(brk_);
    new_end = PageCeil(addr);
    if (new_end < old_end) {
      if (AnySealed(new_end, old_end)) return brk_;
      RemoveMappings(new_end, old_end);
    } else if (new_end > old_end) {
      // A page of distance to what lies above, as Linux keeps.
      if (new_end + kPageSize > env_.max_address || !vmas_.IsFree(old_end, new_end + kPageSize)) return brk_;
      Vma vma;
      vma.start = old_end;
      vma.end = new_end;
      vma.prot = PROT_READ | PROT_WRITE;
      vma.kind = VmaKind::kHeap;
      vma.flags = future_lock_;
      if (vma.Has(kVmaLocked)) {
        if (!limits.can_lock && totals_.locked + vma.length() > limits.memlock) return brk_;
        populate = !vma.Has(kVmaLockOnFault);
      }
      if (!CheckLimits(vma, 0, limits).ok() || !InsertVma(std::move(vma)).ok()) return brk_;
    }
    brk_ = addr;
  }
  bool failed = false;
  if (new_end > old_end) {
    failed = !MapEagerly(old_end, new_end).ok();
    if (populate) (void)Populate(old_end, new_end, true);
  }
  if (new_end != old_end) failed |= !Finish(caller).ok();
  if (failed && new_end > old_end) return Brk(old_end, limits, caller);
  return addr;
}

}  // namespace moat
