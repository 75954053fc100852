// MemoryManager's pages: what backs an area, and the host operations that follow from it.
#include <sys/mman.h>
#include <sys/uio.h>

#include <algorithm>

#include "platform/base/log.h"
#include "platform/memory/safe_copy.h"
#include "sentry/mm/memory_manager.h"

namespace moat {
namespace {

constexpr uint64_t kMapLimit = 1ull << 30;  // of a file, in one piece
// Private writable file segments up to this are copied when they are mapped.
constexpr uint64_t kCopyLimit = 256 << 10;
// A file that answers in small pieces is mapped at once up to this many pieces; the rest by faults.
constexpr int kEagerPieces = 64;

}  // namespace

void MemoryManager::ForgetSpans() {
  for (CachedSpan& span : spans_) span = CachedSpan{};
}

void MemoryManager::ReleaseRun(PageRun& run) {
  if (run.owned) deferred_.ranges.push_back(run.range());
  if (run.shadow != PageRun::kNoShadow) deferred_.ranges.push_back({run.shadow, run.shadow + run.length()});
  if (run.mappable) deferred_.objects.push_back(std::move(run.mappable));
  if (run.window) deferred_.objects.push_back(std::move(run.window));
}

void MemoryManager::RemoveRuns(GuestAddr start, GuestAddr end) {
  PageMap::iterator it = pages_.SplitAt(start);
  if (it == pages_.end() || it->second.start >= end) return;
  pages_.SplitAt(end);
  bool mapped = false;
  for (it = pages_.FirstAbove(start); it != pages_.end() && it->second.start < end; it = pages_.Erase(it)) {
    mapped |= it->second.host_prot != PageRun::kHostUnmapped;
    ReleaseRun(it->second);
  }
  ForgetSpans();
  if (mapped) {
    space_->Unmap(start, end - start);
    changes_.fetch_add(1, std::memory_order_relaxed);
  }
}

void MemoryManager::MapRun(PageRun& run, When when) {
  const uint8_t prot = run.AllowedHostProt();
  if (prot == 0) {
    if (run.host_prot == PageRun::kHostUnmapped) return;
    space_->Protect(run.start, run.length(), 0);
  } else {
    const bool shared = run.in_memory_file || !run.cow;
    if (when == When::kLater) {
      space_->MapLater(run.start, run.length(), prot, shared, run.fd, run.offset);
    } else {
      space_->Map(run.start, run.length(), prot, shared, run.fd, run.offset);
    }
  }
  run.host_prot = prot;
  changes_.fetch_add(1, std::memory_order_relaxed);
}

void MemoryManager::AddRun(PageRun run, When when) {
  run.host_prot = PageRun::kHostUnmapped;
  PageMap::iterator it = pages_.Insert(std::move(run));
  MapRun(it->second, when);
  pages_.Join(it);
}

PageRun MemoryManager::OwnedRun(GuestAddr start, GuestAddr end, uint64_t offset, uint8_t prot) const {
  PageRun run;
  run.start = start;
  run.end = end;
  run.offset = offset;
  run.fd = env_.memory->fd();
  run.in_memory_file = true;
  run.owned = true;
  run.prot = prot;
  return run;
}

void MemoryManager::AddOwned(GuestAddr start, GuestAddr end, uint64_t offset, uint8_t prot) {
  AddRun(OwnedRun(start, end, offset, prot));
}

void MemoryManager::AddShared(GuestAddr start, GuestAddr end, uint64_t offset, uint8_t prot, When when) {
  PageRun run = OwnedRun(start, end, offset, prot);
  run.cow = true;
  env_.memory->AddRef(run.range());
  AddRun(std::move(run), when);
}

void MemoryManager::ProtectRuns(GuestAddr start, GuestAddr end, uint8_t prot) {
  pages_.SplitAt(start);
  pages_.SplitAt(end);
  ForgetSpans();
  // Neighbours that need the same protection share one host call.
  GuestAddr from = 0, to = 0;
  uint8_t pending = 0;
  auto flush = [&] {
    if (to != from) space_->Protect(from, to - from, pending);
    from = to = 0;
  };
  for (PageMap::iterator it = pages_.FirstAbove(start); it != pages_.end() && it->second.start < end; ++it) {
    PageRun& run = it->second;
    run.prot = prot;
    const uint8_t allowed = run.AllowedHostProt();
    if (run.host_prot == PageRun::kHostUnmapped) {
      flush();
      MapRun(run);
      continue;
    }
    if (run.host_prot == allowed) continue;
    if (to != run.start || pending != allowed) flush();
    if (from == to) from = run.start;
    to = run.end;
    pending = allowed;
    run.host_prot = allowed;
    changes_.fetch_add(1, std::memory_order_relaxed);
  }
  flush();
  pages_.JoinRange(start, end);
}

bool MemoryManager::StillMaps(const Vma& vma, GuestAddr addr, uint64_t length) {
  VmaSet::iterator it = vmas_.Find(addr);
  if (it == vmas_.end()) return false;
  const Vma& now = it->second;
  return now.end - addr >= length && now.mappable == vma.mappable && now.OffsetOf(addr) == vma.OffsetOf(addr) &&
         now.prot == vma.prot && now.shared() == vma.shared();
}

Result<uint64_t> MemoryManager::MapFilePages(const Vma& vma, GuestAddr addr, uint64_t length, bool write, When when) {
  uint64_t invalidations;
  {
    MutexLock pages(pages_mu_);
    invalidations = invalidations_;
  }
  const HostPages host = TRY(vma.mappable->Translate(vma.OffsetOf(addr), length, write));
  length = std::min(length, host.range.length());
  if (length == 0) return kENXIO;

  MutexLock mapping(mapping_mu_);
  if (!StillMaps(vma, addr, length)) return kEAGAIN;
  MutexLock pages(pages_mu_);
  if (invalidations != invalidations_) return kEAGAIN;
  const bool fd_writable = vma.shared() && write && host.writable;
  const GuestAddr end = addr + length;
  // Runs that are already there stay, but for those that were translated for reading only.
  if (fd_writable) {
    pages_.SplitAt(addr);
    pages_.SplitAt(end);
    for (auto it = pages_.FirstAbove(addr); it != pages_.end() && it->second.start < end;) {
      if (it->second.owned || it->second.fd_writable) {
        ++it;
        continue;
      }
      ReleaseRun(it->second);
      it = pages_.Erase(it);
    }
    ForgetSpans();
  }
  for (PageMap::Gap gap = pages_.NextGap(addr, end); gap.start < end; gap = pages_.NextGap(gap.end, end)) {
    PageRun run;
    run.start = gap.start;
    run.end = gap.end;
    run.offset = host.range.start + (gap.start - addr);
    run.fd = host.fd;
    run.in_memory_file = host.in_memory_file;
    run.cow = !vma.shared();
    run.fd_writable = fd_writable;
    run.prot = vma.prot;
    run.mappable = vma.mappable;
    AddRun(std::move(run), when);
  }
  return length;
}

Result<uint64_t> MemoryManager::CopyFilePages(const Vma& vma, GuestAddr addr, uint64_t length) {
  uint64_t invalidations;
  FileRange copy;
  {
    MutexLock pages(pages_mu_);
    invalidations = invalidations_;
  }
  CopyEpoch::Section section(MemoryCopyEpoch());
  const HostPages host = TRY(vma.mappable->Translate(vma.OffsetOf(addr), length, false));
  length = std::min(length, host.range.length());
  if (length == 0) return kENXIO;
  copy = TRY(env_.memory->AllocateToOverwrite(length, MemoryKind::kAnonymous));
  // The memory is ours alone until a run refers to it, so no lock is needed to fill it. Behind the end of the file are
  // zeros, up to the end of its last page.
  bool filled = true;
  for (uint64_t done = 0; done < length;) {
    Result<std::byte*> to = env_.memory->Pointer(copy.start + done);
    if (!to.ok()) {
      filled = false;
      break;
    }
    const uint64_t chunk_left = MemoryFile::kChunk - (copy.start + done) % MemoryFile::kChunk;
    size_t n = std::min(length - done, chunk_left);
    if (host.in_memory_file) {
      const uint64_t from = host.range.start + done;
      n = std::min<size_t>(n, MemoryFile::kChunk - from % MemoryFile::kChunk);
      Result<std::byte*> source = env_.memory->Pointer(from);
      filled = source.ok() && SafeCopy(*to, *source, n) == n;
      if (!filled) break;
    } else {
      const iovec piece{*to, n};
      const ssize_t got = preadv2(host.fd, &piece, 1, static_cast<off_t>(host.range.start + done), 0);
      filled = got >= 0;
      const size_t missing = n - static_cast<size_t>(std::max<ssize_t>(got, 0));
      if (filled && missing != 0) filled = SafeZero(*to + got, missing) == missing;
      if (!filled) break;
    }
    done += n;
  }

  MutexLock mapping(mapping_mu_);
  MutexLock pages(pages_mu_);
  if (!filled || !StillMaps(vma, addr, length) || invalidations != invalidations_ ||
      pages_.Overlaps(addr, addr + length)) {
    deferred_.ranges.push_back(copy);
    return kEAGAIN;
  }
  AddOwned(addr, addr + length, copy.start, vma.prot);
  return length;
}

Result<void> MemoryManager::MapEagerly(GuestAddr start, GuestAddr end, When when) {
  GuestAddr at = start;
  int pieces = 0;
  while (at < end) {
    Vma vma;
    {
      MutexLock mapping(mapping_mu_);
      VmaSet::iterator it = vmas_.FirstAbove(at);
      if (it == vmas_.end() || it->second.start >= end) return {};
      vma = it->second;
      at = std::max(at, vma.start);
      const GuestAddr stop = std::min(end, vma.end);
      if (!vma.accessible()) {
        at = stop;
        continue;
      }
      if (!vma.mappable) {
        MutexLock pages(pages_mu_);
        TRY(FillFirst(vma, at, stop));
        at = stop;
        continue;
      }
    }
    const GuestAddr stop = std::min(end, vma.end);
    GuestAddr from = at;
    {
      // What is there already stays.
      MutexLock pages(pages_mu_);
      PageMap::iterator run = pages_.Find(at);
      if (run != pages_.end()) from = std::min(stop, run->second.end);
    }
    if (from != at) {
      at = from;
      continue;
    }
    const bool copy = !vma.shared() && (vma.prot & PROT_WRITE) != 0 && vma.length() <= kCopyLimit;
    const bool store = vma.shared() && (vma.prot & PROT_WRITE) != 0 && !vma.mappable->notes_stores();
    Result<uint64_t> mapped = kEAGAIN;
    if (copy) mapped = CopyFilePages(vma, at, stop - at);
    if (!copy || mapped.error() == kEAGAIN) mapped = MapFilePages(vma, at, std::min(stop - at, kMapLimit), store, when);
    // What cannot be mapped now (beyond the end of the file, a race) is left to faults.
    if (!mapped.ok() || ++pieces >= kEagerPieces) {
      at = stop;
      pieces = 0;
      continue;
    }
    at += *mapped;
  }
  return {};
}

Result<void> MemoryManager::Finish(Context* caller) {
  if (batches_.load(std::memory_order_relaxed) != 0) return {};
  Deferred done;
  {
    MutexLock pages(pages_mu_);
    std::swap(done, deferred_);
  }
  Result<void> flushed = space_->Flush(caller);
  UnrefAll(*env_.memory, std::move(done.ranges));
  return flushed;  // the objects go here, without a lock held
}

Result<void> MemoryManager::FlushPending(Context* caller) { return Finish(caller); }

}  // namespace moat
