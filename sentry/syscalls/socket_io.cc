#include "sentry/syscalls/socket_io.h"

#include <sys/epoll.h>

#include "platform/abi/socket.h"
#include "sentry/kernel/task.h"

namespace moat {

Result<SocketFile*> GetSocket(Task& t, FdNum fd, RefPtr<File>* keep) {
  *keep = TRY(t.GetFileNotPath(ToInt(fd)));
  SocketFile* s = SocketFile::Cast(**keep);
  if (s == nullptr) return kENOTSOCK;
  return s;
}

Result<std::string> ReadAddress(Task& t, GuestAddr address, int length) {
  if (length < 0 || static_cast<uint32_t>(length) > abi::kSockaddrMax) return kEINVAL;
  std::string bytes(static_cast<size_t>(length), '\0');
  if (length != 0 && t.memory().CopyIn(bytes.data(), address, bytes.size()) != bytes.size()) return kEFAULT;
  return bytes;
}

Result<void> WriteAddress(Task& t, std::string_view value, GuestAddr address, GuestAddr length) {
  if (address == 0) return {};
  const int room = TRY(UserIn<int>(length).Read(t.memory()));
  if (room < 0) return kEINVAL;
  const size_t n = std::min<size_t>(static_cast<size_t>(room), value.size());
  if (n != 0 && t.memory().CopyOut(address, value.data(), n) != n) return kEFAULT;
  return UserOut<int>(length).Write(t.memory(), static_cast<int>(value.size()));
}

Result<int64_t> SendOnSocket(Task& t, SocketFile& s, SendMessage& message) {
  const bool may_block = !s.nonblocking() && !(message.flags & MSG_DONTWAIT);
  int64_t total = 0;
  for (;;) {
    Result<size_t> sent =
        WaitOnSocket(t, s.wait_queue(), may_block, EPOLLOUT, s.send_timeout(), [&] { return s.Send(t, message); });
    if (!sent.ok()) {
      if (total > 0) return total;
      if (sent.error() == kEPIPE && s.is_stream() && !(message.flags & MSG_NOSIGNAL)) {
        (void)t.SendSignal(UserSigInfo(SIGPIPE, SI_USER, t.tgid(), t.user_ns().FromKuid(t.cred().uid)));
      }
      return sent.error();
    }
    total += static_cast<int64_t>(*sent);
    if (!s.is_stream() || !may_block || message.data->remaining() == 0 || *sent == 0) return total;
  }
}

Result<ReceivedMessage> ReceiveFromSocket(Task& t, SocketFile& s, IoDest& dst, int flags, Deadline deadline) {
  const bool may_block = !s.nonblocking() && !(flags & MSG_DONTWAIT);
  Nanos timeout = s.receive_timeout();
  if (deadline != kNoDeadline) timeout = std::min(timeout, std::max<Nanos>(deadline - MonotonicNow(), 0));
  auto once = [&] {
    return WaitOnSocket(t, s.wait_queue(), may_block, EPOLLIN | EPOLLRDHUP, timeout,
                        [&] { return s.Receive(t, dst, flags); });
  };
  Result<ReceivedMessage> first = once();
  const bool wait_all = (flags & MSG_WAITALL) && s.is_stream() && !(flags & MSG_PEEK);
  if (!first.ok() || !wait_all || first->bytes == 0) return first;
  ReceivedMessage m = std::move(*first);
  while (dst.remaining() > 0 && m.control.rights.empty()) {
    Result<ReceivedMessage> more = once();
    if (!more.ok() || more->bytes == 0) break;
    m.bytes += more->bytes;
    m.length += more->length;
    m.control.rights = std::move(more->control.rights);
  }
  return m;
}

}  // namespace moat
