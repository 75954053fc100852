// Listener: the seccomp user notifications of one stub thread. The thread is stopped in a call of its own from Receive
// until one of the answers; it and its carrier hand one CPU to each other (SYNC_WAKE_UP). Source: seccomp_unotify(2).
// Not thread-safe: one carrier at a time.
#ifndef MOAT_PLATFORM_SYSTRAP_LISTENER_H_
#define MOAT_PLATFORM_SYSTRAP_LISTENER_H_

#include <linux/seccomp.h>
#include <poll.h>
#include <sys/types.h>

#include <utility>

#include "platform/base/result.h"

namespace moat::systrap_platform {

class Listener {
 public:
  Listener() = default;
  Listener(Listener&& o) noexcept : fd_(std::exchange(o.fd_, -1)), notification_(o.notification_) {}
  Listener& operator=(Listener&& o) noexcept;
  ~Listener() { Close(); }

  // Takes over descriptor `fd`, a number that a stub named: it may be anything. kEBUSY: it already is some Listener's;
  // kEINVAL: it is no listener. On errors the descriptor is left as it is.
  static Result<Listener> Adopt(int fd);
  int fd() const { return fd_; }
  bool valid() const { return fd_ >= 0; }

  // Whether Receive would not wait. A call that is seen may be withdrawn, but only for another that is on its way.
  bool HasCall() const { return AwaitCall(0); }
  // Waits so many seconds for that, or for the thread's end.
  bool AwaitCall(int seconds) const { return Poll(POLLIN, seconds) != 0; }
  // Waits for the thread's next call. kESRCH: the thread is gone.
  Result<void> Receive();
  // Of the last call received, as the host kernel tells: nothing here can be forged.
  const seccomp_data& call() const { return notification_.data; }
  pid_t tid() const { return static_cast<pid_t>(notification_.pid); }

  // The call returns `value`, errors as -errno. kESRCH: the thread is gone.
  Result<void> Answer(int64_t value);
  // The host carries the call out as the thread made it.
  Result<void> Continue();

  // Gives the descriptor up without closing it: it turned out to be somebody else's.
  void Forgo();

 private:
  explicit Listener(int fd) : fd_(fd) {}
  void Close();
  // What ppoll(2) tells of `events` within so many seconds.
  short Poll(short events, int seconds) const;
  Result<void> Send(int64_t value, uint32_t flags);

  int fd_ = -1;
  seccomp_notif notification_{};
};

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_LISTENER_H_
