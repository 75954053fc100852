// Mappable: something whose bytes can be mapped into guest address spaces: a tmpfs inode, a donated host
// file, a shared anonymous object. sentry/mm asks it where the bytes live; it tells mm when they move.
// Source: mmap(2); Linux's struct address_space.
#ifndef MOAT_PLATFORM_MEMORY_MAPPABLE_H_
#define MOAT_PLATFORM_MEMORY_MAPPABLE_H_

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "platform/base/ref_ptr.h"
#include "platform/base/result.h"
#include "platform/memory/memory_file.h"
#include "platform/usermem/guest_memory.h"

namespace moat {

// Where a piece of a mappable lives: bytes of a host file descriptor.
struct HostPages {
  int fd = -1;      // MemoryFile::fd() or a donated fd, valid while the Mappable lives
  FileRange range;  // page aligned
  bool in_memory_file = false;
  bool writable = false;  // the fd may be mapped MAP_SHARED with PROT_WRITE
};

// One guest address space, as seen by a mappable that must take pages away from it.
class MappingSpace {
 public:
  virtual ~MappingSpace() = default;
  // The pages backing [start, end) are no longer valid (truncate, copy-up). On return no guest thread of
  // this space can reach the old pages; later accesses fault and translate again.
  virtual void InvalidateMapping(GuestAddr start, GuestAddr end) = 0;
  // The same where the object now ends before `start`: private copies of the pages are lost too (mmap(2): truncate).
  virtual void TruncateMapping(GuestAddr start, GuestAddr end) { InvalidateMapping(start, end); }
};

class Mappable : public RefCounted {
 public:
  // Translates the page-aligned [offset, offset+length) for an access. The answer covers a non-empty
  // prefix of the range, as long as is contiguous and at hand. `write`: the guest will store through a
  // shared mapping (allocates). kENXIO past the end of the object (the guest gets SIGBUS).
  // mm calls it without any lock, and drops the answer when InvalidateMapping came in between: so take pages
  // away first, or keep one lock across both, and then call InvalidateMapping.
  virtual Result<HostPages> Translate(uint64_t offset, uint64_t length, bool write) = 0;

  // mm announces and withdraws each mapping of [offset, offset + (end-start)) at [start, end).
  // kETXTBSY, kEPERM (seals, W^X) or kENODEV may refuse it. Called with kMmMapping held: take kMappable or a
  // higher rank only. RemoveMapping names exactly one range that AddMapping announced before (the pieces of
  // an area that is split are announced before the whole is withdrawn). `space` lives until its last
  // RemoveMapping returns. InvalidateMapping may be called with locks up to kMappable held.
  virtual Result<void> AddMapping(MappingSpace& space, GuestAddr start, GuestAddr end, uint64_t offset,
                                  bool shared_writable) = 0;
  virtual void RemoveMapping(MappingSpace& space, GuestAddr start, GuestAddr end, uint64_t offset,
                             bool shared_writable) = 0;

  // True when the time of stores through shared mappings is of interest: mm then translates with `write` when a store
  // comes, and not before; and again for the first one after each msync(2).
  virtual bool notes_stores() const { return false; }

  // What somebody has made of the object's bytes, kept beside them; `make` is called, with a lock held, when there is
  // nothing yet. Null where the bytes may change. Any thread.
  virtual RefPtr<RefCounted> Derived(absl::FunctionRef<RefPtr<RefCounted>()> make) { return nullptr; }

  // For /proc/<pid>/maps.
  struct Identity {
    uint32_t dev_major = 0, dev_minor = 0;
    uint64_t ino = 0;
  };
  virtual Identity identity() const = 0;
  // msync(MS_SYNC) of the byte range.
  virtual Result<void> Sync(uint64_t offset, uint64_t length) = 0;
  // madvise(MADV_REMOVE): the page-aligned range reads as zeros from now on. For objects that can have holes.
  virtual Result<void> PunchHole(uint64_t offset, uint64_t length) { return kEOPNOTSUPP; }
};

}  // namespace moat

#endif  // MOAT_PLATFORM_MEMORY_MAPPABLE_H_
