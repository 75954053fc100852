// AF_UNIX sockets: streams, datagrams, sequenced packets, names, options.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <thread>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

struct Address {
  sockaddr_un un = {AF_UNIX, {}};
  socklen_t length = 0;
  static Address Path(const std::string& path) {
    Address a;
    strncpy(a.un.sun_path, path.c_str(), sizeof a.un.sun_path - 1);
    a.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + 1);
    return a;
  }
  static Address Abstract(const std::string& name) {
    Address a;
    memcpy(a.un.sun_path + 1, name.data(), name.size());
    a.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
    return a;
  }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&un); }
};

ScopedFd Socket(int type) { return ScopedFd(socket(AF_UNIX, type | SOCK_CLOEXEC, 0)); }

class UnixSocket : public testing::Test {
 protected:
  void Pair(int type) {
    int s[2];
    ASSERT_OK(socketpair(AF_UNIX, type, 0, s));
    a_.Reset(s[0]);
    b_.Reset(s[1]);
  }
  void Listen(Address address, int type = SOCK_STREAM, int backlog = 5) {
    listener_ = Socket(type);
    ASSERT_OK(bind(listener_.get(), address.get(), address.length));
    ASSERT_OK(listen(listener_.get(), backlog));
  }
  static std::string Receive(int fd, int flags = 0) {
    char b[4096];
    const ssize_t n = recv(fd, b, sizeof b, flags);
    EXPECT_OK(n);
    return std::string(b, n > 0 ? n : 0);
  }
  TempDir dir_;
  ScopedFd a_, b_, listener_;
};

class EveryType : public UnixSocket, public testing::WithParamInterface<int> {};
TEST_P(EveryType, PairCarriesBothWays) {
  Pair(GetParam());
  ASSERT_EQ(send(a_.get(), "ping", 4, 0), 4);
  EXPECT_EQ(Receive(b_.get()), "ping");
  ASSERT_EQ(send(b_.get(), "pong", 4, 0), 4);
  EXPECT_EQ(Receive(a_.get()), "pong");
}
TEST_P(EveryType, BoundariesAreKeptUnlessStream) {
  Pair(GetParam());
  ASSERT_EQ(send(a_.get(), "one", 3, 0), 3);
  ASSERT_EQ(send(a_.get(), "two", 3, 0), 3);
  EXPECT_EQ(Receive(b_.get()), GetParam() == SOCK_STREAM ? "onetwo" : "one");
}
TEST_P(EveryType, EmptyNonblockingReceive) {
  Pair(GetParam() | SOCK_NONBLOCK);
  char b;
  EXPECT_FAIL(recv(a_.get(), &b, 1, 0), EAGAIN);
  EXPECT_FAIL(recv(b_.get(), &b, 1, MSG_DONTWAIT), EAGAIN);
}
TEST_P(EveryType, PeekLeavesTheData) {
  Pair(GetParam());
  ASSERT_EQ(send(a_.get(), "data", 4, 0), 4);
  EXPECT_EQ(Receive(b_.get(), MSG_PEEK), "data");
  EXPECT_EQ(Receive(b_.get()), "data");
}
TEST_P(EveryType, TypeDomainProtocolOptions) {
  const ScopedFd s = Socket(GetParam());
  int value = -1;
  socklen_t length = sizeof value;
  ASSERT_OK(getsockopt(s.get(), SOL_SOCKET, SO_TYPE, &value, &length));
  EXPECT_EQ(value, GetParam());
  ASSERT_OK(getsockopt(s.get(), SOL_SOCKET, SO_DOMAIN, &value, &length));
  EXPECT_EQ(value, AF_UNIX);
  ASSERT_OK(getsockopt(s.get(), SOL_SOCKET, SO_PROTOCOL, &value, &length));
  EXPECT_EQ(value, 0);
}
TEST_P(EveryType, PeerCloseIsSeen) {
  Pair(GetParam() | SOCK_NONBLOCK);
  b_.Reset();
  char c;
  if (GetParam() == SOCK_DGRAM) {
    EXPECT_FAIL(send(a_.get(), "x", 1, MSG_NOSIGNAL), ECONNREFUSED);
  } else {
    EXPECT_EQ(recv(a_.get(), &c, 1, 0), 0);
    EXPECT_FAIL(send(a_.get(), "x", 1, MSG_NOSIGNAL), EPIPE);
  }
}
TEST_P(EveryType, ReceiveTimeout) {
  Pair(GetParam());
  const timeval timeout = {0, 20'000};
  ASSERT_OK(setsockopt(a_.get(), SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout));
  char b;
  EXPECT_FAIL(recv(a_.get(), &b, 1, 0), EAGAIN);
}
TEST_P(EveryType, FullBufferNonblocking) {
  Pair(GetParam() | SOCK_NONBLOCK);
  const std::string chunk(1024, 'x');
  int sent = 0;
  while (sent < 100'000 && send(a_.get(), chunk.data(), chunk.size(), 0) > 0) ++sent;
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_GE(sent, 5);
  EXPECT_LT(sent, 100'000);
}
TEST_P(EveryType, ConnectByPath) {
  Address address = Address::Path(dir_.Join("s"));
  const ScopedFd server = Socket(GetParam()), client = Socket(GetParam());
  ASSERT_OK(bind(server.get(), address.get(), address.length));
  struct stat st;
  ASSERT_OK(stat(dir_.Join("s").c_str(), &st));
  EXPECT_TRUE(S_ISSOCK(st.st_mode));
  if (GetParam() != SOCK_DGRAM) {
    EXPECT_FAIL(connect(client.get(), address.get(), address.length), ECONNREFUSED);
    ASSERT_OK(listen(server.get(), 1));
  }
  ASSERT_OK(connect(client.get(), address.get(), address.length));
  ASSERT_EQ(send(client.get(), "hi", 2, 0), 2);
  const ScopedFd accepted(GetParam() == SOCK_DGRAM ? dup(server.get()) : accept(server.get(), nullptr, nullptr));
  EXPECT_EQ(Receive(accepted.get()), "hi");
}
INSTANTIATE_TEST_SUITE_P(, EveryType, testing::Values(SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET), [](const auto& info) {
  return info.param == SOCK_STREAM ? "Stream" : info.param == SOCK_DGRAM ? "Dgram" : "Seqpacket";
});

TEST_F(UnixSocket, AcceptGivesTheClientName) {
  Listen(Address::Path(dir_.Join("server")));
  const ScopedFd client = Socket(SOCK_STREAM);
  Address name = Address::Path(dir_.Join("client")), server = Address::Path(dir_.Join("server"));
  ASSERT_OK(bind(client.get(), name.get(), name.length));
  ASSERT_OK(connect(client.get(), server.get(), server.length));
  Address peer;
  peer.length = sizeof peer.un;
  const ScopedFd accepted(accept4(listener_.get(), peer.get(), &peer.length, SOCK_CLOEXEC | SOCK_NONBLOCK));
  ASSERT_OK(accepted.get());
  EXPECT_EQ(dir_.Join("client"), peer.un.sun_path);
  EXPECT_EQ(fcntl(accepted.get(), F_GETFD), FD_CLOEXEC);
  EXPECT_TRUE(fcntl(accepted.get(), F_GETFL) & O_NONBLOCK);
  peer.length = sizeof peer.un;
  ASSERT_OK(getpeername(client.get(), peer.get(), &peer.length));
  EXPECT_EQ(dir_.Join("server"), peer.un.sun_path);
}
TEST_F(UnixSocket, UnnamedAddressIsJustTheFamily) {
  Pair(SOCK_STREAM);
  Address got;
  got.length = sizeof got.un;
  ASSERT_OK(getsockname(a_.get(), got.get(), &got.length));
  EXPECT_EQ(got.length, sizeof(sa_family_t));
}
TEST_F(UnixSocket, NameIsTruncatedToTheBuffer) {
  Listen(Address::Path(dir_.Join("server")));
  char small[4];
  socklen_t length = sizeof small;
  ASSERT_OK(getsockname(listener_.get(), reinterpret_cast<sockaddr*>(small), &length));
  EXPECT_EQ(length, offsetof(sockaddr_un, sun_path) + dir_.Join("server").size() + 1);
}
TEST_F(UnixSocket, AbstractNames) {
  const Address name = Address::Abstract("moat-guest-" + std::to_string(getpid()));
  Listen(name);
  Address copy = name;
  const ScopedFd client = Socket(SOCK_STREAM), second = Socket(SOCK_STREAM);
  EXPECT_OK(connect(client.get(), copy.get(), copy.length));
  EXPECT_FAIL(bind(second.get(), copy.get(), copy.length), EADDRINUSE);
  listener_.Reset();
  EXPECT_OK(bind(second.get(), copy.get(), copy.length));  // the name went with its socket
}
TEST_F(UnixSocket, AbstractNameLengthMatters) {
  Address name = Address::Abstract("moat-len-" + std::to_string(getpid()));
  Listen(name);
  const ScopedFd client = Socket(SOCK_STREAM);
  EXPECT_FAIL(connect(client.get(), name.get(), name.length + 1), ECONNREFUSED);
}
TEST_F(UnixSocket, Autobind) {
  const ScopedFd s = Socket(SOCK_DGRAM);
  Address family;
  ASSERT_OK(bind(s.get(), family.get(), sizeof(sa_family_t)));
  Address got;
  got.length = sizeof got.un;
  ASSERT_OK(getsockname(s.get(), got.get(), &got.length));
  EXPECT_EQ(got.length, sizeof(sa_family_t) + 6);
  EXPECT_EQ(got.un.sun_path[0], '\0');
}
TEST_F(UnixSocket, BindErrors) {
  dir_.File("f");
  Address file = Address::Path(dir_.Join("f")), missing = Address::Path(dir_.Join("no/s")),
          good = Address::Path(dir_.Join("s"));
  const ScopedFd s = Socket(SOCK_STREAM);
  EXPECT_FAIL(bind(s.get(), file.get(), file.length), EADDRINUSE);
  EXPECT_FAIL(bind(s.get(), missing.get(), missing.length), ENOENT);
  EXPECT_FAIL(bind(s.get(), good.get(), sizeof(sockaddr_un) + 1), EINVAL);
  EXPECT_FAIL(bind(s.get(), reinterpret_cast<sockaddr*>(BadPointer()), 20), EFAULT);
  EXPECT_OK(bind(s.get(), good.get(), good.length));
  Address again = Address::Path(dir_.Join("t"));
  EXPECT_FAIL(bind(s.get(), again.get(), again.length), EINVAL);
}
TEST_F(UnixSocket, ConnectErrors) {
  dir_.File("f");
  const ScopedFd s = Socket(SOCK_STREAM);
  Address missing = Address::Path(dir_.Join("no")), file = Address::Path(dir_.Join("f"));
  EXPECT_FAIL(connect(s.get(), missing.get(), missing.length), ENOENT);
  EXPECT_FAIL(connect(s.get(), file.get(), file.length), ECONNREFUSED);
  Address good = Address::Path(dir_.Join("s"));
  Listen(good);
  const ScopedFd wrong_type = Socket(SOCK_DGRAM);
  EXPECT_FAIL(connect(wrong_type.get(), good.get(), good.length), EPROTOTYPE);
  ASSERT_OK(connect(s.get(), good.get(), good.length));
  EXPECT_FAIL(connect(s.get(), good.get(), good.length), EISCONN);
}
TEST_F(UnixSocket, ConnectNeedsWritePermission) {
  ASSERT_OK(chmod(dir_.path().c_str(), 0755));
  Address good = Address::Path(dir_.Join("s"));
  Listen(good);
  ASSERT_OK(chmod(dir_.Join("s").c_str(), 0600));
  EXPECT_TRUE(PassesAsUser(1000, [&] {
    const ScopedFd s = Socket(SOCK_STREAM);
    EXPECT_FAIL(connect(s.get(), good.get(), good.length), EACCES);
  }));
}
TEST_F(UnixSocket, BacklogFull) {
  Address good = Address::Path(dir_.Join("s"));
  Listen(good, SOCK_STREAM, 0);
  const ScopedFd first(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0)),
      second(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0));
  EXPECT_OK(connect(first.get(), good.get(), good.length));
  EXPECT_FAIL(connect(second.get(), good.get(), good.length), EAGAIN);
  const ScopedFd accepted(accept(listener_.get(), nullptr, nullptr));
  EXPECT_OK(connect(second.get(), good.get(), good.length));
}
TEST_F(UnixSocket, AcceptErrors) {
  Pair(SOCK_STREAM);
  EXPECT_FAIL(accept(a_.get(), nullptr, nullptr), EINVAL);
  const ScopedFd datagram = Socket(SOCK_DGRAM);
  EXPECT_FAIL(accept(datagram.get(), nullptr, nullptr), EOPNOTSUPP);
  EXPECT_FAIL(listen(datagram.get(), 1), EOPNOTSUPP);
  const ScopedFd unbound = Socket(SOCK_STREAM);
  EXPECT_FAIL(listen(unbound.get(), 1), EINVAL);
  const ScopedFd null(open("/dev/null", O_RDWR));
  EXPECT_FAIL(accept(null.get(), nullptr, nullptr), ENOTSOCK);
}
TEST_F(UnixSocket, SocketErrors) {
  EXPECT_FAIL(socket(AF_UNIX, 77, 0), EINVAL);
  EXPECT_FAIL(socket(AF_UNIX, SOCK_RDM, 0), ESOCKTNOSUPPORT);
  EXPECT_FAIL(socket(AF_UNIX, SOCK_STREAM, 5), EPROTONOSUPPORT);
  EXPECT_FAIL(socket(10'000, SOCK_STREAM, 0), EAFNOSUPPORT);
  int s[2];
  EXPECT_FAIL(socketpair(AF_UNIX, 77, 0, s), EINVAL);
  EXPECT_FAIL(socketpair(AF_UNIX, SOCK_STREAM, 0, reinterpret_cast<int*>(BadPointer())), EFAULT);
}
TEST_F(UnixSocket, ShutdownWrite) {
  Pair(SOCK_STREAM);
  ASSERT_EQ(send(a_.get(), "last", 4, 0), 4);
  ASSERT_OK(shutdown(a_.get(), SHUT_WR));
  EXPECT_EQ(Receive(b_.get()), "last");
  EXPECT_EQ(Receive(b_.get()), "");
  EXPECT_FAIL(send(a_.get(), "x", 1, MSG_NOSIGNAL), EPIPE);
  EXPECT_EQ(send(b_.get(), "back", 4, 0), 4);
  EXPECT_EQ(Receive(a_.get()), "back");
}
TEST_F(UnixSocket, ShutdownRead) {
  Pair(SOCK_STREAM);
  ASSERT_OK(shutdown(a_.get(), SHUT_RD));
  EXPECT_EQ(Receive(a_.get()), "");
  EXPECT_FAIL(send(b_.get(), "x", 1, MSG_NOSIGNAL), EPIPE);
}
TEST_F(UnixSocket, ShutdownErrors) {
  Pair(SOCK_STREAM);
  EXPECT_FAIL(shutdown(a_.get(), 7), EINVAL);
  EXPECT_FAIL(shutdown(-1, SHUT_RD), EBADF);
}
TEST_F(UnixSocket, SigpipeUnlessAskedNot) {
  Pair(SOCK_STREAM);
  b_.Reset();
  SignalLog::Reset();
  const ScopedAction action(SIGPIPE, SignalLog::Record);
  EXPECT_FAIL(send(a_.get(), "x", 1, MSG_NOSIGNAL), EPIPE);
  EXPECT_EQ(SignalLog::count, 0);
  EXPECT_FAIL(send(a_.get(), "x", 1, 0), EPIPE);
  EXPECT_EQ(SignalLog::count, 1);
}
TEST_F(UnixSocket, CloseWithUnreadDataResets) {
  Pair(SOCK_STREAM);
  ASSERT_EQ(send(a_.get(), "unread", 6, 0), 6);
  b_.Reset();
  char c;
  EXPECT_FAIL(recv(a_.get(), &c, 1, 0), ECONNRESET);
}
TEST_F(UnixSocket, DatagramTruncation) {
  Pair(SOCK_DGRAM);
  ASSERT_EQ(send(a_.get(), "longer", 6, 0), 6);
  ASSERT_EQ(send(a_.get(), "next", 4, 0), 4);
  char b[3];
  iovec iov = {b, sizeof b};
  msghdr m = {};
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  EXPECT_EQ(recvmsg(b_.get(), &m, 0), 3);
  EXPECT_TRUE(m.msg_flags & MSG_TRUNC);
  EXPECT_EQ(Receive(b_.get()), "next");
}
TEST_F(UnixSocket, TruncFlagGivesTheRealLength) {
  Pair(SOCK_DGRAM);
  ASSERT_EQ(send(a_.get(), "longer", 6, 0), 6);
  char b[2];
  EXPECT_EQ(recv(b_.get(), b, sizeof b, MSG_TRUNC), 6);
}
TEST_F(UnixSocket, EmptyDatagram) {
  Pair(SOCK_DGRAM);
  ASSERT_EQ(send(a_.get(), "", 0, 0), 0);
  char b;
  EXPECT_EQ(recv(b_.get(), &b, 1, MSG_DONTWAIT), 0);
  EXPECT_FAIL(recv(b_.get(), &b, 1, MSG_DONTWAIT), EAGAIN);
}
TEST_F(UnixSocket, SendtoAndSenderAddress) {
  Address to = Address::Path(dir_.Join("to")), from = Address::Path(dir_.Join("from"));
  const ScopedFd receiver = Socket(SOCK_DGRAM), sender = Socket(SOCK_DGRAM);
  ASSERT_OK(bind(receiver.get(), to.get(), to.length));
  ASSERT_OK(bind(sender.get(), from.get(), from.length));
  ASSERT_EQ(sendto(sender.get(), "hi", 2, 0, to.get(), to.length), 2);
  char b[8];
  Address got;
  got.length = sizeof got.un;
  EXPECT_EQ(recvfrom(receiver.get(), b, sizeof b, 0, got.get(), &got.length), 2);
  EXPECT_EQ(dir_.Join("from"), got.un.sun_path);
  EXPECT_FAIL(send(sender.get(), "x", 1, 0), ENOTCONN);
}
TEST_F(UnixSocket, ConnectedDatagramRefusesOthers) {
  Address one = Address::Path(dir_.Join("one")), two = Address::Path(dir_.Join("two"));
  const ScopedFd first = Socket(SOCK_DGRAM), second = Socket(SOCK_DGRAM), stranger = Socket(SOCK_DGRAM);
  ASSERT_OK(bind(first.get(), one.get(), one.length));
  ASSERT_OK(bind(second.get(), two.get(), two.length));
  ASSERT_OK(connect(first.get(), two.get(), two.length));
  EXPECT_FAIL(sendto(stranger.get(), "x", 1, 0, one.get(), one.length), EPERM);
}
TEST_F(UnixSocket, SendtoOnConnectedStream) {
  Pair(SOCK_STREAM);
  Address any = Address::Path(dir_.Join("x"));
  EXPECT_FAIL(sendto(a_.get(), "x", 1, 0, any.get(), any.length), EISCONN);
}
TEST_F(UnixSocket, TooLargeDatagram) {
  Pair(SOCK_DGRAM);
  const std::string huge(8 << 20, 'x');
  EXPECT_FAIL(send(a_.get(), huge.data(), huge.size(), 0), EMSGSIZE);
}
TEST_F(UnixSocket, WaitallCollects) {
  Pair(SOCK_STREAM);
  std::thread sender([&] {
    for (int i = 0; i < 4; ++i) {
      send(a_.get(), "ab", 2, 0);
      usleep(2'000);
    }
  });
  char b[8];
  EXPECT_EQ(recv(b_.get(), b, sizeof b, MSG_WAITALL), 8);
  sender.join();
}
TEST_F(UnixSocket, SendmmsgRecvmmsg) {
  Pair(SOCK_DGRAM);
  char out1[] = "one", out2[] = "three";
  iovec io[2] = {{out1, 3}, {out2, 5}};
  mmsghdr m[2] = {};
  for (int i = 0; i < 2; ++i) {
    m[i].msg_hdr.msg_iov = &io[i];
    m[i].msg_hdr.msg_iovlen = 1;
  }
  EXPECT_EQ(sendmmsg(a_.get(), m, 2, 0), 2);
  EXPECT_EQ(m[1].msg_len, 5u);
  char in[2][8];
  for (int i = 0; i < 2; ++i) io[i] = {in[i], 8};
  EXPECT_EQ(recvmmsg(b_.get(), m, 2, MSG_DONTWAIT, nullptr), 2);
  EXPECT_EQ(m[0].msg_len, 3u);
  EXPECT_EQ(std::string(in[1], 5), "three");
}
TEST_F(UnixSocket, FionreadAndOutq) {
  Pair(SOCK_STREAM);
  ASSERT_EQ(send(a_.get(), "abc", 3, 0), 3);
  int n = 0;
  ASSERT_OK(ioctl(b_.get(), FIONREAD, &n));
  EXPECT_EQ(n, 3);
}
TEST_F(UnixSocket, PollStates) {
  Pair(SOCK_STREAM);
  pollfd p = {b_.get(), POLLIN | POLLOUT | POLLRDHUP, 0};
  ASSERT_EQ(poll(&p, 1, 0), 1);
  EXPECT_EQ(p.revents, POLLOUT);
  ASSERT_EQ(send(a_.get(), "x", 1, 0), 1);
  ASSERT_EQ(poll(&p, 1, 0), 1);
  EXPECT_EQ(p.revents, POLLIN | POLLOUT);
  a_.Reset();
  ASSERT_EQ(poll(&p, 1, 0), 1);
  EXPECT_EQ(p.revents, POLLIN | POLLOUT | POLLHUP | POLLRDHUP);
}
TEST_F(UnixSocket, PeerCredentials) {
  Pair(SOCK_STREAM);
  ucred cred;
  socklen_t length = sizeof cred;
  ASSERT_OK(getsockopt(a_.get(), SOL_SOCKET, SO_PEERCRED, &cred, &length));
  EXPECT_EQ(cred.pid, getpid());
  EXPECT_EQ(cred.uid, geteuid());
  EXPECT_EQ(cred.gid, getegid());
}
TEST_F(UnixSocket, BufferSizeOptions) {
  const ScopedFd s = Socket(SOCK_STREAM);
  int value = 20'000;
  ASSERT_OK(setsockopt(s.get(), SOL_SOCKET, SO_SNDBUF, &value, sizeof value));
  socklen_t length = sizeof value;
  ASSERT_OK(getsockopt(s.get(), SOL_SOCKET, SO_SNDBUF, &value, &length));
  EXPECT_EQ(value, 40'000);
  EXPECT_FAIL(setsockopt(s.get(), SOL_SOCKET, SO_SNDBUF, &value, 1), EINVAL);
  EXPECT_FAIL(getsockopt(s.get(), SOL_SOCKET, 9999, &value, &length), ENOPROTOOPT);
}
TEST_F(UnixSocket, AcceptconnAndError) {
  Listen(Address::Path(dir_.Join("s")));
  int value = -1;
  socklen_t length = sizeof value;
  ASSERT_OK(getsockopt(listener_.get(), SOL_SOCKET, SO_ACCEPTCONN, &value, &length));
  EXPECT_EQ(value, 1);
  ASSERT_OK(getsockopt(listener_.get(), SOL_SOCKET, SO_ERROR, &value, &length));
  EXPECT_EQ(value, 0);
}
TEST_F(UnixSocket, ReadWriteOnSocket) {
  Pair(SOCK_STREAM);
  ASSERT_EQ(write(a_.get(), "abc", 3), 3);
  char b[8];
  EXPECT_EQ(read(b_.get(), b, sizeof b), 3);
  EXPECT_FAIL(lseek(a_.get(), 0, SEEK_SET), ESPIPE);
  EXPECT_FAIL(pread(a_.get(), b, 1, 0), ESPIPE);
}
TEST_F(UnixSocket, RenamedSocketStillConnects) {
  Listen(Address::Path(dir_.Join("s")));
  ASSERT_OK(rename(dir_.Join("s").c_str(), dir_.Join("t").c_str()));
  Address moved = Address::Path(dir_.Join("t"));
  const ScopedFd client = Socket(SOCK_STREAM);
  EXPECT_OK(connect(client.get(), moved.get(), moved.length));
}
TEST_F(UnixSocket, BlockedAcceptIsInterrupted) {
  Listen(Address::Path(dir_.Join("s")));
  const pid_t child = Spawn([&] {
    const ScopedAction action(SIGUSR1, [](int) {});
    EXPECT_FAIL(accept(listener_.get(), nullptr, nullptr), EINTR);
  });
  ASSERT_TRUE(Sleeps(child));
  usleep(10'000);
  ASSERT_OK(kill(child, SIGUSR1));
  EXPECT_EQ(WaitStatus(child), 0);
}
TEST_F(UnixSocket, LargeStreamTransfer) {
  Pair(SOCK_STREAM);
  constexpr size_t kTotal = 4 << 20;
  std::thread sender([&] {
    const std::string chunk(50'000, 'q');
    for (size_t sent = 0; sent < kTotal;) {
      const ssize_t n = send(a_.get(), chunk.data(), std::min(chunk.size(), kTotal - sent), 0);
      if (n <= 0) break;
      sent += n;
    }
    shutdown(a_.get(), SHUT_WR);
  });
  size_t got = 0;
  char b[65536];
  for (ssize_t n; (n = recv(b_.get(), b, sizeof b, 0)) > 0;) got += n;
  sender.join();
  EXPECT_EQ(got, kTotal);
}

}  // namespace
}  // namespace moat::guest
