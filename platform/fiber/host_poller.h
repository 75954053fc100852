// HostPoller: readiness of host file descriptors (stdio, terminals, host sockets), from one epoll instance with one
// thread that notifies wait queues. Edge-triggered: after Add, and after each change, `queue` is notified with the
// events; who wants the state asks poll(2) on the fd. Thread-safe. Lock: kHostPoller. Source: epoll(7).
#ifndef MOAT_PLATFORM_FIBER_HOST_POLLER_H_
#define MOAT_PLATFORM_FIBER_HOST_POLLER_H_

#include <cstdint>
#include <map>
#include <memory>

#include "platform/base/mutex.h"
#include "platform/base/result.h"
#include "platform/base/scoped_fd.h"
#include "platform/fiber/thread.h"
#include "platform/fiber/wait_queue.h"

namespace moat {

class HostPoller {
 public:
  static Result<std::unique_ptr<HostPoller>> Create();
  ~HostPoller();

  // The process's own, made at the first call; the sentry makes that call before its lockdown.
  static HostPoller& Get();

  // Notifies `queue` of `fd`'s events (all of EPOLLIN, EPOLLOUT, EPOLLRDHUP, EPOLLPRI, EPOLLERR, EPOLLHUP) until
  // Remove. kEPERM: `fd` is of a kind that is always ready (a regular file); kEEXIST: added before.
  Result<void> Add(int fd, WaitQueue& queue);
  // To be called before the fd is closed and before the queue dies; on return the queue is not in use any more.
  void Remove(int fd);

  // EPOLL* bits of `interest` (and EPOLLERR, EPOLLHUP) that `fd` has now. Never blocks.
  static EventMask PollNow(int fd, EventMask interest);

 private:
  HostPoller() = default;
  void Run();

  ScopedFd epoll_fd_;
  ScopedFd stop_fd_;  // an eventfd: ends Run
  Mutex mu_{LockRank::kHostPoller};
  struct Watch {
    int fd;
    WaitQueue* queue;
  };
  // By a number that is never used twice, so that an event that is on its way when its fd is removed and the same
  // descriptor number added again reaches nobody.
  std::map<uint64_t, Watch> watches_ ABSL_GUARDED_BY(mu_);
  uint64_t next_id_ ABSL_GUARDED_BY(mu_) = 1;
  HostThread thread_;
};

}  // namespace moat

#endif  // MOAT_PLATFORM_FIBER_HOST_POLLER_H_
