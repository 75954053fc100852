// MemoryManager's copies: the sentry's only way to guest memory.
#include <signal.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "platform/memory/safe_copy.h"
#include "sentry/mm/memory_manager.h"

namespace moat {
namespace {

constexpr int kMaxSegments = 16;

}  // namespace

bool MemoryManager::LocateLocked(GuestAddr addr, size_t n, Access access, HostSpan* span) {
  const bool write = access == Access::kWrite || access == Access::kForceWrite;
  const bool force = access == Access::kForceRead || access == Access::kForceWrite;
  if (!force) {
    for (const CachedSpan& c : spans_) {
      if (addr < c.start || addr >= c.end || (write && !c.writable)) continue;
      span->data = c.data + (addr - c.start);
      span->length = std::min<uint64_t>(n, c.end - addr);
      return true;
    }
  }
  PageMap::iterator it = pages_.Find(addr);
  if (it == pages_.end()) return false;
  PageRun& run = it->second;
  if (!force && run.prot == 0) return false;
  if (write && (!run.writable_now() || ((run.prot & PROT_WRITE) == 0 && !(force && run.owned)))) return false;
  const uint64_t offset = run.OffsetOf(addr);
  uint64_t length = run.end - addr;
  if (run.in_memory_file) {
    Result<std::byte*> p = env_.memory->Pointer(offset);
    if (!p.ok()) return false;
    length = std::min(length, MemoryFile::kChunk - offset % MemoryFile::kChunk);
    span->data = *p;
    if (!force) {
      // Remember as much of the run as lies in one chunk.
      const uint64_t before = std::min(addr - run.start, offset % MemoryFile::kChunk);
      const bool writable = run.writable_now() && (run.prot & PROT_WRITE) != 0;
      spans_[next_span_] = CachedSpan{addr - before, addr + length, *p - before, writable};
      next_span_ = (next_span_ + 1) % kSpanCache;
    }
  } else {
    if (!run.window || !run.window->Covers(run.fd, offset, write)) return false;
    span->window = run.window;
    span->data = run.window->At(offset);
    length = std::min(length, run.window->BytesAfter(offset));
  }
  span->length = std::min<uint64_t>(n, length);
  return true;
}

bool MemoryManager::Locate(GuestAddr addr, size_t n, Access access, HostSpan* span) {
  RefPtr<Mappable> mappable;
  int fd;
  uint64_t offset;
  const bool write = access == Access::kWrite || access == Access::kForceWrite;
  {
    MutexLock pages(pages_mu_);
    if (LocateLocked(addr, n, access, span)) return true;
    PageMap::iterator it = pages_.Find(addr);
    if (it == pages_.end() || it->second.in_memory_file) return false;
    const PageRun& run = it->second;
    if (write && !run.writable_now()) return false;
    mappable = run.mappable;
    fd = run.fd;
    offset = run.OffsetOf(addr);
  }
  // A donated file without a view: map one, which is a host call and so happens without the lock.
  Result<RefPtr<FileWindow>> window = FileWindow::Get(mappable, fd, offset, write);
  if (!window.ok()) return false;
  MutexLock pages(pages_mu_);
  PageMap::iterator it = pages_.Find(addr);
  if (it == pages_.end() || it->second.fd != fd || !(*window)->Covers(fd, it->second.OffsetOf(addr), write))
    return false;
  if (it->second.window) deferred_.objects.push_back(std::move(it->second.window));
  it->second.window = std::move(*window);
  return LocateLocked(addr, n, access, span);
}

// Calls step(host address, length) for each piece of [addr, addr + n) until a fault or a short step. Bytes done.
template <typename Step>
size_t MemoryManager::Walk(GuestAddr addr, size_t n, Access access, Step step) {
  if (addr >= env_.max_address) return 0;
  n = std::min<uint64_t>(n, env_.max_address - addr);
  const bool write = access == Access::kWrite || access == Access::kForceWrite;
  size_t done = 0;
  while (done < n) {
    {
      CopyEpoch::Section section(MemoryCopyEpoch());
      std::optional<CopyEpoch::Section> writing;
      if (write) writing.emplace(writers_);
      HostSpan span;
      if (Locate(addr + done, n - done, access, &span)) {
        const size_t moved = step(span.data, span.length, done);
        done += moved;
        if (moved < span.length) break;
        continue;
      }
    }
    // The sections have ended: a fault may have to wait for them.
    if (!Resolve(addr + done, access).resolved()) break;
  }
  return done;
}

size_t MemoryManager::CopyIn(void* dst, GuestAddr src, size_t n) {
  return Walk(src, n, Access::kRead, [dst](const std::byte* p, size_t length, size_t done) {
    return SafeCopy(static_cast<std::byte*>(dst) + done, p, length);
  });
}

size_t MemoryManager::CopyOut(GuestAddr dst, const void* src, size_t n) {
  return Walk(dst, n, Access::kWrite, [src](std::byte* p, size_t length, size_t done) {
    return SafeCopy(p, static_cast<const std::byte*>(src) + done, length);
  });
}

size_t MemoryManager::ZeroOut(GuestAddr dst, size_t n) {
  return Walk(dst, n, Access::kWrite, [](std::byte* p, size_t length, size_t) { return SafeZero(p, length); });
}

size_t MemoryManager::ForceCopyIn(void* dst, GuestAddr src, size_t n) {
  return Walk(src, n, Access::kForceRead, [dst](const std::byte* p, size_t length, size_t done) {
    return SafeCopy(static_cast<std::byte*>(dst) + done, p, length);
  });
}

size_t MemoryManager::ForceCopyOut(GuestAddr dst, const void* src, size_t n) {
  return Walk(dst, n, Access::kForceWrite, [src](std::byte* p, size_t length, size_t done) {
    return SafeCopy(p, static_cast<const std::byte*>(src) + done, length);
  });
}

bool MemoryManager::ForceStore(GuestAddr word, uint32_t old, uint32_t desired) {
  return Walk(word, sizeof desired, Access::kForceWrite, [=](std::byte* p, size_t length, size_t) -> size_t {
           if (length < sizeof desired) return 0;
           Result<uint32_t> before = SafeCompareExchange32(p, old, desired);
           return before.ok() && *before == old ? sizeof desired : 0;
         }) == sizeof desired;
}

void MemoryManager::CommitPages(GuestAddr start, GuestAddr end) {
  // A load through the sentry's own shared view of the memory file fills a hole.
  (void)Walk(start, end - start, Access::kRead, [](const std::byte* p, size_t length, size_t) {
    for (size_t at = 0; at < length; at += kPageSize) {
      if (!SafeLoad32(p + at).ok()) return at;
    }
    return length;
  });
}

Result<size_t> MemoryManager::WithSegments(GuestAddr addr, size_t n, bool to_guest, SegmentIo io) {
  if (n == 0) return io(nullptr, 0);
  if (addr >= env_.max_address) return kEFAULT;
  n = std::min<uint64_t>(n, env_.max_address - addr);
  const Access access = to_guest ? Access::kWrite : Access::kRead;
  size_t reachable = n;  // where the first unresolvable fault cuts the range
  for (;;) {
    size_t covered = 0;
    {
      CopyEpoch::Section section(MemoryCopyEpoch());
      std::optional<CopyEpoch::Section> writing;
      if (to_guest) writing.emplace(writers_);
      HostSpan spans[kMaxSegments];
      iovec segments[kMaxSegments];
      int count = 0;
      while (covered < reachable && count < kMaxSegments) {
        HostSpan& span = spans[count];
        if (!Locate(addr + covered, reachable - covered, access, &span)) break;
        segments[count++] = {span.data, span.length};
        covered += span.length;
      }
      if (covered == reachable || count == kMaxSegments) return io(segments, count);
    }
    if (Resolve(addr + covered, access).resolved()) continue;
    if (covered == 0) return kEFAULT;
    reachable = covered;
  }
}

Result<uint32_t> MemoryManager::Load32(GuestAddr addr) {
  if (addr % sizeof(uint32_t) != 0) return kEINVAL;
  uint32_t value = 0;
  const size_t done = Walk(addr, sizeof value, Access::kRead, [&value](const std::byte* p, size_t length, size_t) {
    Result<uint32_t> word = SafeLoad32(p);
    if (!word.ok()) return size_t{0};
    value = *word;
    return length;
  });
  if (done != sizeof value) return kEFAULT;
  return value;
}

Result<uint32_t> MemoryManager::CompareExchange32(GuestAddr addr, uint32_t expected, uint32_t desired) {
  if (addr % sizeof(uint32_t) != 0) return kEINVAL;
  uint32_t value = 0;
  const size_t done = Walk(addr, sizeof value, Access::kWrite, [&](std::byte* p, size_t length, size_t) {
    Result<uint32_t> word = SafeCompareExchange32(p, expected, desired);
    if (!word.ok()) return size_t{0};
    value = *word;
    return length;
  });
  if (done != sizeof value) return kEFAULT;
  return value;
}

Result<WordIdentity> MemoryManager::IdentifyWord(GuestAddr addr) {
  MutexLock mapping(mapping_mu_);
  VmaSet::iterator it = vmas_.Find(addr);
  if (it == vmas_.end()) return kEFAULT;
  const Vma& vma = it->second;
  // A private mapping of a file is private for a futex too: its pages become the process's own when written.
  if (!vma.shared() || !vma.mappable) return WordIdentity{nullptr, addr};
  return WordIdentity{vma.mappable, vma.OffsetOf(addr)};
}

}  // namespace moat
