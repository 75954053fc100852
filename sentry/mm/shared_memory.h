// SharedMemory: memory that several address spaces map and no file system knows: mmap(MAP_SHARED|MAP_ANONYMOUS) and
// SysV shared memory segments. Fixed size; zero-filled; ends with the last reference. Thread-safe.
#ifndef MOAT_SENTRY_MM_SHARED_MEMORY_H_
#define MOAT_SENTRY_MM_SHARED_MEMORY_H_

#include <atomic>
#include <cstdint>

#include "platform/base/ref_ptr.h"
#include "platform/base/result.h"
#include "platform/memory/mappable.h"
#include "platform/memory/memory_file.h"
#include "sentry/mm/commit_account.h"

namespace moat {

class SharedMemory final : public Mappable {
 public:
  // `length` is a page multiple. `memory` and `commit` outlive the object. kENOMEM.
  static Result<RefPtr<SharedMemory>> Create(MemoryFile& memory, CommitAccount& commit, uint64_t length,
                                             bool no_reserve);

  uint64_t length() const { return range_.length(); }
  // How many mappings there are now (shm_nattch).
  int mappings() const { return mappings_.load(std::memory_order_relaxed); }
  // What proc shows for it; SysV segments set their id.
  void set_identity(Identity identity) { identity_ = identity; }

  Result<HostPages> Translate(uint64_t offset, uint64_t length, bool write) override;
  Result<void> AddMapping(MappingSpace& space, GuestAddr start, GuestAddr end, uint64_t offset,
                          bool shared_writable) override;
  void RemoveMapping(MappingSpace& space, GuestAddr start, GuestAddr end, uint64_t offset,
                     bool shared_writable) override;
  Identity identity() const override { return identity_; }
  Result<void> Sync(uint64_t offset, uint64_t length) override { return {}; }
  Result<void> PunchHole(uint64_t offset, uint64_t length) override;

 private:
  SharedMemory(MemoryFile& memory, CommitAccount& commit, FileRange range, uint64_t charged);
  ~SharedMemory() override;

  MemoryFile& memory_;
  CommitAccount& commit_;
  const FileRange range_;
  const uint64_t charged_;
  Identity identity_;
  std::atomic<int> mappings_{0};
};

}  // namespace moat

#endif  // MOAT_SENTRY_MM_SHARED_MEMORY_H_
