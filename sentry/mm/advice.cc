// MemoryManager: madvise(2), and names of anonymous areas (prctl(2) PR_SET_VMA).
#include <signal.h>
#include <sys/mman.h>

#include <algorithm>

#include "sentry/mm/memory_manager.h"

namespace moat {
namespace {

// Newer than the C library's header.
constexpr int kMadvPopulateRead = 22, kMadvPopulateWrite = 23, kMadvDontneedLocked = 24;

struct FlagAdvice {
  int advice;
  uint32_t set;
  uint32_t clear;
};
constexpr FlagAdvice kFlagAdvice[] = {
    {MADV_NORMAL, 0, kVmaSequential | kVmaRandom},
    {MADV_RANDOM, kVmaRandom, kVmaSequential},
    {MADV_SEQUENTIAL, kVmaSequential, kVmaRandom},
    {MADV_DONTFORK, kVmaDontFork, 0},
    {MADV_DOFORK, 0, kVmaDontFork},
    {MADV_WIPEONFORK, kVmaWipeOnFork, 0},
    {MADV_KEEPONFORK, 0, kVmaWipeOnFork},
    {MADV_DONTDUMP, kVmaDontDump, 0},
    {MADV_DODUMP, 0, kVmaDontDump},
    {MADV_HUGEPAGE, kVmaHugePage, kVmaNoHugePage},
    {MADV_NOHUGEPAGE, kVmaNoHugePage, kVmaHugePage},
};

const FlagAdvice* FindFlagAdvice(int advice) {
  for (const FlagAdvice& f : kFlagAdvice)
    if (f.advice == advice) return &f;
  return nullptr;
}

bool Known(int advice) {
  switch (advice) {
    case MADV_WILLNEED:
    case MADV_DONTNEED:
    case MADV_FREE:
    case MADV_REMOVE:
    case MADV_COLD:
    case MADV_PAGEOUT:
    case kMadvPopulateRead:
    case kMadvPopulateWrite:
    case kMadvDontneedLocked:
      return true;
    default:
      // MADV_COLLAPSE without huge pages, MADV_MERGEABLE without KSM, poisoning and what is newer: as a kernel without
      // them answers.
      return FindFlagAdvice(advice) != nullptr;
  }
}

// Advice that loses what is in the pages, which mseal(2) forbids where they could not be written.
bool Discards(int advice) {
  switch (advice) {
    case MADV_FREE:
    case MADV_DONTNEED:
    case kMadvDontneedLocked:
    case MADV_REMOVE:
    case MADV_DONTFORK:
    case MADV_WIPEONFORK:
      return true;
    default:
      return false;
  }
}

// What the area of a kind cannot take.
Errno Refusal(const Vma& vma, int advice) {
  if (vma.Has(kVmaSealed) && vma.anonymous_private() && (vma.prot & PROT_WRITE) == 0 && Discards(advice)) return kEPERM;
  const bool locked = vma.Has(kVmaLocked);
  switch (advice) {
    case MADV_DONTNEED:
    case MADV_COLD:
    case MADV_PAGEOUT:
      return locked ? kEINVAL : Errno::kOK;
    case MADV_FREE:
      return locked || !vma.anonymous_private() ? kEINVAL : Errno::kOK;
    case MADV_REMOVE:
      if (locked || !vma.mappable) return kEINVAL;
      return !vma.shared() || (vma.max_prot & PROT_WRITE) == 0 ? kEACCES : Errno::kOK;
    case MADV_WIPEONFORK:
      return vma.anonymous_private() ? Errno::kOK : kEINVAL;
    default:
      return Errno::kOK;
  }
}

}  // namespace

void MemoryManager::DiscardPages(GuestAddr start, GuestAddr end, std::vector<FileRange>* decommit) {
  pages_.SplitAt(start);
  pages_.SplitAt(end);
  for (auto it = pages_.FirstAbove(start); it != pages_.end() && it->second.start < end;) {
    PageRun& run = it->second;
    if (!run.owned) {
      ++it;
      continue;
    }
    // Memory of a file mapping's private copy goes, so that the file shows again; so does what is shared after a
    // fork. The rest is emptied where it is, and its host mappings stay.
    VmaSet::iterator area = vmas_.Find(run.start);
    if (!run.cow && area != vmas_.end() && !area->second.mappable && env_.memory->HasOneRef(run.range())) {
      env_.memory->AddRef(run.range());
      decommit->push_back(run.range());
      ++it;
      continue;
    }
    if (run.host_prot != PageRun::kHostUnmapped) {
      space_->Unmap(run.start, run.length());
      changes_.fetch_add(1, std::memory_order_relaxed);
    }
    ReleaseRun(run);
    it = pages_.Erase(it);
  }
  ForgetSpans();
  pages_.JoinRange(start, end);
}

Result<void> MemoryManager::Madvise(GuestAddr addr, uint64_t length, int advice, Context* caller) {
  if (!Known(advice) || addr % kPageSize != 0) return kEINVAL;
  const uint64_t rounded = PageCeil(length);
  GuestAddr end;
  if ((length != 0 && rounded == 0) || __builtin_add_overflow(addr, rounded, &end)) return kEINVAL;
  if (rounded == 0) return {};
  if (advice == kMadvPopulateRead || advice == kMadvPopulateWrite) {
    {
      MutexLock mapping(mapping_mu_);
      if (!FullyMapped(addr, end)) return kENOMEM;
    }
    FaultOutcome outcome = Populate(addr, end, advice == kMadvPopulateWrite);
    (void)Finish(caller);
    if (outcome.resolved()) return {};
    if (outcome.signo == SIGBUS) return kEFAULT;
    return outcome.si_code == SEGV_ACCERR ? kEINVAL : kENOMEM;
  }

  const FlagAdvice* flag = FindFlagAdvice(advice);
  const bool discard = advice == MADV_DONTNEED || advice == MADV_FREE || advice == kMadvDontneedLocked;
  std::vector<FileRange> decommit;
  bool hole = false;
  Errno refused = Errno::kOK;
  GuestAddr at = addr;
  while (at < end && refused == Errno::kOK) {
    Vma vma;
    {
      MutexLock mapping(mapping_mu_);
      VmaSet::iterator it = vmas_.FirstAbove(at);
      if (it == vmas_.end() || it->second.start >= end) {
        hole = true;
        break;
      }
      vma = it->second;
      hole |= vma.start > at;
      at = std::max(at, vma.start);
      refused = Refusal(vma, advice);
      if (refused != Errno::kOK) break;
      const GuestAddr stop = std::min(end, vma.end);
      if (flag != nullptr) {
        ChangeVmas(at, stop, [flag](Vma& v) { v.flags = (v.flags & ~flag->clear) | flag->set; });
      } else if (discard) {
        MutexLock pages(pages_mu_);
        DiscardPages(at, stop, &decommit);
      }
    }
    const GuestAddr stop = std::min(end, vma.end);
    if (advice == MADV_REMOVE) {
      if (Result<void> r = vma.mappable->PunchHole(vma.OffsetOf(at), stop - at); !r.ok()) refused = r.error();
    } else if (advice == MADV_WILLNEED || discard) {
      (void)MapEagerly(at, stop);
    }
    at = stop;
  }
  (void)Finish(caller);
  for (const FileRange& r : decommit) {
    env_.memory->Decommit(r);
    env_.memory->Unref(r);
  }
  if (refused != Errno::kOK) return refused;
  if (hole) return kENOMEM;
  return {};
}

Result<void> MemoryManager::NameAnonymous(GuestAddr addr, uint64_t length, RefPtr<MappingSource> name) {
  if (addr % kPageSize != 0) return kEINVAL;
  const uint64_t rounded = PageCeil(length);
  GuestAddr end;
  if ((length != 0 && rounded == 0) || __builtin_add_overflow(addr, rounded, &end)) return kEINVAL;
  if (rounded == 0) return {};
  MutexLock mapping(mapping_mu_);
  GuestAddr at = addr;
  bool hole = false;
  while (at < end) {
    VmaSet::iterator it = vmas_.FirstAbove(at);
    if (it == vmas_.end() || it->second.start >= end) {
      hole = true;
      break;
    }
    hole |= it->second.start > at;
    at = std::max(at, it->second.start);
    const GuestAddr stop = std::min(end, it->second.end);
    if (it->second.mappable) return kEBADF;  // as Linux: file mappings have their name
    ChangeVmas(at, stop, [&name](Vma& v) { v.source = name; });
    at = stop;
  }
  if (hole) return kENOMEM;
  return {};
}

}  // namespace moat
