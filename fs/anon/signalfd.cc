#include "fs/anon/signalfd.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>

#include <csignal>

#include "fs/anon/anon_inode.h"

namespace moat {
namespace {

constexpr uint64_t Bit(int signo) { return uint64_t{1} << (signo - 1); }
constexpr uint64_t kNever = Bit(SIGKILL) | Bit(SIGSTOP);

std::atomic<CurrentSignalSourceFn> current_source{nullptr};
std::atomic<int> signalfd_count{0};
Mutex list_mu{LockRank::kSignalFd};
SignalFd* list_head ABSL_GUARDED_BY(list_mu) = nullptr;

SignalSource* Current() {
  CurrentSignalSourceFn fn = current_source.load(std::memory_order_acquire);
  return fn != nullptr ? fn() : nullptr;
}

}  // namespace

void SetCurrentSignalSource(CurrentSignalSourceFn fn) { current_source.store(fn, std::memory_order_release); }

void NotifySignalQueued(int signo) {
  if (signalfd_count.load(std::memory_order_seq_cst) == 0) return;
  MutexLock lock(list_mu);
  for (SignalFd* s = list_head; s != nullptr; s = s->next_) {
    if (s->mask() & Bit(signo)) s->wait_queue().Notify(EPOLLIN | EPOLLRDNORM);
  }
}

SignalFd::SignalFd(uint64_t mask, int flags)
    : File(AnonInodePath("signalfd"), OpenFlags{O_RDWR | (flags & O_NONBLOCK)}), mask_(mask & ~kNever) {
  MutexLock lock(list_mu);
  next_ = list_head;
  if (next_ != nullptr) next_->prev_ = this;
  list_head = this;
  signalfd_count.fetch_add(1, std::memory_order_seq_cst);
}

SignalFd::~SignalFd() {
  MutexLock lock(list_mu);
  (prev_ != nullptr ? prev_->next_ : list_head) = next_;
  if (next_ != nullptr) next_->prev_ = prev_;
  signalfd_count.fetch_sub(1, std::memory_order_relaxed);
}

void SignalFd::SetMask(uint64_t mask) {
  mask_.store(mask & ~kNever, std::memory_order_relaxed);
  wait_queue().Notify(EPOLLIN | EPOLLRDNORM);
}

Result<size_t> SignalFd::Read(const VfsContext&, IoDest& dst) {
  if (dst.remaining() < sizeof(abi::SignalfdSiginfo)) return kEINVAL;
  SignalSource* source = Current();
  if (source == nullptr) return kEAGAIN;
  size_t total = 0;
  while (dst.remaining() >= sizeof(abi::SignalfdSiginfo)) {
    abi::SignalfdSiginfo info{};
    if (!source->DequeueSignal(mask(), info)) break;
    Result<size_t> put = dst.Put(&info, sizeof info);
    if (!put.ok() || *put != sizeof info) return total != 0 ? Result<size_t>(total) : Result<size_t>(kEFAULT);
    total += sizeof info;
  }
  if (total == 0) return kEAGAIN;
  return total;
}

EventMask SignalFd::Poll(EventMask interest) {
  SignalSource* source = Current();
  if (source == nullptr || (source->PendingSignals() & mask()) == 0) return 0;
  return interest & (EPOLLIN | EPOLLRDNORM);
}

std::string SignalFd::FdInfo() const { return fmt::format("sigmask:\t{:016x}\n", mask()); }

}  // namespace moat
