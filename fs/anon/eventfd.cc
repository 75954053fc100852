#include "fs/anon/eventfd.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "fs/anon/anon_inode.h"

namespace moat {
namespace {
constexpr uint64_t kOverflow = ~uint64_t{0};  // only signals get there
constexpr uint64_t kMax = kOverflow - 1;
std::atomic<uint64_t> next_id{0};
}  // namespace

EventFd::EventFd(uint32_t initial, int flags)
    : File(AnonInodePath("eventfd"), OpenFlags{O_RDWR | (flags & EFD_NONBLOCK)}),
      semaphore_(flags & EFD_SEMAPHORE),
      id_(next_id.fetch_add(1, std::memory_order_relaxed)),
      count_(initial) {}

Result<size_t> EventFd::Read(const VfsContext&, IoDest& dst) {
  if (dst.remaining() < sizeof(uint64_t)) return kEINVAL;
  uint64_t value;
  {
    MutexLock lock(mu_);
    if (count_ == 0) return kEAGAIN;
    value = semaphore_ ? 1 : count_;
    count_ -= value;
  }
  wait_queue().Notify(EPOLLOUT | EPOLLWRNORM);
  size_t n = TRY(dst.Put(&value, sizeof value));
  if (n != sizeof value) return kEFAULT;
  return n;
}

Result<size_t> EventFd::Write(const VfsContext&, IoSource& src) {
  if (src.remaining() < sizeof(uint64_t)) return kEINVAL;
  uint64_t value;
  size_t n = TRY(src.Take(&value, sizeof value));
  if (n != sizeof value) return kEFAULT;
  if (value == kOverflow) return kEINVAL;
  {
    MutexLock lock(mu_);
    if (kOverflow - count_ <= value) {
      src.Rewind(sizeof value);  // the caller tries again when the counter was read
      return kEAGAIN;
    }
    count_ += value;
  }
  wait_queue().Notify(EPOLLIN | EPOLLRDNORM);
  return n;
}

void EventFd::Signal() {
  {
    MutexLock lock(mu_);
    if (count_ < kOverflow) ++count_;
  }
  wait_queue().Notify(EPOLLIN | EPOLLRDNORM);
}

EventMask EventFd::Poll(EventMask interest) {
  MutexLock lock(mu_);
  EventMask ready = 0;
  if (count_ > 0) ready |= EPOLLIN | EPOLLRDNORM;
  if (count_ < kMax) ready |= EPOLLOUT | EPOLLWRNORM;
  if (count_ == kOverflow) ready |= EPOLLERR;
  return ready & (interest | EPOLLERR);
}

std::string EventFd::FdInfo() const {
  MutexLock lock(mu_);
  return fmt::format("eventfd-count: {:16x}\neventfd-id: {}\neventfd-semaphore: {}\n", count_, id_, semaphore_ ? 1 : 0);
}

}  // namespace moat
