#include "fs/hostfs/wire.h"

#include <sys/socket.h>

#include <cstring>

#include "fs/hostfs/protocol.h"

namespace moat::gofer {
namespace {

// SCM_MAX_FD, unix(7): what one message can carry. With room for all of it a peer that sends more than was agreed is
// seen, and what it sent is closed; and the kernel can only be short of room in our descriptor table.
constexpr size_t kScmMaxFds = 253;

Result<void> Send(int socket, std::span<const iovec> parts, const int* fds, size_t count) {
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxLookUp * sizeof(int))];
  msghdr message = {};
  message.msg_iov = const_cast<iovec*>(parts.data());
  message.msg_iovlen = parts.size();
  if (count != 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(count * sizeof(int));
    memset(control, 0, message.msg_controllen);
    cmsghdr* c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(c), fds, count * sizeof(int));
  }
  for (;;) {
    if (sendmsg(socket, &message, MSG_NOSIGNAL) >= 0) return {};
    if (errno != EINTR) return HostErrno();
  }
}

}  // namespace

Result<void> SendPacket(int socket, std::span<const iovec> parts, std::span<const int> fds) {
  if (fds.size() > kMaxLookUp) return kEINVAL;
  return Send(socket, parts, fds.data(), fds.size());
}

Result<void> SendPacket(int socket, std::span<const iovec> parts, int fd) {
  return Send(socket, parts, &fd, fd >= 0 ? 1 : 0);
}

Result<size_t> ReceivePacket(int socket, std::span<iovec> parts, size_t max_fds, ReceivedFds& received) {
  alignas(cmsghdr) char control[CMSG_SPACE(kScmMaxFds * sizeof(int))];
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

  received.fds.clear();
  for (cmsghdr* c = CMSG_FIRSTHDR(&message); c != nullptr; c = CMSG_NXTHDR(&message, c)) {
    if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len < CMSG_LEN(0)) continue;
    size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int one;
      memcpy(&one, CMSG_DATA(c) + i * sizeof(int), sizeof one);
      received.fds.emplace_back(one);
    }
  }
  bool too_many = received.fds.size() > max_fds;
  received.lost = (message.msg_flags & MSG_CTRUNC) != 0;
  if (too_many || received.lost) received.fds.clear();
  if (too_many) return kEPROTO;
  if ((message.msg_flags & MSG_TRUNC) != 0) return kEMSGSIZE;
  return static_cast<size_t>(n);
}

}  // namespace moat::gofer
