#include "fs/hostfs/wire.h"

#include <sys/socket.h>

#include <cstring>

namespace moat::gofer {
namespace {

constexpr size_t kMaxFds = 4;  // room to see, and close, what a hostile peer sends beyond the one allowed

}  // namespace

Result<void> SendPacket(int socket, std::span<const iovec> parts, int fd) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = const_cast<iovec*>(parts.data());
  message.msg_iovlen = parts.size();
  if (fd >= 0) {
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    cmsghdr* c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
  }
  for (;;) {
    if (sendmsg(socket, &message, MSG_NOSIGNAL) >= 0) return {};
    if (errno != EINTR) return HostErrno();
  }
}

Result<size_t> ReceivePacket(int socket, std::span<iovec> parts, ScopedFd& fd) {
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxFds * sizeof(int))];
  msghdr message = {};
  ssize_t n;
  do {
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    message.msg_control = control;
    message.msg_controllen = sizeof control;
    message.msg_flags = 0;
    n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (n < 0 && errno == EINTR);
  if (n < 0) return HostErrno();

  size_t received = 0;
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(0)) continue;
    size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int one;
      memcpy(&one, CMSG_DATA(c) + i * sizeof(int), sizeof one);
      ScopedFd owned(one);
      if (received++ == 0) fd = std::move(owned);
    }
  }
  if (received > 1 || (message.msg_flags & MSG_CTRUNC) != 0) {
    fd.Reset();
    return kEPROTO;
  }
  if ((message.msg_flags & MSG_TRUNC) != 0) return kEMSGSIZE;
  return static_cast<size_t>(n);
}

}  // namespace moat::gofer
