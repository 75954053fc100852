#include "platform/memory/memory_file.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <map>
#include <vector>

#include "platform/base/log.h"
#include "platform/base/mutex.h"
#include "platform/fiber/clock.h"
#include "platform/memory/copy_epoch.h"
#include "platform/memory/safe_copy.h"
#include "platform/usermem/guest_memory.h"

namespace moat {
namespace {

constexpr uint64_t kFileSize = uint64_t{1} << 50;  // sparse: offsets are cheap, pages are not
constexpr size_t kTableSize = 1 << 12;             // both levels of the chunk table
static_assert(kFileSize / MemoryFile::kChunk == kTableSize * kTableSize);
constexpr int kFirstFitTries = 16;
constexpr uint64_t kAnyPhase = ~uint64_t{0};
// To make 2 MiB takes 70 us; page by page it is 1.3 ms.
constexpr Nanos kSlowHugePage = 1'000'000;
constexpr Nanos kShortPause = 20'000'000, kLongPause = kNanosPerSec;

// Whether the host gives this file 2 MiB where one page is asked for (tmpfs(5), huge=within_size).
bool GivesHugePages(int fd) {
  constexpr off_t kSomewhere = 0;
  struct stat st;
  if (fallocate(fd, FALLOC_FL_KEEP_SIZE, kSomewhere, kPageSize) != 0) return false;
  const bool huge = fstat(fd, &st) == 0 && st.st_blocks * 512 == static_cast<blkcnt_t>(MemoryFile::kHugePage);
  return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, kSomewhere, MemoryFile::kHugePage) == 0 && huge;
}

struct Segment {
  uint64_t end;
  uint32_t refs;
  MemoryKind kind;
  bool overwritten;  // came from AllocateToOverwrite: all its pages are there, unless somebody decommitted some
};

struct Retired {
  FileRange range;
  uint64_t stamp;
  bool overwritten;
};

}  // namespace

struct MemoryFile::Impl {
  ScopedFd fd;
  uint64_t limit = 0;
  bool huge_pages = false;
  std::atomic<Nanos> no_huge_until{0}, next_pause{kShortPause};
  using ChunkRow = std::array<std::atomic<std::byte*>, kTableSize>;
  std::array<std::atomic<ChunkRow*>, kTableSize> rows{};

  Mutex mu{LockRank::kMemoryFile};
  std::map<uint64_t, Segment> segments ABSL_GUARDED_BY(mu);  // by start; neighbours of one count are joined
  std::map<uint64_t, uint64_t> free ABSL_GUARDED_BY(mu);     // start -> end; all holes
  uint64_t bump ABSL_GUARDED_BY(mu) = 0;
  std::vector<Retired> retired ABSL_GUARDED_BY(mu);
  // Starts of ranges with old bytes, by their length in pages; neither allocated nor free.
  std::array<std::vector<uint64_t>, kMaxRecycled / kPageSize + 1> recycled ABSL_GUARDED_BY(mu);
  uint64_t recycled_bytes ABSL_GUARDED_BY(mu) = 0;
  std::array<std::atomic<uint64_t>, 3> usage{};

  using Iterator = std::map<uint64_t, Segment>::iterator;
  // Makes `at` a border between segments.
  void SplitLocked(uint64_t at) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // Calls fn(iterator) for each segment of `r`, whose borders are split; aborts if part of it is not allocated.
  template <typename Fn>
  void ForEachLocked(FileRange r, Fn fn) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void JoinLocked(FileRange r) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  void AddFreeLocked(FileRange r) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // A start that is `phase` modulo kHugePage, if that is not kAnyPhase; kFileSize when the file is full.
  uint64_t TakeFreeLocked(uint64_t length, uint64_t phase) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // Keeps the front of `r` for AllocateToOverwrite; what remains of it is for the host.
  void KeepLocked(FileRange& r) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  // kFileSize when none of that length is kept, nor one that could be cut.
  uint64_t TakeKeptLocked(uint64_t length) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu);
  Result<FileRange> Add(uint64_t length, MemoryKind kind, bool overwritten, uint64_t phase);
  void Punch(FileRange r);
  // Punches and frees ranges, neighbours at once.
  void GiveToHost(std::vector<FileRange> ranges);
  void Reclaim();
};

void MemoryFile::Impl::SplitLocked(uint64_t at) {
  auto it = segments.upper_bound(at);
  if (it == segments.begin()) return;
  --it;
  if (it->first == at || it->second.end <= at) return;
  Segment tail = it->second;
  it->second.end = at;
  segments.emplace_hint(std::next(it), at, tail);
}

template <typename Fn>
void MemoryFile::Impl::ForEachLocked(FileRange r, Fn fn) {
  SplitLocked(r.start);
  SplitLocked(r.end);
  uint64_t at = r.start;
  for (auto it = segments.lower_bound(r.start); at < r.end;) {
    MOAT_CHECK(it != segments.end() && it->first == at);  // a reference to memory that nobody has
    at = it->second.end;
    auto next = std::next(it);
    fn(it);
    it = next;
  }
}

void MemoryFile::Impl::JoinLocked(FileRange r) {
  auto it = segments.lower_bound(r.start);
  if (it != segments.begin()) --it;
  while (it != segments.end() && it->first <= r.end) {
    auto next = std::next(it);
    if (next != segments.end() && next->first == it->second.end && next->second.refs == it->second.refs &&
        next->second.kind == it->second.kind && next->second.overwritten == it->second.overwritten) {
      it->second.end = next->second.end;
      segments.erase(next);
    } else {
      it = next;
    }
  }
}

void MemoryFile::Impl::AddFreeLocked(FileRange r) {
  auto next = free.lower_bound(r.start);
  if (next != free.begin()) {
    auto before = std::prev(next);
    if (before->second == r.start) {
      r.start = before->first;
      free.erase(before);
    }
  }
  if (next != free.end() && next->first == r.end) {
    r.end = next->second;
    free.erase(next);
  }
  if (r.end == bump) {
    bump = r.start;
  } else {
    free[r.start] = r.end;
  }
}

uint64_t MemoryFile::Impl::TakeFreeLocked(uint64_t length, uint64_t phase) {
  const auto first_in = [phase](uint64_t from) {
    return phase == kAnyPhase ? from : from + ((phase - from) & (kHugePage - 1));
  };
  int tries = kFirstFitTries;
  for (auto it = free.begin(); it != free.end() && tries-- > 0; ++it) {
    const FileRange hole{it->first, it->second};
    const uint64_t start = first_in(hole.start);
    if (start >= hole.end || hole.end - start < length) continue;
    free.erase(it);
    if (hole.start < start) free[hole.start] = start;
    if (start + length < hole.end) free[start + length] = hole.end;
    return start;
  }
  const uint64_t start = first_in(bump);
  if (start > kFileSize || length > kFileSize - start) return kFileSize;
  const FileRange skipped{bump, start};
  bump = start + length;
  if (skipped.length() != 0) AddFreeLocked(skipped);
  return start;
}

void MemoryFile::Impl::Punch(FileRange r) {
  // A hole cannot fail on tmpfs but for a bug of ours; going on would hand one guest's bytes to another.
  MOAT_CHECK(fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, static_cast<off_t>(r.start),
                       static_cast<off_t>(r.length())) == 0);
}

void MemoryFile::Impl::KeepLocked(FileRange& r) {
  while (r.length() != 0) {
    const uint64_t length = std::min(r.length(), kMaxRecycled);
    if (recycled_bytes + length > kRecycledLimit) return;
    recycled[length / kPageSize].push_back(r.start);
    recycled_bytes += length;
    r.start += length;
  }
}

uint64_t MemoryFile::Impl::TakeKeptLocked(uint64_t length) {
  for (uint64_t pages = length / kPageSize; pages < recycled.size(); ++pages) {
    if (recycled[pages].empty()) continue;
    const uint64_t start = recycled[pages].back();
    recycled[pages].pop_back();
    const uint64_t rest = pages - length / kPageSize;
    if (rest != 0) recycled[rest].push_back(start + length);
    recycled_bytes -= length;
    return start;
  }
  return kFileSize;
}

void MemoryFile::Impl::GiveToHost(std::vector<FileRange> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const FileRange& a, const FileRange& b) { return a.start < b.start; });
  for (size_t i = 0; i < ranges.size();) {
    FileRange r = ranges[i++];
    while (i < ranges.size() && ranges[i].start == r.end) r.end = ranges[i++].end;
    Punch(r);
    MutexLock lock(mu);
    AddFreeLocked(r);
  }
}

// Gives back, or keeps, what was retired long enough ago that no copy touches it any more.
void MemoryFile::Impl::Reclaim() {
  std::vector<FileRange> ready;
  {
    MutexLock lock(mu);
    if (retired.empty()) return;
    size_t keep = 0;
    for (Retired& r : retired) {
      if (!MemoryCopyEpoch().Reached(r.stamp)) {
        retired[keep++] = r;
        continue;
      }
      if (r.overwritten) KeepLocked(r.range);
      if (r.range.length() != 0) ready.push_back(r.range);
    }
    retired.resize(keep);
  }
  GiveToHost(std::move(ready));
}

MemoryFile::MemoryFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

MemoryFile::~MemoryFile() {
  for (auto& row : impl_->rows) {
    Impl::ChunkRow* r = row.load();
    if (r == nullptr) continue;
    for (auto& chunk : *r) {
      if (chunk.load() != nullptr) munmap(chunk.load(), kChunk);
    }
    delete r;
  }
}

Result<std::unique_ptr<MemoryFile>> MemoryFile::Create(ScopedFd file, uint64_t limit) {
  if (ftruncate(file.get(), static_cast<off_t>(kFileSize)) != 0) return HostErrno();
  // EPERM: a file of a mounted tmpfs. No stub may call ftruncate(2), and the sentry does not.
  if (fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0 && errno != EPERM) return HostErrno();
  auto impl = std::make_unique<Impl>();
  impl->huge_pages = GivesHugePages(file.get());
  impl->fd = std::move(file);
  impl->limit = limit;
  return std::unique_ptr<MemoryFile>(new MemoryFile(std::move(impl)));
}

Result<FileRange> MemoryFile::Impl::Add(uint64_t length, MemoryKind kind, bool overwritten, uint64_t phase) {
  if (length == 0 || length % kPageSize != 0) return kEINVAL;
  Reclaim();
  if (limit != 0 && usage[0] + usage[1] + usage[2] + length > limit) return kENOMEM;
  FileRange r;
  {
    MutexLock lock(mu);
    r.start = overwritten ? TakeKeptLocked(length) : kFileSize;
    if (r.start == kFileSize) r.start = TakeFreeLocked(length, phase);
    if (r.start == kFileSize) return kENOMEM;
    r.end = r.start + length;
    segments.emplace(r.start, Segment{r.end, 1, kind, overwritten});
    JoinLocked(r);
  }
  usage[static_cast<size_t>(kind)].fetch_add(length, std::memory_order_relaxed);
  return r;
}

Result<FileRange> MemoryFile::Allocate(uint64_t length, MemoryKind kind) {
  return impl_->Add(length, kind, false, kAnyPhase);
}

Result<FileRange> MemoryFile::AllocateAt(uint64_t length, MemoryKind kind, uint64_t address, Touch touch) {
  if (!impl_->huge_pages) return Allocate(length, kind);
  const uint64_t phase = address + (touch == Touch::kTogether ? 0 : kPageSize);
  return impl_->Add(length, kind, false, phase % kHugePage);
}

bool MemoryFile::huge_pages() const { return impl_->huge_pages; }

bool MemoryFile::QuickHugePages() const {
  if (!impl_->huge_pages) return false;
  const Nanos until = impl_->no_huge_until.load(std::memory_order_relaxed);
  return until == 0 || MonotonicNow() >= until;
}

void MemoryFile::CommitHuge(uint64_t start) {
  Impl& m = *impl_;
  if (!m.huge_pages) return;
  MOAT_CHECK(start % kHugePage == 0);
  Result<std::byte*> first = Pointer(start);
  if (!first.ok()) return;
  const Nanos before = MonotonicNow();
  // Without memory it is left to the touches, which then fail one by one. The first one has all of it cleared.
  (void)fallocate(m.fd.get(), FALLOC_FL_KEEP_SIZE, static_cast<off_t>(start), kPageSize);
  (void)SafeZero(*first, 1);
  const Nanos now = MonotonicNow();
  if (now - before < kSlowHugePage) {
    m.next_pause.store(kShortPause, std::memory_order_relaxed);
    return;
  }
  const Nanos pause = m.next_pause.load(std::memory_order_relaxed);
  m.no_huge_until.store(now + pause, std::memory_order_relaxed);
  m.next_pause.store(std::min(pause * 2, kLongPause), std::memory_order_relaxed);
}

Result<FileRange> MemoryFile::AllocateToOverwrite(uint64_t length, MemoryKind kind) {
  return impl_->Add(length, kind, length <= kMaxRecycled, kAnyPhase);
}

void MemoryFile::Trim() {
  std::vector<FileRange> all;
  {
    MutexLock lock(impl_->mu);
    for (uint64_t pages = 1; pages < impl_->recycled.size(); ++pages) {
      for (uint64_t start : impl_->recycled[pages]) all.push_back({start, start + pages * kPageSize});
      impl_->recycled[pages] = {};
    }
    impl_->recycled_bytes = 0;
  }
  impl_->GiveToHost(std::move(all));
}

void MemoryFile::AddRef(FileRange r) {
  MutexLock lock(impl_->mu);
  impl_->ForEachLocked(r, [](Impl::Iterator it) { ++it->second.refs; });
  impl_->JoinLocked(r);
}

void MemoryFile::Unref(FileRange r) {
  if (r.length() == 0) return;
  Impl& m = *impl_;
  bool any = false;
  {
    MutexLock lock(m.mu);
    uint64_t stamp = MemoryCopyEpoch().Stamp();
    m.ForEachLocked(r, [&](Impl::Iterator it) {
      m.mu.AssertHeld();
      if (--it->second.refs != 0) return;
      FileRange gone{it->first, it->second.end};
      m.usage[static_cast<size_t>(it->second.kind)].fetch_sub(gone.length(), std::memory_order_relaxed);
      const bool overwritten = it->second.overwritten;
      if (!m.retired.empty() && m.retired.back().range.end == gone.start && m.retired.back().stamp == stamp &&
          m.retired.back().overwritten == overwritten) {
        m.retired.back().range.end = gone.end;
      } else {
        m.retired.push_back({gone, stamp, overwritten});
      }
      m.segments.erase(it);
      any = true;
    });
    m.JoinLocked(r);
  }
  if (any) m.Reclaim();
}

bool MemoryFile::HasOneRef(FileRange r) {
  MutexLock lock(impl_->mu);
  auto it = impl_->segments.upper_bound(r.start);
  if (it == impl_->segments.begin()) return false;
  --it;
  for (uint64_t at = r.start; at < r.end; ++it) {
    if (it == impl_->segments.end() || it->first > at || it->second.end <= at || it->second.refs != 1) return false;
    at = it->second.end;
  }
  return true;
}

void MemoryFile::Decommit(FileRange r) {
  if (r.length() != 0) impl_->Punch(r);
}

Result<std::byte*> MemoryFile::Pointer(uint64_t offset) {
  if (offset >= kFileSize) return kEFAULT;
  Impl& m = *impl_;
  const uint64_t index = offset / kChunk;
  std::atomic<Impl::ChunkRow*>& row_slot = m.rows[index / kTableSize];
  Impl::ChunkRow* row = row_slot.load(std::memory_order_acquire);
  if (row == nullptr) [[unlikely]] {
    auto* fresh = new Impl::ChunkRow{};
    if (row_slot.compare_exchange_strong(row, fresh, std::memory_order_acq_rel)) {
      row = fresh;
    } else {
      delete fresh;
    }
  }
  std::atomic<std::byte*>& slot = (*row)[index % kTableSize];
  std::byte* chunk = slot.load(std::memory_order_acquire);
  if (chunk == nullptr) [[unlikely]] {
    void* p = mmap(nullptr, kChunk, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, m.fd.get(),
                   static_cast<off_t>(index * kChunk));
    if (p == MAP_FAILED) return HostErrno();
    auto* fresh = static_cast<std::byte*>(p);
    if (slot.compare_exchange_strong(chunk, fresh, std::memory_order_acq_rel)) {
      chunk = fresh;
    } else {
      munmap(p, kChunk);
    }
  }
  return chunk + offset % kChunk;
}

int MemoryFile::fd() const { return impl_->fd.get(); }

uint64_t MemoryFile::Usage(MemoryKind kind) const {
  return impl_->usage[static_cast<size_t>(kind)].load(std::memory_order_relaxed);
}

}  // namespace moat
