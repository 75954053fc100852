// MemoryManager: msync(2), mlock(2) and its family, mincore(2), prefaulting.
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstring>

#include "sentry/mm/committed.h"
#include "sentry/mm/memory_manager.h"

namespace moat {
namespace {

// Sets bit 0 for each page of the memory file's range that has memory behind it.
void MarkCommitted(int fd, FileRange range, uint8_t* pages) {
  (void)VisitCommitted(fd, range, INT_MAX, [&](FileRange piece) {
    memset(pages + (piece.start - range.start) / kPageSize, 1, PageCeil(piece.length()) / kPageSize);
  });
}

}  // namespace

FaultOutcome MemoryManager::Populate(GuestAddr start, GuestAddr end, bool write) {
  for (GuestAddr at = start; at < end;) {
    bool store = write;
    {
      // Private memory that may be written gets its own pages now (Linux's populate_vma_page_range).
      MutexLock mapping(mapping_mu_);
      VmaSet::iterator vma = vmas_.Find(at);
      if (vma != vmas_.end() && !vma->second.shared() && (vma->second.prot & PROT_WRITE) != 0) store = true;
    }
    FaultOutcome outcome = Resolve(at, store ? Access::kWrite : Access::kRead);
    if (!outcome.resolved()) return outcome;
    GuestAddr next = at + kPageSize;
    bool commit = false;
    {
      MutexLock pages(pages_mu_);
      PageMap::iterator it = pages_.Find(at);
      if (it != pages_.end()) {
        next = std::min(it->second.end, end);
        // Private memory that is only read would be the page of zeros: it stays a hole.
        commit = it->second.in_memory_file && (store || !it->second.owned);
      }
    }
    if (commit) CommitPages(at, next);
    at = next;
  }
  return {};
}

void MemoryManager::AwaitStores(GuestAddr start, GuestAddr end) {
  MutexLock pages(pages_mu_);
  pages_.SplitAt(start);
  pages_.SplitAt(end);
  bool changed = false;
  for (PageMap::iterator it = pages_.FirstAbove(start); it != pages_.end() && it->second.start < end; ++it) {
    PageRun& run = it->second;
    if (run.owned || !run.fd_writable || kept_.lower_bound(run.start) != kept_.lower_bound(run.end)) continue;
    run.fd_writable = false;
    changed = true;
    if (run.host_prot == PageRun::kHostUnmapped || run.host_prot == run.AllowedHostProt()) continue;
    run.host_prot = run.AllowedHostProt();
    space_->Protect(run.start, run.length(), run.host_prot);
    changes_.fetch_add(1, std::memory_order_relaxed);
  }
  if (changed) ForgetSpans();
  pages_.JoinRange(start, end);
}

Result<void> MemoryManager::Msync(GuestAddr addr, uint64_t length, int flags, Context* caller) {
  if ((flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC)) != 0 || addr % kPageSize != 0) return kEINVAL;
  if ((flags & MS_ASYNC) != 0 && (flags & MS_SYNC) != 0) return kEINVAL;
  const uint64_t rounded = PageCeil(length);
  GuestAddr end;
  if ((length != 0 && rounded == 0) || __builtin_add_overflow(addr, rounded, &end)) return kENOMEM;
  bool hole = false;
  for (GuestAddr at = addr; at < end;) {
    Vma vma;
    {
      MutexLock mapping(mapping_mu_);
      VmaSet::iterator it = vmas_.FirstAbove(at);
      if (it == vmas_.end() || it->second.start >= end) {
        hole = true;
        break;
      }
      vma = it->second;
    }
    hole |= vma.start > at;
    at = std::max(at, vma.start);
    const GuestAddr stop = std::min(end, vma.end);
    if ((flags & MS_INVALIDATE) != 0 && vma.Has(kVmaLocked)) return kEBUSY;
    if ((flags & MS_SYNC) != 0 && vma.shared() && vma.mappable) TRY(vma.mappable->Sync(vma.OffsetOf(at), stop - at));
    if (vma.shared_writable() && vma.mappable && vma.mappable->notes_stores()) {
      AwaitStores(at, stop);
      TRY(Finish(caller));
    }
    at = stop;
  }
  if (hole) return kENOMEM;
  return {};
}

Result<void> MemoryManager::Mlock(GuestAddr addr, uint64_t length, bool on_fault, const MmLimits& limits,
                                  Context* caller) {
  NoteLimits(limits);
  if (!limits.can_lock && limits.memlock == 0) return kEPERM;
  const uint64_t rounded = PageCeil(length + addr % kPageSize);
  addr = PageFloor(addr);
  GuestAddr end;
  if (__builtin_add_overflow(addr, rounded, &end) || (rounded == 0 && length != 0)) return kEINVAL;
  if (rounded == 0) return {};
  {
    MutexLock mapping(mapping_mu_);
    uint64_t already = 0;
    for (auto it = vmas_.FirstAbove(addr); it != vmas_.end() && it->second.start < end; ++it)
      if (it->second.Has(kVmaLocked)) already += std::min(end, it->second.end) - std::max(addr, it->second.start);
    if (!limits.can_lock && totals_.locked - already + rounded > limits.memlock) return kENOMEM;
    if (!FullyMapped(addr, end)) return kENOMEM;
    ChangeVmas(addr, end, [on_fault](Vma& v) {
      v.flags = (v.flags & ~kVmaLockOnFault) | kVmaLocked | (on_fault ? kVmaLockOnFault : 0);
    });
  }
  FaultOutcome outcome;
  if (!on_fault) outcome = Populate(addr, end, false);
  (void)Finish(caller);
  if (!outcome.resolved()) return outcome.signo == SIGBUS ? kEAGAIN : kENOMEM;
  return {};
}

Result<void> MemoryManager::Munlock(GuestAddr addr, uint64_t length) {
  const uint64_t rounded = PageCeil(length + addr % kPageSize);
  addr = PageFloor(addr);
  GuestAddr end;
  if (__builtin_add_overflow(addr, rounded, &end) || (rounded == 0 && length != 0)) return kEINVAL;
  if (rounded == 0) return {};
  MutexLock mapping(mapping_mu_);
  const bool whole = FullyMapped(addr, end);
  ChangeVmas(addr, end, [](Vma& v) { v.flags &= ~(kVmaLocked | kVmaLockOnFault); });
  if (!whole) return kENOMEM;
  return {};
}

Result<void> MemoryManager::Mlockall(int flags, const MmLimits& limits, Context* caller) {
  constexpr int kOnFault = MCL_ONFAULT;
  NoteLimits(limits);
  if (flags == 0 || (flags & ~(MCL_CURRENT | MCL_FUTURE | kOnFault)) != 0 || flags == kOnFault) return kEINVAL;
  if (!limits.can_lock && limits.memlock == 0) return kEPERM;
  const uint32_t lock = kVmaLocked | ((flags & kOnFault) != 0 ? kVmaLockOnFault : 0u);
  std::vector<std::pair<GuestAddr, GuestAddr>> areas;
  {
    MutexLock mapping(mapping_mu_);
    if ((flags & MCL_CURRENT) != 0 && !limits.can_lock && totals_.size > limits.memlock) return kENOMEM;
    future_lock_ = (flags & MCL_FUTURE) != 0 ? lock : 0;
    if ((flags & MCL_CURRENT) != 0) {
      ChangeVmas(0, env_.max_address, [lock](Vma& v) {
        if (v.kind == VmaKind::kPlain || v.kind == VmaKind::kHeap || v.kind == VmaKind::kStack)
          v.flags = (v.flags & ~kVmaLockOnFault) | lock;
      });
      if ((flags & kOnFault) == 0)
        for (const auto& [start, vma] : vmas_)
          if (vma.accessible()) areas.emplace_back(vma.start, vma.end);
    }
  }
  for (const auto& [start, end] : areas) (void)Populate(start, end, false);
  (void)Finish(caller);
  return {};
}

void MemoryManager::Munlockall() {
  MutexLock mapping(mapping_mu_);
  future_lock_ = 0;
  ChangeVmas(0, env_.max_address, [](Vma& v) { v.flags &= ~(kVmaLocked | kVmaLockOnFault); });
}

Result<void> MemoryManager::Mincore(GuestAddr addr, uint64_t length, std::vector<uint8_t>& out) {
  if (addr % kPageSize != 0) return kEINVAL;
  const uint64_t rounded = PageCeil(length);
  GuestAddr end;
  if ((length != 0 && rounded == 0) || !ValidRange(addr, rounded, &end)) return kENOMEM;
  out.assign(rounded / kPageSize, 0);
  if (rounded == 0) return {};
  struct Piece {
    GuestAddr start;
    FileRange range;
  };
  std::vector<Piece> pieces;
  {
    MutexLock mapping(mapping_mu_);
    if (!FullyMapped(addr, end)) return kENOMEM;
    MutexLock pages(pages_mu_);
    for (auto it = pages_.FirstAbove(addr); it != pages_.end() && it->second.start < end; ++it) {
      const PageRun& run = it->second;
      const GuestAddr from = std::max(addr, run.start), to = std::min(end, run.end);
      if (run.in_memory_file) {
        pieces.push_back({from, {run.OffsetOf(from), run.OffsetOf(from) + (to - from)}});
      } else {
        // The host's page cache is not ours to tell about; Linux says the same of files that are not the caller's.
        memset(&out[(from - addr) / kPageSize], 1, (to - from) / kPageSize);
      }
    }
  }
  for (const Piece& p : pieces) MarkCommitted(env_.memory->fd(), p.range, &out[(p.start - addr) / kPageSize]);
  return {};
}

}  // namespace moat
