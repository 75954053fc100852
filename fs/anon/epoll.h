// epoll(7). An item is a waiter on its file's wait queue: an event puts it on the ready list, so that a wait looks at
// the items that had one (O(ready)), asks their files once more, and keeps level-triggered ones on the list.
//
// Locks: the scan lock makes waits of one instance follow each other; kEpoll guards the items; kEpollReady the ready
// list, which the wait queues' callbacks take. Files are polled under the scan lock only. Instances may watch each
// other up to a depth of kMaxNesting; loops are refused (ELOOP), so scan locks and epoll wait queues are taken in the
// order of that graph and are exempt from rank checks.
// Lifetime: an instance holds no reference to the files that it watches; a file that ends takes its items away
// (FileObserver), as closing the last descriptor does in Linux.
#ifndef MOAT_FS_ANON_EPOLL_H_
#define MOAT_FS_ANON_EPOLL_H_

#include <vector>

#include "fs/vfs/file.h"
#include "platform/abi/event.h"

namespace moat {

class EpollCore;

class EpollFile final : public File {
 public:
  EpollFile();
  ~EpollFile() override;

  // epoll_ctl(2): EPOLL_CTL_ADD, MOD, DEL of `fd`, which refers to `file`. `may_wake`: CAP_BLOCK_SUSPEND; EPOLLWAKEUP
  // is dropped without it. kEEXIST, kENOENT, kEINVAL, kELOOP, kEPERM, kENOSPC.
  Result<void> Control(int op, int fd, RefPtr<File> file, abi::EpollEvent event, bool may_wake);

  // Appends up to `max` ready events; kEAGAIN when there is none.
  Result<size_t> Collect(size_t max, std::vector<abi::EpollEvent>& out);

  EventMask Poll(EventMask interest) override;
  WaitQueue& wait_queue() override;
  std::string FdInfo() const override;

  static constexpr int kMaxNesting = 4;

 private:
  friend class EpollCore;
  RefPtr<EpollCore> core_;
};

}  // namespace moat

#endif  // MOAT_FS_ANON_EPOLL_H_
