#include "platform/systrap/listener.h"

#include <errno.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS  // Linux 6.6
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#define SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP (1UL << 0)
#endif

namespace moat::systrap_platform {
namespace {

// Which descriptors are Listeners: a stub that names another one's must not get it.
constexpr int kMaxFd = 1 << 20;
std::atomic<uint64_t> adopted[kMaxFd / 64];

bool Claim(int fd) {
  const uint64_t bit = uint64_t{1} << (fd % 64);
  return (adopted[fd / 64].fetch_or(bit, std::memory_order_acq_rel) & bit) == 0;
}
void Unclaim(int fd) { adopted[fd / 64].fetch_and(~(uint64_t{1} << (fd % 64)), std::memory_order_acq_rel); }

}  // namespace

Listener& Listener::operator=(Listener&& o) noexcept {
  if (this != &o) {
    Close();
    fd_ = std::exchange(o.fd_, -1);
    notification_ = o.notification_;
  }
  return *this;
}

Result<Listener> Listener::Adopt(int fd) {
  if (fd < 0 || fd >= kMaxFd) return kEINVAL;
  if (!Claim(fd)) return kEBUSY;
  if (ioctl(fd, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP) != 0) {
    Unclaim(fd);
    return kEINVAL;
  }
  return Listener(fd);
}

void Listener::Forgo() {
  if (fd_ >= 0) Unclaim(std::exchange(fd_, -1));
}

void Listener::Close() {
  const int fd = fd_;
  Forgo();
  if (fd >= 0) close(fd);
}

short Listener::Poll(short events, int seconds) const {
  pollfd p = {fd_, events, 0};
  const timespec timeout = {seconds, 0};
  return ppoll(&p, 1, &timeout, nullptr) > 0 ? p.revents : short{0};
}

Result<void> Listener::Receive() {
  for (;;) {
    memset(&notification_, 0, sizeof notification_);  // the kernel insists
    if (ioctl(fd_, SECCOMP_IOCTL_NOTIF_RECV, &notification_) == 0) return {};
    // Either a kick came between the call and its pick-up, and the call comes again, or no thread has this filter any
    // more.
    if (errno == ENOENT && (Poll(0, 0) & POLLHUP) != 0) return kESRCH;
    if (errno != EINTR && errno != ENOENT) return kEINVAL;
  }
}

Result<void> Listener::Send(int64_t value, uint32_t flags) {
  seccomp_notif_resp response = {notification_.id, value, 0, flags};
  if (ioctl(fd_, SECCOMP_IOCTL_NOTIF_SEND, &response) != 0) return kESRCH;
  return {};
}

Result<void> Listener::Answer(int64_t value) { return Send(value, 0); }
Result<void> Listener::Continue() { return Send(0, SECCOMP_USER_NOTIF_FLAG_CONTINUE); }

}  // namespace moat::systrap_platform
