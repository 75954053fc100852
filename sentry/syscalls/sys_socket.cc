// The socket calls but for those that move data (sys_socket_message.cc). Source: socket(2), bind(2), connect(2),
// listen(2), accept(2), getsockname(2), getsockopt(2), shutdown(2), socketpair(2).
#include <sys/epoll.h>

#include "platform/abi/socket.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/socket_io.h"

namespace moat {
namespace {

constexpr int kTypeMask = 0xf;
constexpr int kOptionMax = 4096;

struct SocketType {
  int type;
  bool nonblocking, cloexec;
};

Result<SocketType> ParseType(int type) {
  const int flags = type & ~kTypeMask;
  if (flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK)) return kEINVAL;
  type &= kTypeMask;
  if (type < SOCK_STREAM || type > SOCK_PACKET) return kEINVAL;
  return SocketType{type, (flags & SOCK_NONBLOCK) != 0, (flags & SOCK_CLOEXEC) != 0};
}

}  // namespace

Result<int64_t> SysSocket(Task& t, int family, int type, int protocol) {
  SocketType parsed = TRY(ParseType(type));
  SocketProvider* provider = TRY(FindSocketProvider(family));
  RefPtr<SocketFile> s = TRY(provider->Create(t, parsed.type, protocol, parsed.nonblocking));
  return TRY(t.InstallFd(std::move(s), parsed.cloexec));
}

Result<int64_t> SysSocketpair(Task& t, int family, int type, int protocol, UserOut<int32_t> fds) {
  SocketType parsed = TRY(ParseType(type));
  SocketProvider* provider = TRY(FindSocketProvider(family));
  auto [a, b] = TRY(provider->CreatePair(t, parsed.type, protocol, parsed.nonblocking));
  int first = TRY(t.InstallFd(std::move(a), parsed.cloexec));
  Result<int> second = t.InstallFd(std::move(b), parsed.cloexec);
  if (!second.ok()) {
    t.fds().Remove(first);
    return second.error();
  }
  const int32_t both[2] = {first, *second};
  Result<void> written = fds.WriteArray(t.memory(), both);
  if (!written.ok()) {
    t.fds().Remove(first);
    t.fds().Remove(*second);
    return written.error();
  }
  return 0;
}

Result<int64_t> SysBind(Task& t, FdNum fd, GuestAddr address, int length) {
  RefPtr<File> keep;
  SocketFile* s = TRY(GetSocket(t, fd, &keep));
  TRY(s->Bind(t, TRY(ReadAddress(t, address, length))));
  return 0;
}

Result<int64_t> SysListen(Task& t, FdNum fd, int backlog) {
  RefPtr<File> keep;
  SocketFile* s = TRY(GetSocket(t, fd, &keep));
  TRY(s->Listen(t, backlog));
  return 0;
}

Result<int64_t> SysConnect(Task& t, FdNum fd, GuestAddr address, int length) {
  RefPtr<File> keep;
  SocketFile* s = TRY(GetSocket(t, fd, &keep));
  std::string to = TRY(ReadAddress(t, address, length));
  const Nanos timeout = s->send_timeout();
  for (;;) {
    WaitQueue* queue = nullptr;
    RefPtr<RefCounted> queue_owner;
    Result<void> r = s->Connect(t, to, &queue, &queue_owner);
    if (r.ok() || r.error() != kEAGAIN || queue == nullptr || s->nonblocking()) {
      TRY(r);
      return 0;
    }
    // The name may lead elsewhere after the wait: each try looks it up again.
    WaitQueue* again = nullptr;
    RefPtr<RefCounted> again_owner;
    r = WaitOnSocket(t, *queue, true, EPOLLOUT, timeout, [&] { return s->Connect(t, to, &again, &again_owner); });
    if (r.ok() || again_owner == queue_owner || r.error() != kEAGAIN) {
      TRY(r);
      return 0;
    }
  }
}

Result<int64_t> SysAccept4(Task& t, FdNum fd, GuestAddr address, GuestAddr length, int flags) {
  if (flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK)) return kEINVAL;
  RefPtr<File> keep;
  SocketFile* s = TRY(GetSocket(t, fd, &keep));
  RefPtr<SocketFile> accepted = TRY(WaitOnSocket(t, s->wait_queue(), !s->nonblocking(), EPOLLIN, s->receive_timeout(),
                                                 [&] { return s->Accept(t, (flags & SOCK_NONBLOCK) != 0); }));
  if (address != 0) {
    Result<std::string> peer = accepted->PeerAddress();
    TRY(WriteAddress(t, peer.ok() ? *peer : std::string(), address, length));
  }
  return TRY(t.InstallFd(std::move(accepted), (flags & SOCK_CLOEXEC) != 0));
}

Result<int64_t> SysAccept(Task& t, FdNum fd, GuestAddr address, GuestAddr length) {
  return SysAccept4(t, fd, address, length, 0);
}

Result<int64_t> SysGetsockname(Task& t, FdNum fd, GuestAddr address, GuestAddr length) {
  RefPtr<File> keep;
  SocketFile* s = TRY(GetSocket(t, fd, &keep));
  std::string name = TRY(s->LocalAddress());
  if (address == 0) return kEFAULT;
  TRY(WriteAddress(t, name, address, length));
  return 0;
}

Result<int64_t> SysGetpeername(Task& t, FdNum fd, GuestAddr address, GuestAddr length) {
  RefPtr<File> keep;
  SocketFile* s = TRY(GetSocket(t, fd, &keep));
  std::string name = TRY(s->PeerAddress());
  if (address == 0) return kEFAULT;
  TRY(WriteAddress(t, name, address, length));
  return 0;
}

Result<int64_t> SysShutdown(Task& t, FdNum fd, int how) {
  RefPtr<File> keep;
  SocketFile* s = TRY(GetSocket(t, fd, &keep));
  TRY(s->Shutdown(how));
  return 0;
}

Result<int64_t> SysGetsockopt(Task& t, FdNum fd, int level, int name, GuestAddr value, UserInOut<int32_t> length) {
  RefPtr<File> keep;
  SocketFile* s = TRY(GetSocket(t, fd, &keep));
  int32_t room = TRY(length.Read(t.memory()));
  if (room < 0) return kEINVAL;
  std::string bytes = TRY(s->GetOption(t, level, name, static_cast<size_t>(room)));
  const size_t n = std::min<size_t>(static_cast<size_t>(room), bytes.size());
  if (n != 0 && t.memory().CopyOut(value, bytes.data(), n) != n) return kEFAULT;
  TRY(length.Write(t.memory(), static_cast<int32_t>(n)));
  return 0;
}

Result<int64_t> SysSetsockopt(Task& t, FdNum fd, int level, int name, GuestAddr value, int length) {
  RefPtr<File> keep;
  SocketFile* s = TRY(GetSocket(t, fd, &keep));
  if (length < 0) return kEINVAL;
  std::string bytes(static_cast<size_t>(std::min(length, kOptionMax)), '\0');
  if (!bytes.empty() && t.memory().CopyIn(bytes.data(), value, bytes.size()) != bytes.size()) return kEFAULT;
  TRY(s->SetOption(t, level, name, bytes));
  return 0;
}

}  // namespace moat
