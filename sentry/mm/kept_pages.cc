// MemoryManager's pages that the host kernel itself stores into: rseq(2).
#include "sentry/mm/memory_manager.h"

namespace moat {

Result<void> MemoryManager::KeepWritable(GuestAddr addr, uint64_t length, Context* caller) {
  GuestAddr end;
  if (__builtin_add_overflow(addr, length, &end) || end > env_.max_address) return kEFAULT;
  {
    // Counted first: a fork of another thread in between leaves the pages alone then.
    MutexLock pages(pages_mu_);
    for (GuestAddr page = PageFloor(addr); page < end; page += kPageSize) {
      ++kept_[page];
      pages_.SplitAt(page);
      pages_.SplitAt(page + kPageSize);
    }
  }
  const bool writable = Populate(PageFloor(addr), PageCeil(end), true).resolved();
  const Result<void> flushed = Finish(caller);
  if (writable && flushed.ok()) return {};
  StopKeeping(addr, length);
  return kEFAULT;
}

void MemoryManager::StopKeeping(GuestAddr addr, uint64_t length) {
  MutexLock pages(pages_mu_);
  for (GuestAddr page = PageFloor(addr); page < addr + length; page += kPageSize) {
    auto it = kept_.find(page);
    if (it != kept_.end() && --it->second == 0) kept_.erase(it);
  }
}

bool MemoryManager::WritableNow(GuestAddr addr, uint64_t length) {
  MutexLock pages(pages_mu_);
  for (GuestAddr page = PageFloor(addr); page < addr + length; page += kPageSize) {
    PageMap::iterator run = pages_.Find(page);
    if (run == pages_.end() || run->second.host_prot == PageRun::kHostUnmapped ||
        (run->second.host_prot & PROT_WRITE) == 0)
      return false;
  }
  return true;
}

}  // namespace moat
