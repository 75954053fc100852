// signalfd(2): the pending signals of whoever reads, as a file.
#ifndef MOAT_FS_ANON_SIGNALFD_H_
#define MOAT_FS_ANON_SIGNALFD_H_

#include "fs/anon/signal_source.h"
#include "fs/vfs/file.h"

namespace moat {

class SignalFd final : public File {
 public:
  // `mask`: bit n-1 is signal n; SIGKILL and SIGSTOP are dropped. `flags`: SFD_NONBLOCK.
  SignalFd(uint64_t mask, int flags);
  ~SignalFd() override;

  void SetMask(uint64_t mask);
  uint64_t mask() const { return mask_.load(std::memory_order_relaxed); }

  Result<size_t> Read(const VfsContext& ctx, IoDest& dst) override;
  EventMask Poll(EventMask interest) override;
  std::string FdInfo() const override;

 private:
  friend void NotifySignalQueued(int signo);
  std::atomic<uint64_t> mask_;
  SignalFd* prev_ = nullptr;  // the list of all signalfds
  SignalFd* next_ = nullptr;
};

}  // namespace moat

#endif  // MOAT_FS_ANON_SIGNALFD_H_
