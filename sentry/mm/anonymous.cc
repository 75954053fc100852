// MemoryManager: private anonymous memory. Small areas are mapped whole when they are made, and the host's own page
// faults do the rest. Large ones get windows: a program that works through an area from its start comes to the end of
// one, and is given the next, twice as long and of such a kind that the host makes 2 MiB at each first touch (a page of
// the memory file alone costs it more than a page of plain memory, 512 together a tenth). Who touches elsewhere gets
// the whole area, page by page: what is not used costs nothing. MADV_NOHUGEPAGE is not looked at: what it guards
// against, memory for areas with few pages in use, windows do not give.
#include <sys/mman.h>

#include <algorithm>

#include "sentry/mm/memory_manager.h"

namespace moat {
namespace {

constexpr uint64_t kArenaSize = 8 << 20;
// Requests above this get memory of their own.
constexpr uint64_t kArenaShare = 1 << 20;
// Larger areas are given by windows, the first of which ends at a border of 2 MiB and has at least kFirstWindow.
constexpr uint64_t kWindowed = 2 << 20;
constexpr uint64_t kFirstWindow = 256 << 10;
// How far behind the end of a window a program may go on and still work through the area.
constexpr uint64_t kNear = 64 << 10;
// Larger areas that are touched here and there get their memory in pieces.
constexpr uint64_t kWholeLimit = 1ull << 30;
constexpr uint64_t kPiece = 16ull << 20;

constexpr GuestAddr HugeCeil(GuestAddr addr) {
  return (addr + MemoryFile::kHugePage - 1) & ~(MemoryFile::kHugePage - 1);
}

}  // namespace

Result<FileRange> MemoryManager::AllocateFor(const Vma& vma, GuestAddr start, uint64_t length, Touch touch) {
  if (length > kArenaShare) return env_.memory->AllocateAt(length, MemoryKind::kAnonymous, start, touch);
  const ArenaKind kind = vma.kind == VmaKind::kHeap                              ? kArenaHeap
                         : vma.kind == VmaKind::kStack || vma.Has(kVmaGrowsDown) ? kArenaStack
                                                                                 : kArenaMmap;
  FileRange& arena = arenas_[kind];
  if (arena.length() < length) {
    Result<FileRange> fresh = env_.memory->Allocate(kArenaSize, MemoryKind::kAnonymous);
    if (!fresh.ok()) return env_.memory->Allocate(length, MemoryKind::kAnonymous);
    if (arena.length() != 0) deferred_.ranges.push_back(arena);
    arena = *fresh;
  }
  FileRange piece;
  if (kind == kArenaHeap) {
    piece = {arena.start, arena.start + length};
    arena.start += length;
  } else {
    piece = {arena.end - length, arena.end};
    arena.end -= length;
  }
  return piece;
}

Result<void> MemoryManager::FillAnonymous(const Vma& vma, GuestAddr start, GuestAddr end, Touch touch) {
  for (PageMap::Gap gap = pages_.NextGap(start, end); gap.start < end; gap = pages_.NextGap(gap.end, end)) {
    const FileRange memory = TRY(AllocateFor(vma, gap.start, gap.end - gap.start, touch));
    AddOwned(gap.start, gap.end, memory.start, vma.prot);
  }
  return {};
}

Result<void> MemoryManager::FillFirst(const Vma& vma, GuestAddr start, GuestAddr end) {
  const uint64_t length = end - start;
  if (length > kWindowed && MayHaveWindows(vma)) {
    end = HugeCeil(start + kFirstWindow);
  } else if (length > kWholeLimit) {
    return {};  // at the first touch
  }
  return FillAnonymous(vma, start, end, vma.Has(kVmaHugePage) ? Touch::kTogether : Touch::kApart);
}

bool MemoryManager::MayHaveWindows(const Vma& vma) const {
  return env_.memory->huge_pages() && !vma.Has(kVmaStackArea | kVmaRandom | kVmaHugePage);
}

Result<void> MemoryManager::FillTouched(const Vma& vma, GuestAddr page) {
  PageMap::iterator next = pages_.FirstAbove(page);
  GuestAddr start = vma.start, end = next == pages_.end() ? vma.end : std::min(vma.end, next->second.start);
  uint64_t before = 0;  // what lies in front of the gap and was given at once
  if (next != pages_.begin() && std::prev(next)->second.end > vma.start) {
    const PageRun& run = std::prev(next)->second;
    start = run.end;
    before = run.end - std::max(run.start, vma.start);
  }
  Touch touch = vma.Has(kVmaHugePage) ? Touch::kTogether : Touch::kApart;
  if (before != 0 && page - start < kNear && end - start >= MemoryFile::kHugePage && MayHaveWindows(vma)) {
    end = std::min(end, HugeCeil(start + std::max(2 * before, MemoryFile::kHugePage)));
    touch = Touch::kTogether;
  } else if (vma.length() > kWholeLimit) {
    const GuestAddr piece = page & ~(kPiece - 1);
    start = std::max(start, piece);
    end = std::min(end, piece + kPiece);
  }
  if (FillAnonymous(vma, start, end, touch).ok()) return {};
  return FillAnonymous(vma, page, page + kPageSize, Touch::kApart);
}

}  // namespace moat
