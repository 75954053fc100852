// MemoryManager's life: creation, fork(2), the end.
#include <sys/mman.h>

#include <algorithm>
#include <utility>

#include "platform/base/log.h"
#include "platform/fiber/fiber.h"
#include "platform/memory/safe_copy.h"
#include "sentry/mm/memory_manager.h"

namespace moat {

MemoryManager::MemoryManager(const MmEnvironment& env, RefPtr<AddressSpace> space)
    : env_(env), space_(std::move(space)), mmap_base_(env.max_address), search_top_(env.max_address) {}

RefPtr<MemoryManager> MemoryManager::Create(const MmEnvironment& env, RefPtr<AddressSpace> space) {
  return AdoptRef(new MemoryManager(env, std::move(space)));
}

void MemoryManager::OnLastUnref() {
  Detach();
  absl::AnyInvocable<void()> end = [this] { delete this; };
  if (env_.pinned || !RunElsewhere(end)) end();
}

void MemoryManager::Detach() {
  // Dropped without a lock held. The stub still has the files mapped, but no guest code runs there any more.
  std::vector<RefPtr<RefCounted>> objects;
  RefPtr<RefCounted> executable;
  std::vector<PlacedCode> code;
  MutexLock mapping(mapping_mu_);
  code.swap(placed_code_);
  executable = std::move(executable_);
  while (!vmas_.empty()) EraseVma(vmas_.begin());
  MutexLock pages(pages_mu_);
  objects.swap(deferred_.objects);
  for (auto& [start, run] : pages_) {
    if (run.mappable) objects.push_back(std::move(run.mappable));
    if (run.window) objects.push_back(std::move(run.window));
  }
}

MemoryManager::~MemoryManager() {
  // The stub first: nothing of ours may be mapped there when it goes back.
  space_->Clear();
  (void)space_->Flush(nullptr);
  MutexLock pages(pages_mu_);
  for (auto& [start, run] : pages_) ReleaseRun(run);
  for (const FileRange& arena : arenas_)
    if (arena.length() != 0) deferred_.ranges.push_back(arena);
  if (next_copy_ != kNoCopy) deferred_.ranges.push_back({next_copy_, next_copy_ + kPageSize});
  UnrefAll(*env_.memory, std::move(deferred_.ranges));
}

void MemoryManager::SetLayout(GuestAddr mmap_base, GuestAddr brk_start) {
  MutexLock mapping(mapping_mu_);
  mmap_base_ = search_top_ = PageFloor(std::min(mmap_base, env_.max_address));
  largest_skipped_ = 0;
  brk_start_ = brk_ = brk_start;
}

void MemoryManager::SetBrkStart(GuestAddr brk_start) {
  MutexLock mapping(mapping_mu_);
  brk_start_ = brk_ = brk_start;
}

Result<RefPtr<MemoryManager>> MemoryManager::Fork(RefPtr<AddressSpace> child_space, Context* caller) {
  RefPtr<MemoryManager> child = Create(env_, std::move(child_space));
  // The child's page map, built here: nobody knows the child yet but the mappables it is announced to, and those
  // only take pages away, which the count of invalidations tells.
  std::vector<PageRun> runs;
  Errno failed = Errno::kOK;
  {
    MutexLock mapping(mapping_mu_);
    std::vector<Vma> areas;
    areas.reserve(vmas_.size());
    for (const auto& [start, vma] : vmas_) {
      if (vma.Has(kVmaDontFork)) continue;
      areas.push_back(vma);
      areas.back().flags &= ~(kVmaLocked | kVmaLockOnFault);
    }
    [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
      child->awaits_runs_ = true;
      child->image_ = image_;
      child->executable_ = executable_;
      child->mmap_base_ = mmap_base_;
      child->search_top_ = search_top_;
      child->largest_skipped_ = largest_skipped_;
      child->brk_start_ = brk_start_;
      child->brk_ = brk_;
      child->stack_limit_ = stack_limit_.load(std::memory_order_relaxed);
      child->patched_calls_ = patched_calls_;
      child->placed_code_ = placed_code_;
      child->call_tables_ = call_tables_;
      child->keep_code_ = keep_code_.load(std::memory_order_relaxed);
      child->dumpable_ = dumpable_.load(std::memory_order_relaxed);
      for (Vma& vma : areas) {
        vma.flags &= ~kVmaAccounted;
        if (Result<void> inserted = child->InsertVma(std::move(vma)); !inserted.ok()) {
          failed = inserted.error();
          return;
        }
      }
    }();

    if (failed == Errno::kOK) {
      MutexLock pages(pages_mu_);
      // Runs join across areas; those that fork treats differently must end where their area does.
      for (const auto& [start, vma] : vmas_) {
        if (!vma.Has(kVmaDontFork | kVmaWipeOnFork)) continue;
        pages_.SplitAt(vma.start);
        pages_.SplitAt(vma.end);
      }
      // A reference of somebody else's, be it another thread's or that of who only looks, is taken for one that stores.
      Result<AheadCopies> ahead = CopyAhead(HasOneRef());
      if (!ahead.ok()) return ahead.error();
      const bool split = !ahead->empty();
      if (!habits_) habits_ = MakeRef<ForkHabits>();
      stores_to_note_ = ForkHabits::kNotedStores;
      [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
        child->habits_ = habits_;
        child->stores_to_note_ = stores_to_note_;
      }();
      runs.reserve(pages_.size());
      VmaSet::iterator area = vmas_.begin();
      // Neighbouring runs that lose the same right are write-protected in one operation.
      GuestAddr from = 0, to = 0;
      uint8_t pending = 0;
      auto flush = [&] {
        if (to != from) space_->Protect(from, to - from, pending);
        from = to = 0;
      };
      for (auto& [start, run] : pages_) {
        while (area != vmas_.end() && area->second.end <= start) ++area;
        if (area == vmas_.end()) break;
        if (area->second.Has(kVmaDontFork)) continue;
        PageRun copy = run;
        copy.shadow = PageRun::kNoShadow;
        copy.host_prot = PageRun::kHostUnmapped;
        if (run.owned) {
          if (area->second.Has(kVmaWipeOnFork)) continue;
          if (const auto own_copy = ahead->extract(run.start); !own_copy.empty()) {
            copy.offset = own_copy.mapped();
            copy.cow = false;
            runs.push_back(std::move(copy));
            continue;
          }
          copy.cow = true;
          env_.memory->AddRef(run.range());
          run.cow = true;
          const uint8_t allowed = run.AllowedHostProt();
          if (run.host_prot != PageRun::kHostUnmapped && run.host_prot != allowed) {
            if (to != run.start || pending != allowed) flush();
            if (from == to) from = run.start;
            to = run.end;
            pending = allowed;
            run.host_prot = allowed;
          }
        }
        runs.push_back(std::move(copy));
      }
      flush();
      // Of areas that the child does not get.
      for (const auto& [page, offset] : *ahead) deferred_.ranges.push_back({offset, offset + kPageSize});
      ForgetSpans();
      if (split) pages_.JoinRange(0, env_.max_address);
      changes_.fetch_add(1, std::memory_order_relaxed);
      writers_draining_ = true;
    }
  }
  if (failed != Errno::kOK) return failed;  // the child's areas go with it

  // Copies that found a page before it was write-protected still store into what is now shared with the child; a
  // store of the parent's own that copied the page meanwhile would lose their bytes.
  WaitForWriters();
  {
    MutexLock pages(pages_mu_);
    writers_draining_ = false;
  }
  child->space_->InheritPatches(*space_);
  const bool wiped = child->AdoptRuns(std::move(runs));
  if (wiped) (void)child->MapEagerly(0, env_.max_address);
  Result<void> flushed = Finish(caller);
  if (!flushed.ok()) return flushed.error();
  return child;
}

Result<void> MemoryManager::CopyPages(GuestAddr start, GuestAddr end, AheadCopies* copies) {
  MemoryFile& memory = *env_.memory;
  const FileRange to = TRY(memory.AllocateToOverwrite(end - start, MemoryKind::kAnonymous));
  for (GuestAddr page = start; page < end; page += kPageSize) {
    const uint64_t offset = to.start + (page - start);
    Result<std::byte*> target = memory.Pointer(offset);
    Result<std::byte*> source = memory.Pointer(pages_.Find(page)->second.OffsetOf(page));
    if (target.ok() && source.ok() && SafeCopy(*target, *source, kPageSize) == kPageSize) continue;
    deferred_.ranges.push_back(to);
    return kENOMEM;
  }
  for (GuestAddr page = start; page < end; page += kPageSize) copies->emplace(page, to.start + (page - start));
  return {};
}

Result<MemoryManager::AheadCopies> MemoryManager::CopyAhead(bool alone) {
  AheadCopies copies;
  for (const auto& [page, count] : kept_) {
    PageMap::iterator run = pages_.Find(page);
    if (run == pages_.end() || !run->second.owned || run->second.cow) continue;
    if (Result<void> copied = CopyPages(page, page + kPageSize, &copies); !copied.ok()) {
      for (const auto& [at, offset] : copies) deferred_.ranges.push_back({offset, offset + kPageSize});
      return copied.error();
    }
  }
  if (habits_ && alone) {
    const std::vector<GuestAddr> habits = habits_->OnFork();
    const auto is_useful = [&](GuestAddr page) {
      pages_mu_.AssertHeld();
      PageMap::iterator run = pages_.Find(page);
      return run != pages_.end() && run->second.owned && (run->second.prot & PROT_WRITE) != 0 && !copies.contains(page);
    };
    for (size_t i = 0; i < habits.size();) {
      const GuestAddr start = habits[i];
      if (!is_useful(habits[i++])) continue;
      // Neighbours get copies that are neighbours: one mapping.
      GuestAddr end = start + kPageSize;
      for (; i < habits.size() && habits[i] == end && is_useful(end); ++i) end += kPageSize;
      if (!CopyPages(start, end, &copies).ok()) break;
    }
  }
  for (const auto& [page, offset] : copies) {
    pages_.SplitAt(page);
    pages_.SplitAt(page + kPageSize);
  }
  return copies;
}

bool MemoryManager::AdoptRuns(std::vector<PageRun> runs) {
  MutexLock mapping(mapping_mu_);
  MutexLock pages(pages_mu_);
  for (PageRun& run : runs) {
    if (!run.owned && invalidations_ != 0) {
      ReleaseRun(run);
      continue;
    }
    PageMap::iterator it = pages_.Insert(std::move(run));
    MapRun(it->second);
  }
  awaits_runs_ = false;
  for (const auto& [start, end] : std::exchange(truncated_, {})) (void)TakeBackLocked(start, end, true);
  for (const auto& [start, vma] : vmas_)
    if (vma.Has(kVmaWipeOnFork)) return true;
  return false;
}

}  // namespace moat
