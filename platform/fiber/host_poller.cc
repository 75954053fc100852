#include "platform/fiber/host_poller.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "platform/base/log.h"

namespace moat {
namespace {
constexpr uint64_t kStopId = 0;
constexpr int kBatch = 64;
}  // namespace

Result<std::unique_ptr<HostPoller>> HostPoller::Create() {
  std::unique_ptr<HostPoller> p(new HostPoller);
  p->epoll_fd_.Reset(epoll_create1(EPOLL_CLOEXEC));
  if (!p->epoll_fd_.valid()) return HostErrno();
  p->stop_fd_.Reset(eventfd(0, EFD_CLOEXEC));
  if (!p->stop_fd_.valid()) return HostErrno();
  epoll_event e{.events = EPOLLIN, .data = {.u64 = kStopId}};
  if (epoll_ctl(p->epoll_fd_.get(), EPOLL_CTL_ADD, p->stop_fd_.get(), &e) != 0) return HostErrno();
  p->thread_ = TRY(HostThread::Start("host-poll", [raw = p.get()] { raw->Run(); }));
  return p;
}

HostPoller::~HostPoller() {
  if (!thread_.joinable()) return;
  uint64_t one = 1;
  MOAT_CHECK(write(stop_fd_.get(), &one, sizeof one) == sizeof one);
  thread_.Join();
}

HostPoller& HostPoller::Get() {
  static HostPoller* poller = [] {
    auto p = Create();
    MOAT_CHECK(p.ok());
    return std::move(p).value().release();  // lives as long as the process
  }();
  return *poller;
}

Result<void> HostPoller::Add(int fd, WaitQueue& queue) {
  MutexLock lock(mu_);
  uint64_t id = next_id_++;
  epoll_event e{.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET, .data = {.u64 = id}};
  if (epoll_ctl(epoll_fd_.get(), EPOLL_CTL_ADD, fd, &e) != 0) return HostErrno();
  watches_[id] = {fd, &queue};
  return {};
}

void HostPoller::Remove(int fd) {
  MutexLock lock(mu_);
  for (auto it = watches_.begin(); it != watches_.end(); ++it) {
    if (it->second.fd != fd) continue;
    epoll_ctl(epoll_fd_.get(), EPOLL_CTL_DEL, fd, nullptr);
    watches_.erase(it);
    return;
  }
}

void HostPoller::Run() {
  epoll_event events[kBatch];
  for (;;) {
    int n = epoll_pwait(epoll_fd_.get(), events, kBatch, -1, nullptr);
    for (int i = 0; i < n; ++i) {
      if (events[i].data.u64 == kStopId) return;
      MutexLock lock(mu_);
      auto it = watches_.find(events[i].data.u64);
      if (it != watches_.end()) it->second.queue->Notify(events[i].events);
    }
  }
}

EventMask HostPoller::PollNow(int fd, EventMask interest) {
  // The poll(2) and epoll(7) bits are the same numbers on Linux.
  pollfd p{.fd = fd, .events = static_cast<short>(interest & 0x7fff), .revents = 0};
  timespec zero{};
  if (ppoll(&p, 1, &zero, nullptr) <= 0) return 0;
  return static_cast<EventMask>(static_cast<unsigned short>(p.revents));
}

}  // namespace moat
