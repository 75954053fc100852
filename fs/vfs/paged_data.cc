#include "fs/vfs/paged_data.h"

#include <fcntl.h>
#include <linux/falloc.h>

#include <algorithm>

#include "platform/memory/copy_epoch.h"
#include "platform/memory/safe_copy.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif

namespace moat {
namespace {

constexpr uint64_t kMaxSpare = 256;  // pages
constexpr uint64_t kHugePages = MemoryFile::kHugePage / kPageSize;
constexpr uint64_t kHoleFill = 64;            // pages that a fault in a hole fills at most
constexpr uint64_t kWritePieceMax = 1 << 20;  // bytes that one look at the extents serves

uint64_t PageOf(uint64_t offset) { return offset / kPageSize; }
uint64_t PagesFor(uint64_t size) { return (size + kPageSize - 1) / kPageSize; }

}  // namespace

PagedData::PagedData(MemoryFile& memory, RefPtr<FileQuota> quota, Identity identity, uint32_t seals)
    : memory_(memory), quota_(std::move(quota)), identity_(identity), seals_(seals) {}

PagedData::~PagedData() {
  MutexLock lock(mu_);
  DropLocked(0, ~uint64_t{0});
}

PagedData::Extents::iterator PagedData::FindLocked(uint64_t page) {
  auto it = extents_.upper_bound(page);
  if (it != extents_.begin()) {
    auto before = std::prev(it);
    if (page - before->first < before->second.pages) return before;
  }
  return it;
}

Result<int> PagedData::PiecesLocked(uint64_t offset, uint64_t length, Piece* pieces) {
  int n = 0;
  auto it = FindLocked(PageOf(offset));
  while (length != 0 && n < kMaxPieces) {
    uint64_t page = PageOf(offset);
    if (it == extents_.end() || it->first > page) {
      uint64_t hole = it == extents_.end() ? length : std::min(length, it->first * kPageSize - offset);
      pieces[n++] = {nullptr, hole};
      offset += hole;
      length -= hole;
      continue;
    }
    uint64_t skip = offset - it->first * kPageSize;
    uint64_t at = it->second.start + skip;
    uint64_t piece = std::min(length, it->second.pages * kPageSize - skip);
    piece = std::min(piece, MemoryFile::kChunk - at % MemoryFile::kChunk);
    pieces[n++] = {TRY(memory_.Pointer(at)), piece};
    offset += piece;
    length -= piece;
    if (offset >= (it->first + it->second.pages) * kPageSize) ++it;
  }
  return n;
}

Result<size_t> PagedData::Read(IoDest& dst, uint64_t offset) {
  size_t done = 0;
  while (dst.remaining() != 0) {
    Piece pieces[kMaxPieces];
    int n;
    CopyEpoch::Section section(MemoryCopyEpoch());
    {
      MutexLock lock(mu_);
      uint64_t size = this->size();
      if (offset >= size) break;
      n = TRY(PiecesLocked(offset, std::min<uint64_t>(dst.remaining(), size - offset), pieces));
    }
    for (int i = 0; i < n; ++i) {
      const Piece& p = pieces[i];
      Result<size_t> moved = p.memory == nullptr ? dst.PutZeros(p.length) : dst.Put(p.memory, p.length);
      if (!moved.ok()) {
        if (done == 0) return moved.error();
        return done;
      }
      done += *moved;
      offset += *moved;
      if (*moved != p.length) return done;
    }
  }
  return done;
}

Result<FileRange> PagedData::TakePagesLocked(uint64_t page, uint64_t want) {
  // The spare pages follow the last extent; a write that goes on behind it takes from them.
  if (spare_.length() != 0 && !extents_.empty()) {
    const auto& [first, last] = *extents_.rbegin();
    if (first + last.pages == page && last.start + last.pages * kPageSize == spare_.start) {
      FileRange r{spare_.start, spare_.start + std::min(want * kPageSize, spare_.length())};
      spare_.start = r.end;
      return r;
    }
  }
  bool at_end = extents_.empty() || page > extents_.rbegin()->first;
  // Growing files get as much again as they have, so that their memory stays in few pieces; large ones a huge page.
  const uint64_t pages = pages_.load(std::memory_order_relaxed);
  const bool huge = at_end && pages >= kHugePages && memory_.QuickHugePages();
  if (huge) want = std::min(want, kHugePages);
  uint64_t extra = huge ? kHugePages - want : at_end ? std::min(pages, kMaxSpare) : 0;
  const uint64_t length = (want + extra) * kPageSize;
  Result<FileRange> r = huge ? memory_.AllocateAt(length, MemoryKind::kPageCache, 0, MemoryFile::Touch::kTogether)
                             : memory_.Allocate(length, MemoryKind::kPageCache);
  if (huge && r.ok()) memory_.CommitHuge(r->start);
  if (!r.ok() && extra != 0) {
    extra = 0;
    r = memory_.Allocate(want * kPageSize, MemoryKind::kPageCache);
  }
  if (!r.ok()) return kENOSPC;
  if (extra != 0) {
    if (spare_.length() != 0) memory_.Unref(spare_);
    spare_ = {r->start + want * kPageSize, r->end};
    r->end = spare_.start;
  }
  return r;
}

void PagedData::InsertLocked(uint64_t page, FileRange range) {
  uint64_t pages = range.length() / kPageSize;
  pages_.fetch_add(pages, std::memory_order_relaxed);
  auto next = extents_.upper_bound(page);
  if (next != extents_.begin()) {
    auto& [first, e] = *std::prev(next);
    if (first + e.pages == page && e.start + e.pages * kPageSize == range.start) {
      e.pages += pages;
      return;
    }
  }
  extents_.emplace(page, Extent{pages, range.start});
}

Result<void> PagedData::FillLocked(uint64_t first, uint64_t end) {
  while (first < end) {
    auto it = FindLocked(first);
    if (it != extents_.end() && it->first <= first) {
      first = it->first + it->second.pages;
      continue;
    }
    uint64_t hole_end = it == extents_.end() ? end : std::min(end, it->first);
    uint64_t want = hole_end - first;
    want = quota_->ChargePagesUpTo(want);
    if (want == 0) return kENOSPC;
    Result<FileRange> got = TakePagesLocked(first, want);
    uint64_t have = got.ok() ? got->length() / kPageSize : 0;
    quota_->UnchargePages(want - have);
    if (!got.ok()) return got.error();
    InsertLocked(first, *got);
    first += have;
  }
  return {};
}

Result<size_t> PagedData::Write(IoSource& src, uint64_t offset) {
  size_t done = 0;
  while (src.remaining() != 0) {
    Piece pieces[kMaxPieces];
    int n = 0;
    CopyEpoch::Section section(MemoryCopyEpoch());
    uint64_t length = std::min<uint64_t>(src.remaining(), kWritePieceMax);
    bool short_of_space = false;
    {
      MutexLock lock(mu_);
      uint32_t seals = this->seals();
      uint64_t end;
      if (__builtin_add_overflow(offset, length, &end) || end > kMaxSize) {
        if (offset >= kMaxSize) return done != 0 ? Result<size_t>(done) : kEFBIG;
        length = kMaxSize - offset;
        end = kMaxSize;
      }
      bool sealed = (seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0 || ((seals & F_SEAL_GROW) != 0 && end > size());
      if (sealed) {
        if (done == 0) return kEPERM;
        return done;
      }
      // What a mapping left behind the old end does not show up when the file grows over it.
      uint64_t old_end = size();
      if (offset > old_end) TRY(ZeroLocked(old_end, std::min(PageCeil(old_end), offset)));
      Result<void> filled = FillLocked(PageOf(offset), PagesFor(end));
      if (!filled.ok()) {
        // As much as there is memory for: up to the first hole.
        uint64_t page = PageOf(offset);
        for (auto it = FindLocked(page); it != extents_.end() && it->first <= page; ++it) {
          page = it->first + it->second.pages;
        }
        uint64_t have = std::max(page * kPageSize, offset) - offset;
        if (page == PageOf(offset)) have = 0;
        length = std::min(length, have);
        short_of_space = true;
        if (length == 0) {
          if (done == 0) return filled.error();
          return done;
        }
      }
      n = TRY(PiecesLocked(offset, length, pieces));
    }
    uint64_t from = offset;
    bool stop = short_of_space;
    Errno error = Errno::kOK;
    for (int i = 0; i < n && error == Errno::kOK; ++i) {
      // A piece became a hole only if somebody punched it under the lock: FillLocked left none.
      Result<size_t> moved =
          pieces[i].memory == nullptr ? Result<size_t>(kEIO) : src.Take(pieces[i].memory, pieces[i].length);
      if (!moved.ok()) {
        error = moved.error();
        break;
      }
      offset += *moved;
      if (*moved != pieces[i].length) {
        stop = true;
        break;
      }
    }
    done += offset - from;
    {
      MutexLock lock(mu_);
      if (offset > from && offset > size()) size_.store(offset, std::memory_order_release);
      // Pages past the end of the file that the failed copy did not reach go back.
      if (error != Errno::kOK || stop) {
        uint64_t keep = PagesFor(std::max(size(), offset));
        DropLocked(std::max(keep, PageOf(from)), PagesFor(from + length));
      }
    }
    if (error != Errno::kOK) {
      if (done == 0) return error;
      return done;
    }
    if (stop) break;
  }
  return done;
}

void PagedData::InvalidateLocked(uint64_t begin, uint64_t end, bool truncated) {
  for (const Mapping& m : mappings_) {
    uint64_t m_end = m.offset + (m.end - m.start);
    uint64_t from = std::max(begin, m.offset);
    uint64_t to = std::min(end, m_end);
    if (from >= to) continue;
    const GuestAddr first = m.start + (from - m.offset), last = m.start + (to - m.offset);
    truncated ? m.space->TruncateMapping(first, last) : m.space->InvalidateMapping(first, last);
  }
}

void PagedData::DropLocked(uint64_t first, uint64_t end) {
  if (first >= end) return;
  std::vector<FileRange> gone;
  uint64_t dropped = 0;
  for (auto it = FindLocked(first); it != extents_.end() && it->first < end;) {
    uint64_t e_first = it->first;
    Extent e = it->second;
    uint64_t from = std::max(first, e_first);
    uint64_t to = std::min(end, e_first + e.pages);
    it = extents_.erase(it);
    if (e_first < from) it = std::next(extents_.emplace(e_first, Extent{from - e_first, e.start}).first);
    if (to < e_first + e.pages) {
      it = std::next(extents_.emplace(to, Extent{e_first + e.pages - to, e.start + (to - e_first) * kPageSize}).first);
    }
    gone.push_back({e.start + (from - e_first) * kPageSize, e.start + (to - e_first) * kPageSize});
    dropped += to - from;
  }
  if (spare_.length() != 0 && (extents_.empty() || extents_.rbegin()->first < first)) {
    memory_.Unref(spare_);
    spare_ = {};
  }
  if (gone.empty()) return;
  uint64_t begin_byte = first * kPageSize;
  uint64_t end_byte = end > ~uint64_t{0} / kPageSize ? ~uint64_t{0} : end * kPageSize;
  InvalidateLocked(begin_byte, end_byte, false);
  for (FileRange r : gone) memory_.Unref(r);
  pages_.fetch_sub(dropped, std::memory_order_relaxed);
  quota_->UnchargePages(dropped);
}

// [begin, end) within one page.
Result<void> PagedData::ZeroLocked(uint64_t begin, uint64_t end) {
  if (begin >= end) return {};
  auto it = FindLocked(PageOf(begin));
  if (it == extents_.end() || it->first > PageOf(begin)) return {};
  std::byte* p = TRY(memory_.Pointer(it->second.start + (begin - it->first * kPageSize)));
  SafeZero(p, end - begin);
  return {};
}

Result<void> PagedData::Resize(uint64_t size) {
  if (size > kMaxSize) return kEFBIG;
  MutexLock lock(mu_);
  uint64_t old = this->size();
  uint32_t seals = this->seals();
  if (size < old && (seals & F_SEAL_SHRINK) != 0) return kEPERM;
  if (size > old && (seals & F_SEAL_GROW) != 0) return kEPERM;
  size_.store(size, std::memory_order_release);
  if (size < old) {
    // Pages beyond the end are no longer there, for mappings neither: even where no memory was.
    InvalidateLocked(PageCeil(size), ~uint64_t{0}, true);
    DropLocked(PagesFor(size), ~uint64_t{0});
  }
  // What lies between the end and the end of its page reads as zeros when the file grows.
  uint64_t tail = std::min(size, old);
  if (tail % kPageSize != 0) TRY(ZeroLocked(tail, PageCeil(tail)));
  return {};
}

Result<void> PagedData::PunchHole(uint64_t offset, uint64_t length) {
  return Allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
}

Result<void> PagedData::Allocate(int mode, uint64_t offset, uint64_t length) {
  if ((mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE)) != 0) return kEOPNOTSUPP;
  if (mode == FALLOC_FL_PUNCH_HOLE) return kEOPNOTSUPP;  // only with KEEP_SIZE
  uint64_t end;
  if (__builtin_add_overflow(offset, length, &end) || end > kMaxSize) return kEFBIG;
  MutexLock lock(mu_);
  uint32_t seals = this->seals();
  if ((mode & FALLOC_FL_PUNCH_HOLE) != 0) {
    if ((seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0) return kEPERM;
    uint64_t first = PagesFor(offset), last = PageOf(end);
    if (first > last) return ZeroLocked(offset, end);  // within one page
    TRY(ZeroLocked(offset, first * kPageSize));
    TRY(ZeroLocked(last * kPageSize, end));
    DropLocked(first, last);
    return {};
  }
  bool grows = (mode & FALLOC_FL_KEEP_SIZE) == 0 && end > size();
  if (grows && (seals & F_SEAL_GROW) != 0) return kEPERM;
  uint64_t before = pages_.load();
  Result<void> filled = FillLocked(PageOf(offset), PagesFor(end));
  if (!filled.ok()) {
    // All or nothing where nothing was there before; what already was stays.
    if (before == 0) DropLocked(0, ~uint64_t{0});
    return filled.error();
  }
  if (grows) size_.store(end, std::memory_order_release);
  return {};
}

Result<uint64_t> PagedData::SeekData(uint64_t offset) {
  MutexLock lock(mu_);
  if (offset >= size()) return kENXIO;
  auto it = FindLocked(PageOf(offset));
  if (it == extents_.end()) return kENXIO;
  uint64_t at = std::max(offset, it->first * kPageSize);
  if (at >= size()) return kENXIO;
  return at;
}

Result<uint64_t> PagedData::SeekHole(uint64_t offset) {
  MutexLock lock(mu_);
  if (offset >= size()) return kENXIO;
  uint64_t page = PageOf(offset);
  for (auto it = FindLocked(page); it != extents_.end() && it->first <= page; ++it) {
    page = it->first + it->second.pages;
  }
  return std::min(size(), std::max(offset, page * kPageSize));
}

Result<void> PagedData::AddSeals(uint32_t add) {
  constexpr uint32_t kAll =
      F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE | F_SEAL_EXEC;
  if ((add & ~kAll) != 0) return kEINVAL;
  MutexLock lock(mu_);
  uint32_t seals = this->seals();
  if ((seals & F_SEAL_SEAL) != 0) return kEPERM;
  if ((add & F_SEAL_WRITE) != 0 && (seals & F_SEAL_WRITE) == 0 && writable_mappings_ != 0) return kEBUSY;
  seals_.store(seals | add, std::memory_order_release);
  return {};
}

Result<HostPages> PagedData::Translate(uint64_t offset, uint64_t length, bool write) {
  MutexLock lock(mu_);
  uint64_t end_page = PagesFor(size());
  uint64_t page = PageOf(offset);
  if (page >= end_page) return kENXIO;
  uint64_t want = std::min(PagesFor(length), end_page - page);
  auto it = FindLocked(page);
  if (it == extents_.end() || it->first > page) {
    // A read needs a page as well: what it sees must be what a later writer writes to.
    uint64_t fill = std::min(want, kHoleFill);
    Result<void> filled = FillLocked(page, page + fill);
    if (!filled.ok()) TRY(FillLocked(page, page + 1));
    it = FindLocked(page);
  }
  uint64_t skip = page - it->first;
  uint64_t pages = std::min(want, it->second.pages - skip);
  HostPages out;
  out.fd = memory_.fd();
  out.range.start = it->second.start + skip * kPageSize;
  out.range.end = out.range.start + pages * kPageSize;
  out.in_memory_file = true;
  if (write && notes_stores_) stored_.store(ReadHostClock(CLOCK_REALTIME_COARSE));
  out.writable = (seals() & F_SEAL_WRITE) == 0;
  return out;
}

Result<void> PagedData::AddMapping(MappingSpace& space, GuestAddr start, GuestAddr end, uint64_t offset,
                                   bool shared_writable) {
  MutexLock lock(mu_);
  if (shared_writable) {
    // Splits and forks announce again what is mapped already, at the same addresses: only another place is new.
    bool known = std::any_of(mappings_.begin(), mappings_.end(), [&](const Mapping& m) {
      return m.shared_writable && m.start < end && start < m.end && m.start - m.offset == start - offset;
    });
    if (!known && (seals() & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE)) != 0) return kEPERM;
    ++writable_mappings_;
  }
  mappings_.push_back({&space, start, end, offset, shared_writable});
  return {};
}

void PagedData::RemoveMapping(MappingSpace& space, GuestAddr start, GuestAddr end, uint64_t offset,
                              bool shared_writable) {
  MutexLock lock(mu_);
  for (size_t i = 0; i < mappings_.size(); ++i) {
    const Mapping& m = mappings_[i];
    if (m.space != &space || m.start != start || m.end != end || m.offset != offset ||
        m.shared_writable != shared_writable) {
      continue;
    }
    if (shared_writable) --writable_mappings_;
    mappings_[i] = mappings_.back();
    mappings_.pop_back();
    return;
  }
}

}  // namespace moat
