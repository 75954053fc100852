// PagedData: the bytes of a regular file that lives in the sandbox's MemoryFile: tmpfs files, memfds, the upper layer
// of an overlay. Sparse; pages come with the first write. It is the file's Mappable: guests map the very pages that
// read and write copy from and to.
//
// Thread-safe. Lock: kMappable, never held while guest memory is copied: a copy runs in a section of the memory
// file's epoch, so that pages which a truncation takes away meanwhile are not reused under it.
// Source: tmpfs(5), fallocate(2), lseek(2), memfd_create(2), mmap(2).
#ifndef MOAT_FS_VFS_PAGED_DATA_H_
#define MOAT_FS_VFS_PAGED_DATA_H_

#include <vector>

#include "absl/container/btree_map.h"
#include "platform/base/mutex.h"
#include "platform/base/ref_ptr.h"
#include "platform/fiber/clock.h"
#include "platform/memory/mappable.h"
#include "platform/memory/memory_file.h"
#include "platform/usermem/io.h"

namespace moat {

// How many pages and inodes the files of one mount may have (tmpfs' size= and nr_inodes=); 0: no limit.
class FileQuota : public RefCounted {
 public:
  FileQuota(uint64_t max_pages, uint64_t max_inodes) : max_pages_(max_pages), max_inodes_(max_inodes) {}
  bool ChargePages(uint64_t n) { return Charge(used_pages_, max_pages_, n); }
  // As many of `n` as there are left; may be 0.
  uint64_t ChargePagesUpTo(uint64_t n) {
    while (n != 0 && !ChargePages(n)) {
      uint64_t max = max_pages(), used = used_pages();
      uint64_t left = max > used ? max - used : 0;
      n = left < n ? left : n - 1;
    }
    return n;
  }
  void UnchargePages(uint64_t n) { used_pages_.fetch_sub(n, std::memory_order_relaxed); }
  bool ChargeInode() { return Charge(used_inodes_, max_inodes_, 1); }
  void UnchargeInode() { used_inodes_.fetch_sub(1, std::memory_order_relaxed); }
  uint64_t max_pages() const { return max_pages_.load(std::memory_order_relaxed); }
  uint64_t used_pages() const { return used_pages_.load(std::memory_order_relaxed); }
  uint64_t max_inodes() const { return max_inodes_.load(std::memory_order_relaxed); }
  uint64_t used_inodes() const { return used_inodes_.load(std::memory_order_relaxed); }
  void SetLimits(uint64_t pages, uint64_t inodes) {
    max_pages_ = pages;
    max_inodes_ = inodes;
  }

 private:
  static bool Charge(std::atomic<uint64_t>& used, const std::atomic<uint64_t>& max, uint64_t n) {
    uint64_t limit = max.load(std::memory_order_relaxed);
    uint64_t now = used.load(std::memory_order_relaxed);
    do {
      if (limit != 0 && (n > limit || now > limit - n)) return false;
    } while (!used.compare_exchange_weak(now, now + n, std::memory_order_relaxed));
    return true;
  }
  std::atomic<uint64_t> max_pages_, max_inodes_;
  std::atomic<uint64_t> used_pages_{0}, used_inodes_{0};
};

class PagedData final : public Mappable {
 public:
  // `memory` outlives the object. `seals`: F_SEAL_*, F_SEAL_SEAL for files that may not be sealed.
  PagedData(MemoryFile& memory, RefPtr<FileQuota> quota, Identity identity, uint32_t seals);
  ~PagedData() override;

  static constexpr uint64_t kMaxSize = (uint64_t{1} << 47) - 1;

  uint64_t size() const { return size_.load(std::memory_order_acquire); }
  uint64_t pages() const { return pages_.load(std::memory_order_relaxed); }  // allocated

  // 0 at or past the end.
  Result<size_t> Read(IoDest& dst, uint64_t offset);
  // kENOSPC, kEFBIG, kEPERM (seals), kEFAULT. Extends the file.
  Result<size_t> Write(IoSource& src, uint64_t offset);
  Result<void> Resize(uint64_t size);
  // fallocate(2): modes 0, KEEP_SIZE and PUNCH_HOLE | KEEP_SIZE; others kEOPNOTSUPP, as tmpfs answers.
  Result<void> Allocate(int mode, uint64_t offset, uint64_t length);
  // SEEK_DATA and SEEK_HOLE: kENXIO past the end.
  Result<uint64_t> SeekData(uint64_t offset);
  Result<uint64_t> SeekHole(uint64_t offset);

  Result<void> AddSeals(uint32_t seals);
  uint32_t seals() const { return seals_.load(std::memory_order_acquire); }

  // Files with names: stores through mappings change their times. Before the first mapping.
  void NoteStores() { notes_stores_ = true; }
  bool notes_stores() const override { return notes_stores_; }
  // When a store came since the last call, CLOCK_REALTIME; 0: none did.
  Nanos TakeStoreTime() { return stored_.load(std::memory_order_relaxed) == 0 ? 0 : stored_.exchange(0); }

  Result<HostPages> Translate(uint64_t offset, uint64_t length, bool write) override;
  Result<void> AddMapping(MappingSpace& space, GuestAddr start, GuestAddr end, uint64_t offset,
                          bool shared_writable) override;
  void RemoveMapping(MappingSpace& space, GuestAddr start, GuestAddr end, uint64_t offset,
                     bool shared_writable) override;
  Identity identity() const override { return identity_; }
  Result<void> Sync(uint64_t, uint64_t) override { return {}; }
  Result<void> PunchHole(uint64_t offset, uint64_t length) override;

 private:
  struct Extent {
    uint64_t pages;
    uint64_t start;  // in the memory file
  };
  using Extents = absl::btree_map<uint64_t, Extent>;  // by first page
  struct Mapping {
    MappingSpace* space;
    GuestAddr start, end;
    uint64_t offset;
    bool shared_writable;
  };
  // The pieces of memory behind part of the file; `memory` is null for a hole.
  struct Piece {
    std::byte* memory;
    size_t length;
  };
  static constexpr int kMaxPieces = 16;

  Extents::iterator FindLocked(uint64_t page) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);  // covering, or the next one
  Result<int> PiecesLocked(uint64_t offset, uint64_t length, Piece* pieces) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Gives memory to every hole in [first, end) pages. A prefix may have got it when it fails.
  Result<void> FillLocked(uint64_t first, uint64_t end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Result<FileRange> TakePagesLocked(uint64_t page, uint64_t want) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void InsertLocked(uint64_t page, FileRange range) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Takes the memory of whole pages [first, end) away and tells the mappings.
  void DropLocked(uint64_t first, uint64_t end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void InvalidateLocked(uint64_t begin, uint64_t end, bool truncated) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Result<void> ZeroLocked(uint64_t begin, uint64_t end) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  MemoryFile& memory_;
  const RefPtr<FileQuota> quota_;
  const Identity identity_;
  std::atomic<uint64_t> size_{0};
  std::atomic<uint64_t> pages_{0};
  std::atomic<uint32_t> seals_;
  bool notes_stores_ = false;
  std::atomic<Nanos> stored_{0};

  Mutex mu_{LockRank::kMappable};
  Extents extents_ ABSL_GUARDED_BY(mu_);
  FileRange spare_ ABSL_GUARDED_BY(mu_);  // allocated, follows the last extent's memory; so that appends are contiguous
  std::vector<Mapping> mappings_ ABSL_GUARDED_BY(mu_);
  uint64_t writable_mappings_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace moat

#endif  // MOAT_FS_VFS_PAGED_DATA_H_
