// PageMap: what backs the pages of a guest address space, as runs of pages that lie contiguously in one host
// file, and what of that the stub process has mapped. Not thread-safe: guarded by kMmPages.
//
// A run is one of
//   owned   private memory: this space holds a reference on each of its pages in the memory file;
//   lent    pages of a Mappable (a file, shared memory), which owns them and takes them back with
//           InvalidateMapping; `mappable` keeps the host fd open.
// With `cow` set a store must first copy the page (or, when it is owned and has one reference, reuse it).
#ifndef MOAT_SENTRY_MM_PAGE_MAP_H_
#define MOAT_SENTRY_MM_PAGE_MAP_H_

#include <cstdint>
#include <vector>

#include "platform/base/ref_ptr.h"
#include "platform/memory/mappable.h"
#include "platform/memory/memory_file.h"
#include "platform/usermem/guest_memory.h"
#include "sentry/mm/file_window.h"
#include "sentry/mm/range_map.h"

namespace moat {

struct PageRun {
  static constexpr uint64_t kNoShadow = ~0ull;

  GuestAddr start = 0;
  GuestAddr end = 0;
  uint64_t offset = 0;          // of `start` in the host file
  int fd = -1;                  // the host file
  bool in_memory_file = false;  // fd is the memory file's
  bool owned = false;
  bool cow = false;
  bool fd_writable = false;  // lent: translated for stores
  uint8_t prot = 0;          // what the guest may do (its area's)
  uint8_t host_prot = 0;     // what the stub has mapped; kHostUnmapped when nothing
  // Where the copy of `start` will go: memory-file space that is reserved (and referenced) for the whole run,
  // so that copies of neighbouring pages are neighbours too and the host can join their mappings.
  uint64_t shadow = kNoShadow;
  RefPtr<Mappable> mappable;  // lent only
  RefPtr<FileWindow> window;  // the sentry's last view of a donated file

  static constexpr uint8_t kHostUnmapped = 0xff;

  uint64_t length() const { return end - start; }
  FileRange range() const { return {offset, offset + length()}; }
  uint64_t OffsetOf(GuestAddr addr) const { return offset + (addr - start); }
  // What the stub may be given: no stores while they must be seen first.
  uint8_t AllowedHostProt() const;
  bool writable_now() const { return !cow && (owned || fd_writable); }

  void CutFront(GuestAddr addr) {
    offset += addr - start;
    if (shadow != kNoShadow) shadow += addr - start;
    start = addr;
  }
  void CutBack(GuestAddr addr) { end = addr; }
  bool Continues(const PageRun& next) const;
};

class PageMap : public RangeMap<PageRun> {
 public:
  // Joins every pair of runs in [start, end] that continue each other.
  void JoinRange(GuestAddr start, GuestAddr end);
  struct Gap {
    GuestAddr start, end;
  };
  // The first piece of [start, end) that no run covers; [end, end) when all of it is covered.
  Gap NextGap(GuestAddr start, GuestAddr end);
};

// Gives up one reference on each range; neighbours together, so that the host is asked to free them at once.
void UnrefAll(MemoryFile& memory, std::vector<FileRange> ranges);

}  // namespace moat

#endif  // MOAT_SENTRY_MM_PAGE_MAP_H_
