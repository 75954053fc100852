#include "runsc/sandbox/channel.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

namespace moat {
namespace {

struct Header {
  uint32_t magic;
  uint32_t kind;
  int32_t number;
  uint32_t length;
};
constexpr uint32_t kMagic = 0x4d6f6174;

Result<void> SendAll(int fd, const void* data, size_t n, std::span<const int> fds) {
  const char* at = static_cast<const char*>(data);
  while (n > 0) {
    iovec v{const_cast<char*>(at), n};
    msghdr m = {};
    m.msg_iov = &v;
    m.msg_iovlen = 1;
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * Channel::kMaxFds)] = {};
    if (!fds.empty()) {
      m.msg_control = control;
      m.msg_controllen = CMSG_SPACE(fds.size_bytes());
      cmsghdr* c = CMSG_FIRSTHDR(&m);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(fds.size_bytes());
      memcpy(CMSG_DATA(c), fds.data(), fds.size_bytes());
    }
    ssize_t sent = sendmsg(fd, &m, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      return errno == ECONNRESET ? kEPIPE : HostErrno();
    }
    fds = {};
    at += sent;
    n -= sent;
  }
  return {};
}

}  // namespace

Result<std::pair<Channel, Channel>> Channel::Pair() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) return HostErrno();
  return std::pair<Channel, Channel>(Channel(ScopedFd(fds[0])), Channel(ScopedFd(fds[1])));
}

Result<void> Channel::Send(MessageKind kind, int32_t number, std::string_view text, std::span<const int> fds) {
  if (text.size() > kMaxMessage || fds.size() > kMaxFds) return kEMSGSIZE;
  // One buffer: a short message is one host call.
  std::string buffer(sizeof(Header) + text.size(), '\0');
  Header h{kMagic, static_cast<uint32_t>(kind), number, static_cast<uint32_t>(text.size())};
  memcpy(buffer.data(), &h, sizeof h);
  text.copy(buffer.data() + sizeof h, text.size());
  return SendAll(socket_.get(), buffer.data(), buffer.size(), fds);
}

Result<Message> Channel::Receive() {
  Message message;
  Header h;
  size_t got = 0;
  while (got < sizeof h) {
    iovec v{reinterpret_cast<char*>(&h) + got, sizeof h - got};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * kMaxFds)];
    msghdr m = {};
    m.msg_iov = &v;
    m.msg_iovlen = 1;
    m.msg_control = control;
    m.msg_controllen = sizeof control;
    ssize_t n = recvmsg(socket_.get(), &m, MSG_CMSG_CLOEXEC);
    if (n < 0) {
      if (errno == EINTR) continue;
      return errno == ECONNRESET ? kEPIPE : HostErrno();
    }
    for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
      if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
      size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (size_t i = 0; i < count; ++i) {
        int fd;
        memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
        message.fds.emplace_back(fd);
      }
    }
    if (n == 0) return kEPIPE;
    got += n;
  }
  if (h.magic != kMagic || h.length > kMaxMessage) return kEPROTO;
  message.kind = static_cast<MessageKind>(h.kind);
  message.number = h.number;
  message.text.resize(h.length);
  TRY(ReceiveExactly(message.text.data(), h.length));
  return message;
}

Result<void> Channel::ReceiveExactly(void* to, size_t n) {
  char* at = static_cast<char*>(to);
  while (n > 0) {
    iovec v{at, n};
    msghdr m = {};
    m.msg_iov = &v;
    m.msg_iovlen = 1;
    ssize_t got = recvmsg(socket_.get(), &m, 0);
    if (got < 0) {
      if (errno == EINTR) continue;
      return errno == ECONNRESET ? kEPIPE : HostErrno();
    }
    if (got == 0) return kEPIPE;
    at += got;
    n -= got;
  }
  return {};
}

}  // namespace moat
