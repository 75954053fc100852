// MemoryManager's faults: memory on first use, copy-on-write, growing stacks; and what the guest did wrong.
// Source: mmap(2), sigaction(2) on SEGV_MAPERR, SEGV_ACCERR and BUS_ADRERR.
#include <signal.h>
#include <sys/uio.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "platform/memory/safe_copy.h"
#include "sentry/mm/memory_manager.h"

namespace moat {
namespace {

// What one copy-on-write fault copies at most: the touched page and its neighbours.
constexpr uint64_t kCowWindow = 32 << 10;
// Runs of pages, each a mapping of the host's, above which copies are made side by side.
constexpr size_t kManyRuns = 16384;
constexpr int kPageFaultTrap = 14;
constexpr uint32_t kErrorWrite = 1u << 1, kErrorExec = 1u << 4;

constexpr FaultOutcome kResolved{};
constexpr FaultOutcome kMapErr{SIGSEGV, SEGV_MAPERR};
constexpr FaultOutcome kAccErr{SIGSEGV, SEGV_ACCERR};
constexpr FaultOutcome kBusErr{SIGBUS, BUS_ADRERR};

GuestAddr WindowStart(const PageRun& run, GuestAddr addr) { return std::max(run.start, addr & ~(kCowWindow - 1)); }
GuestAddr WindowEnd(const PageRun& run, GuestAddr addr) {
  return std::min(run.end, (addr & ~(kCowWindow - 1)) + kCowWindow);
}

}  // namespace

Result<void> MemoryManager::BreakCow(PageMap::iterator it, GuestAddr addr, const std::byte* donated) {
  MemoryFile& memory = *env_.memory;
  ForgetSpans();
  // Nobody else refers to it any more: the whole run, or at least this page's surroundings, become writable.
  if (it->second.owned) {
    if (stores_to_note_ > 0) {
      --stores_to_note_;
      habits_->Note(addr);
    }
    GuestAddr start = it->second.start, end = it->second.end;
    if (!memory.HasOneRef(it->second.range())) {
      start = WindowStart(it->second, addr);
      end = WindowEnd(it->second, addr);
      const uint64_t from = it->second.OffsetOf(start);
      if (!memory.HasOneRef({from, from + (end - start)})) start = end = 0;
    }
    if (end != 0) {
      pages_.SplitAt(start);
      pages_.SplitAt(end);
      PageRun& run = pages_.Find(start)->second;
      run.cow = false;
      if (run.shadow != PageRun::kNoShadow) {
        deferred_.ranges.push_back({run.shadow, run.shadow + run.length()});
        run.shadow = PageRun::kNoShadow;
      }
      ProtectRuns(start, end, run.prot);
      return {};
    }
  }

  // A copy of its own is quicker, for its pages need not be new. But each is a mapping of the host's: whoever copies
  // neighbours, or much, gets copies that lie side by side as the pages do.
  const auto copied = [&](GuestAddr page) {
    pages_mu_.AssertHeld();
    PageMap::iterator beside = pages_.Find(page);
    return beside != pages_.end() && beside->second.owned && !beside->second.cow;
  };
  const bool may_be_lone = it->second.shadow == PageRun::kNoShadow && pages_.size() < kManyRuns;
  // After fork, stores go here and there. A program that is just loaded works through its data.
  const bool one = may_be_lone && donated == nullptr && !copied(addr - 1) && !copied(addr + kPageSize);
  const GuestAddr start = one ? addr : WindowStart(it->second, addr);
  const GuestAddr end = one ? addr + kPageSize : WindowEnd(it->second, addr);
  const bool lone = one || (may_be_lone && !copied(start - 1) && !copied(end));
  uint64_t copy;
  if (one) {
    ChooseNextCopy();
    if (next_copy_ == kNoCopy) return kENOMEM;
    copy = std::exchange(next_copy_, kNoCopy);
  } else if (lone) {
    copy = TRY(memory.AllocateToOverwrite(end - start, MemoryKind::kAnonymous)).start;
  } else {
    if (it->second.shadow == PageRun::kNoShadow)
      it->second.shadow = TRY(memory.Allocate(it->second.length(), MemoryKind::kAnonymous)).start;
    copy = it->second.shadow + (start - it->second.start);
  }
  // Under the lock although it is a copy: it reads and writes the sandbox's own memory file only, a few pages of
  // it, and two threads that fault on neighbouring pages must not both fill the same copy.
  for (GuestAddr at = start; at < end; at += kPageSize) {
    const PageRun& run = it->second;
    Result<std::byte*> to = memory.Pointer(copy + (at - start));
    Result<std::byte*> from = donated != nullptr ? Result<std::byte*>(const_cast<std::byte*>(donated) + (at - start))
                                                 : memory.Pointer(run.OffsetOf(at));
    if (to.ok() && from.ok() && SafeCopy(*to, *from, kPageSize) == kPageSize) continue;
    if (lone) deferred_.ranges.push_back({copy, copy + (end - start)});
    return kENOMEM;
  }
  pages_.SplitAt(start);
  pages_.SplitAt(end);
  PageRun& run = pages_.Find(start)->second;
  run.shadow = PageRun::kNoShadow;  // its piece of it is `copy`
  ReleaseRun(run);
  run.mappable = nullptr;
  run.window = nullptr;
  run.fd = memory.fd();
  run.in_memory_file = true;
  run.owned = true;
  run.cow = false;
  run.fd_writable = false;
  run.offset = copy;
  MapRun(run);
  pages_.JoinRange(start, end);
  return {};
}

void MemoryManager::ChooseNextCopy() {
  if (next_copy_ != kNoCopy) return;
  Result<FileRange> page = env_.memory->AllocateToOverwrite(kPageSize, MemoryKind::kAnonymous);
  if (page.ok()) next_copy_ = page->start;
}

void MemoryManager::WaitForWriters() { writers_.Wait(writers_.Stamp()); }

FaultOutcome MemoryManager::Resolve(GuestAddr addr, Access access) {
  if (addr < env_.min_address || addr >= env_.max_address) return kMapErr;
  const GuestAddr page = PageFloor(addr);
  const bool write = access == Access::kWrite || access == Access::kForceWrite;
  const bool force = access == Access::kForceRead || access == Access::kForceWrite;
  // Each round makes progress or finds that another thread changed something.
  for (;;) {
    Vma vma;
    PageRun donated;
    bool wait = false;
    {
      MutexLock mapping(mapping_mu_);
      VmaSet::iterator it = vmas_.Find(addr);
      if (it == vmas_.end()) it = GrowStack(addr);
      if (it == vmas_.end()) return kMapErr;
      vma = it->second;
      if (write && (vma.prot & PROT_WRITE) == 0) {
        if (!force || vma.shared() || (vma.max_prot & PROT_WRITE) == 0) return kAccErr;
      }
      if (!write && !force &&
          (vma.prot & (access == Access::kExec ? PROT_EXEC : PROT_READ | PROT_WRITE | PROT_EXEC)) == 0)
        return kAccErr;

      MutexLock pages(pages_mu_);
      PageMap::iterator run = pages_.Find(page);
      if (writers_draining_ && write) {
        wait = true;
      } else if (run == pages_.end()) {
        if (!vma.mappable) {
          return FillTouched(vma, page).ok() ? kResolved : kBusErr;
        }
      } else if (!write || run->second.writable_now()) {
        return kResolved;
      } else if (run->second.cow) {
        if (run->second.in_memory_file) return BreakCow(run, page, nullptr).ok() ? kResolved : kBusErr;
        donated = run->second;
      }
    }
    if (wait) {
      WaitForWriters();
      continue;
    }
    if (donated.fd >= 0) {
      // A donated file's bytes are read before the lock is taken: the host may have to fetch them.
      const GuestAddr start = WindowStart(donated, page), end = WindowEnd(donated, page);
      auto bytes = std::make_unique<std::byte[]>(kCowWindow);  // zeros beyond the end of the file
      const iovec piece{bytes.get(), end - start};
      const ssize_t got = preadv2(donated.fd, &piece, 1, static_cast<off_t>(donated.OffsetOf(start)), 0);
      // The page itself beyond the end of the file: there is nothing to copy.
      if (got < 0 || static_cast<uint64_t>(got) <= page - start) return kBusErr;
      MutexLock mapping(mapping_mu_);
      MutexLock pages(pages_mu_);
      PageMap::iterator run = pages_.Find(page);
      if (run == pages_.end() || run->second.start != donated.start || run->second.end != donated.end ||
          run->second.fd != donated.fd || run->second.offset != donated.offset || !run->second.cow || writers_draining_)
        continue;
      return BreakCow(run, page, bytes.get()).ok() ? kResolved : kBusErr;
    }
    const bool store = vma.shared() && (vma.prot & PROT_WRITE) != 0 && (write || !vma.mappable->notes_stores());
    Result<uint64_t> mapped = MapFilePages(vma, page, vma.end - page, store);
    if (mapped.error() == kEAGAIN) continue;
    if (!mapped.ok()) return kBusErr;
    if (!write) return kResolved;
    if (vma.shared()) {
      MutexLock pages(pages_mu_);
      PageMap::iterator run = pages_.Find(page);
      if (run != pages_.end() && !run->second.writable_now()) return kAccErr;  // the file cannot be written
    }
  }
}

FaultOutcome MemoryManager::HandleFault(const FaultEvent& event, const MmLimits& limits, Context* caller) {
  NoteLimits(limits);
  if (event.signo == SIGBUS && event.si_code == BUS_ADRERR) return kBusErr;
  if (event.signo != SIGSEGV || (event.si_code != SEGV_MAPERR && event.si_code != SEGV_ACCERR))
    return {event.signo, event.si_code};

  // What was left for later may be all that is missing.
  if (space_->MayWait()) return Finish(caller).ok() ? kResolved : kMapErr;

  const uint64_t before = changes_.load(std::memory_order_relaxed);
  FaultOutcome outcome;
  const bool known = event.trapno == kPageFaultTrap;
  if (known) {
    outcome = Resolve(event.address, (event.error_code & kErrorWrite) != 0  ? Access::kWrite
                                     : (event.error_code & kErrorExec) != 0 ? Access::kExec
                                                                            : Access::kRead);
  } else {
    // Which access it was is unknown: give the page all that its area allows, stores only when it is the lack of
    // them that may have faulted.
    outcome = Resolve(event.address, Access::kRead);
    if (outcome.resolved() && event.si_code == SEGV_ACCERR) {
      FaultOutcome stored = Resolve(event.address, Access::kWrite);
      // An area without PROT_WRITE: the fault stands unless it was only late, which the end of this finds out.
      if (!stored.resolved() && stored.si_code != SEGV_ACCERR) outcome = stored;
    }
  }
  if (!outcome.resolved()) return outcome;
  if (changes_.load(std::memory_order_relaxed) == before) {
    // Nothing had to be done: another thread was faster, or the fault is real. It is real when the same thread has it
    // again although nothing changed.
    MutexLock mapping(mapping_mu_);
    LateFault& late = late_faults_[(reinterpret_cast<uintptr_t>(caller) >> 6) % kLateFaults];
    if (late.caller == caller && late.address == event.address && late.changes == before) {
      late = LateFault{};
      return event.si_code == SEGV_MAPERR ? kMapErr : kAccErr;
    }
    if (known || event.si_code == SEGV_MAPERR) {
      // The area allows it and the page is there: order it once more, in case that the host had refused it.
      MutexLock pages(pages_mu_);
      PageMap::iterator run = pages_.Find(event.address);
      if (run != pages_.end()) MapRun(run->second);
    }
    late = LateFault{caller, event.address, changes_.load(std::memory_order_relaxed)};
  }
  // The host refuses more mappings: the guest cannot go on here.
  if (!Finish(caller).ok()) return kMapErr;
  if (caller != nullptr) OfferCopy(*caller);
  return kResolved;
}

void MemoryManager::OfferCopy(Context& context) {
  uint64_t copy;
  {
    MutexLock pages(pages_mu_);
    ChooseNextCopy();
    copy = next_copy_;
  }
  if (copy != kNoCopy) context.ExpectCopy(env_.memory->fd(), copy);
}

void MemoryManager::InvalidateMapping(GuestAddr start, GuestAddr end) { TakeBack(start, end, false); }

void MemoryManager::TruncateMapping(GuestAddr start, GuestAddr end) { TakeBack(start, end, true); }

void MemoryManager::TakeBack(GuestAddr start, GuestAddr end, bool copies_too) {
  bool dropped = false;
  {
    MutexLock pages(pages_mu_);
    ++invalidations_;
    if (copies_too && awaits_runs_) truncated_.emplace_back(start, end);
    dropped = TakeBackLocked(start, end, copies_too);
  }
  // What was deferred stays for the next Finish: its objects may not go under the locks of our caller.
  if (dropped) (void)space_->Flush(nullptr);
}

bool MemoryManager::TakeBackLocked(GuestAddr start, GuestAddr end, bool copies_too) {
  bool dropped = false;
  pages_.SplitAt(start);
  pages_.SplitAt(end);
  for (PageMap::iterator it = pages_.FirstAbove(start); it != pages_.end() && it->second.start < end;) {
    PageRun& run = it->second;
    if (run.owned && !copies_too) {  // a private copy: it is the space's own
      ++it;
      continue;
    }
    if (run.host_prot != PageRun::kHostUnmapped) {
      space_->Unmap(run.start, run.length());
      changes_.fetch_add(1, std::memory_order_relaxed);
      dropped = true;
    }
    ReleaseRun(run);
    it = pages_.Erase(it);
  }
  ForgetSpans();
  pages_.JoinRange(start, end);
  return dropped;
}

}  // namespace moat
