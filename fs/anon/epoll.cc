#include "fs/anon/epoll.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include "fs/anon/anon_inode.h"
#include "fs/anon/epoll_core.h"

namespace moat {
namespace {

// One for the sandbox: while an instance is added to another, the graph stands still.
Mutex nesting_mu{LockRank::kEpollNesting};

constexpr uint32_t kExclusiveAllowed =
    EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE;

}  // namespace

EpollFile::EpollFile() : File(AnonInodePath("eventpoll"), OpenFlags{O_RDWR}), core_(MakeRef<EpollCore>(*this)) {}

EpollFile::~EpollFile() { core_->Close(); }

Result<void> EpollFile::Control(int op, int fd, RefPtr<File> file, abi::EpollEvent event, bool may_wake) {
  if (!file->SupportsEpoll()) return kEPERM;
  if (!may_wake) event.events &= ~EPOLLWAKEUP;
  if (file == this) return kEINVAL;
  auto* inner = dynamic_cast<EpollFile*>(file.get());
  if (op != EPOLL_CTL_DEL && (event.events & EPOLLEXCLUSIVE)) {
    if (op == EPOLL_CTL_MOD) return kEINVAL;
    if (inner != nullptr || (event.events & ~kExclusiveAllowed)) return kEINVAL;
  }
  switch (op) {
    case EPOLL_CTL_ADD: {
      if (inner == nullptr) return core_->Add(fd, *file, event);
      std::vector<RefPtr<File>> keep;
      MutexLock lock(nesting_mu);
      if (inner->core_ == core_.get()) return kEINVAL;
      int below = inner->core_->DepthBelow(core_.get(), 1, keep);
      if (below > kMaxNesting || core_->DepthAbove(0, keep) + below > kMaxNesting) return kELOOP;
      return core_->Add(fd, *file, event);
    }
    case EPOLL_CTL_MOD:
      return core_->Modify(fd, *file, event);
    case EPOLL_CTL_DEL:
      return core_->Delete(fd, *file);
    default:
      return kEINVAL;
  }
}

Result<size_t> EpollFile::Collect(size_t max, std::vector<abi::EpollEvent>& out) { return core_->Collect(max, out); }

EventMask EpollFile::Poll(EventMask interest) {
  if ((interest & (EPOLLIN | EPOLLRDNORM)) == 0 || !core_->HasReady()) return 0;
  return interest & (EPOLLIN | EPOLLRDNORM);
}

WaitQueue& EpollFile::wait_queue() { return core_->queue(); }

std::string EpollFile::FdInfo() const { return core_->FdInfo(); }

}  // namespace moat
