// MemoryFile: the sandbox's one file of memory. All anonymous guest memory and all tmpfs page cache live in it.
// Offsets are handed out in page multiples, zero-filled, and reference-counted per page; the last
// reference punches the hole, so the host gets the memory back (but see AllocateToOverwrite). Stubs map ranges of fd();
// the sentry reads and writes the same pages through Pointer(). Thread-safe. Lock: kMemoryFile.
#ifndef MOAT_PLATFORM_MEMORY_MEMORY_FILE_H_
#define MOAT_PLATFORM_MEMORY_MEMORY_FILE_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "platform/base/result.h"
#include "platform/base/scoped_fd.h"

namespace moat {

// A half-open range of bytes in a host file.
struct FileRange {
  uint64_t start = 0;
  uint64_t end = 0;
  uint64_t length() const { return end - start; }
  bool operator==(const FileRange&) const = default;
};

enum class MemoryKind : uint8_t { kAnonymous, kPageCache, kKernel };

class MemoryFile {
 public:
  // Takes a nameless file of a tmpfs, or a memfd; one that can be sealed (MFD_ALLOW_SEALING) is sealed against
  // shrinking. `limit` bounds the allocated bytes (0: none); what is really committed is for the sandbox's cgroup.
  static Result<std::unique_ptr<MemoryFile>> Create(ScopedFd file, uint64_t limit);
  ~MemoryFile();

  // `length` is a page multiple > 0. The range has one reference on each page and reads as zeros. Sparse:
  // no host page is allocated before the first touch. kENOMEM past the limit.
  Result<FileRange> Allocate(uint64_t length, MemoryKind kind);
  // As Allocate, for memory that will be mapped at `address`: the host may give the whole aligned 2 MiB around the
  // first touch of it at once (kTogether), or gives each page alone (kApart). It gives them together only where address
  // and offset agree modulo kHugePage, the mapping has room for it and no page of it is there; and where huge_pages().
  enum class Touch : uint8_t { kTogether, kApart };
  Result<FileRange> AllocateAt(uint64_t length, MemoryKind kind, uint64_t address, Touch touch);
  static constexpr uint64_t kHugePage = 2 << 20;
  bool huge_pages() const;
  // Asks the host for the 2 MiB at `start`, a multiple of that and all the caller's, now; for memory that is used once,
  // as of files. A virtual machine whose host has taken back what was free gets huge pages at 5 ms apiece, and single
  // ones out of what it still has: then QuickHugePages() is false for a while.
  void CommitHuge(uint64_t start);
  bool QuickHugePages() const;
  // As Allocate, for a caller that writes every byte before a guest can see one: the range may hold old bytes, of any
  // guest process, in pages that the host then need not make and clear anew. Longer than kMaxRecycled: as Allocate.
  Result<FileRange> AllocateToOverwrite(uint64_t length, MemoryKind kind);
  static constexpr uint64_t kMaxRecycled = 256 << 10;
  // What was allocated to be overwritten is kept for the next such allocation, up to kRecycledLimit bytes in all. This
  // gives the host what is kept at the moment.
  void Trim();
  static constexpr uint64_t kRecycledLimit = 8 << 20;
  // One more, or one fewer, reference on every page of `r`. Ranges may be split and joined freely.
  void AddRef(FileRange r);
  void Unref(FileRange r);
  // True when every page of `r` has exactly one reference (a COW page that need not be copied).
  bool HasOneRef(FileRange r);
  // Gives the host its pages back now; the range stays allocated and reads as zeros (MADV_DONTNEED).
  void Decommit(FileRange r);

  // The sentry's address of `offset`; valid up to the next 64 MiB boundary of the file and for the
  // file's lifetime. Access it with safe copies only: the host may deliver SIGBUS when it is out of memory.
  Result<std::byte*> Pointer(uint64_t offset);
  static constexpr uint64_t kChunk = 64 << 20;

  int fd() const;
  // Bytes allocated (not necessarily committed), by kind.
  uint64_t Usage(MemoryKind kind) const;

 private:
  struct Impl;
  explicit MemoryFile(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace moat

#endif  // MOAT_PLATFORM_MEMORY_MEMORY_FILE_H_
