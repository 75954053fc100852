// eventfd(2): a 64-bit counter as a file.
#ifndef MOAT_FS_ANON_EVENTFD_H_
#define MOAT_FS_ANON_EVENTFD_H_

#include "fs/vfs/file.h"

namespace moat {

class EventFd final : public File {
 public:
  // `flags`: EFD_SEMAPHORE and EFD_NONBLOCK, checked by the caller.
  EventFd(uint32_t initial, int flags);

  Result<size_t> Read(const VfsContext& ctx, IoDest& dst) override;
  Result<size_t> Write(const VfsContext& ctx, IoSource& src) override;
  EventMask Poll(EventMask interest) override;
  std::string FdInfo() const override;
  // A signal from the sentry itself (aio completion): adds 1. One more than can be written is an overflow, EPOLLERR.
  void Signal();

 private:
  const bool semaphore_;
  const uint64_t id_;
  mutable Mutex mu_{LockRank::kPipe};
  uint64_t count_ ABSL_GUARDED_BY(mu_);
};

}  // namespace moat

#endif  // MOAT_FS_ANON_EVENTFD_H_
