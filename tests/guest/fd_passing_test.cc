// SCM_RIGHTS and SCM_CREDENTIALS over AF_UNIX sockets.
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/guest/support/child.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

struct Message {
  ssize_t result = -1;
  int flags = 0;
  std::string data;
  std::vector<ScopedFd> fds;
  bool has_cred = false;
  ucred cred = {};
};

class FdPassing : public testing::TestWithParam<int> {
 protected:
  void SetUp() override {
    int s[2];
    ASSERT_OK(socketpair(AF_UNIX, GetParam() | SOCK_NONBLOCK, 0, s));
    a_.Reset(s[0]);
    b_.Reset(s[1]);
    file_.Reset(open(dir_.File("f", "content").c_str(), O_RDWR));
  }
  static ssize_t Send(int sock, const std::string& data, const std::vector<int>& fds) {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 300)] = {};
    iovec iov = {const_cast<char*>(data.data()), data.size()};
    msghdr m = {};
    m.msg_iov = &iov;
    m.msg_iovlen = 1;
    if (!fds.empty()) {
      m.msg_control = control;
      m.msg_controllen = CMSG_SPACE(sizeof(int) * fds.size());
      cmsghdr* c = CMSG_FIRSTHDR(&m);
      c->cmsg_level = SOL_SOCKET;
      c->cmsg_type = SCM_RIGHTS;
      c->cmsg_len = CMSG_LEN(sizeof(int) * fds.size());
      memcpy(CMSG_DATA(c), fds.data(), sizeof(int) * fds.size());
    }
    return sendmsg(sock, &m, 0);
  }
  static ssize_t SendCred(int sock, ucred cred) {
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof cred)] = {};
    char byte = 'c';
    iovec iov = {&byte, 1};
    msghdr m = {};
    m.msg_iov = &iov;
    m.msg_iovlen = 1;
    m.msg_control = control;
    m.msg_controllen = sizeof control;
    cmsghdr* c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_CREDENTIALS;
    c->cmsg_len = CMSG_LEN(sizeof cred);
    memcpy(CMSG_DATA(c), &cred, sizeof cred);
    return sendmsg(sock, &m, 0);
  }
  static Message Receive(int sock, int flags = 0, size_t control_size = 2048, size_t size = 1024) {
    alignas(cmsghdr) char control[2048];
    std::string buffer(size, '\0');
    iovec iov = {buffer.data(), size};
    msghdr m = {};
    m.msg_iov = &iov;
    m.msg_iovlen = 1;
    m.msg_control = control;
    m.msg_controllen = control_size;
    Message message;
    message.result = recvmsg(sock, &m, flags);
    if (message.result < 0) return message;
    message.flags = m.msg_flags;
    message.data = buffer.substr(0, message.result);
    for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
      if (c->cmsg_level != SOL_SOCKET) continue;
      if (c->cmsg_type == SCM_RIGHTS) {
        for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); ++i) {
          int fd;
          memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
          message.fds.emplace_back(fd);
        }
      } else if (c->cmsg_type == SCM_CREDENTIALS) {
        message.has_cred = true;
        memcpy(&message.cred, CMSG_DATA(c), sizeof message.cred);
      }
    }
    return message;
  }
  TempDir dir_;
  ScopedFd a_, b_, file_;
};

TEST_P(FdPassing, OneDescriptor) {
  ASSERT_EQ(Send(a_.get(), "x", {file_.get()}), 1);
  const Message m = Receive(b_.get());
  ASSERT_EQ(m.fds.size(), 1u);
  struct stat sent, got;
  ASSERT_OK(fstat(file_.get(), &sent));
  ASSERT_OK(fstat(m.fds[0].get(), &got));
  EXPECT_EQ(sent.st_ino, got.st_ino);
  EXPECT_NE(m.fds[0].get(), file_.get());
}
TEST_P(FdPassing, SharesTheOpenFile) {
  ASSERT_EQ(Send(a_.get(), "x", {file_.get()}), 1);
  const Message m = Receive(b_.get());
  ASSERT_EQ(m.fds.size(), 1u);
  ASSERT_EQ(lseek(file_.get(), 5, SEEK_SET), 5);
  EXPECT_EQ(lseek(m.fds[0].get(), 0, SEEK_CUR), 5);
}
TEST_P(FdPassing, SurvivesCloseOfTheSender) {
  ASSERT_EQ(Send(a_.get(), "x", {file_.get()}), 1);
  file_.Reset();
  const Message m = Receive(b_.get());
  ASSERT_EQ(m.fds.size(), 1u);
  EXPECT_EQ(ReadAll(m.fds[0].get()), "content");
}
TEST_P(FdPassing, SeveralInOrder) {
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]), w(p[1]);
  ASSERT_EQ(Send(a_.get(), "x", {r.get(), w.get()}), 1);
  const Message m = Receive(b_.get());
  ASSERT_EQ(m.fds.size(), 2u);
  ASSERT_EQ(write(m.fds[1].get(), "!", 1), 1);
  char c;
  EXPECT_EQ(read(r.get(), &c, 1), 1);
}
TEST_P(FdPassing, CmsgCloexec) {
  ASSERT_EQ(Send(a_.get(), "x", {file_.get()}), 1);
  ASSERT_EQ(Send(a_.get(), "y", {file_.get()}), 1);
  const Message m = Receive(b_.get(), MSG_CMSG_CLOEXEC, 2048, 1);
  ASSERT_EQ(m.fds.size(), 1u);
  EXPECT_EQ(fcntl(m.fds[0].get(), F_GETFD), FD_CLOEXEC);
  const Message n = Receive(b_.get());
  ASSERT_EQ(n.fds.size(), 1u);
  EXPECT_EQ(fcntl(n.fds[0].get(), F_GETFD), 0);
}
TEST_P(FdPassing, BadDescriptor) { EXPECT_FAIL(Send(a_.get(), "x", {file_.get(), 9999}), EBADF); }
TEST_P(FdPassing, LimitOf253) {
  const std::vector<int> most(253, file_.get()), more(254, file_.get());
  EXPECT_FAIL(Send(a_.get(), "x", more), EINVAL);
  ASSERT_EQ(Send(a_.get(), "x", most), 1);
  EXPECT_EQ(Receive(b_.get()).fds.size(), 253u);
}
TEST_P(FdPassing, TooSmallControlBufferTruncates) {
  ASSERT_EQ(Send(a_.get(), "x", {file_.get(), file_.get(), file_.get(), file_.get()}), 1);
  const Message m = Receive(b_.get(), 0, CMSG_LEN(sizeof(int)));
  EXPECT_EQ(m.fds.size(), 1u);
  EXPECT_TRUE(m.flags & MSG_CTRUNC);
}
TEST_P(FdPassing, NoControlBuffer) {
  ASSERT_EQ(Send(a_.get(), "x", {file_.get()}), 1);
  const Message m = Receive(b_.get(), 0, 0);
  EXPECT_EQ(m.data, "x");
  EXPECT_TRUE(m.flags & MSG_CTRUNC);
}
TEST_P(FdPassing, PlainReadDropsThem) {
  int p[2];
  ASSERT_OK(pipe2(p, O_NONBLOCK));
  const ScopedFd r(p[0]);
  ScopedFd w(p[1]);
  ASSERT_EQ(Send(a_.get(), "x", {w.get()}), 1);
  w.Reset();
  char c;
  EXPECT_FAIL(read(r.get(), &c, 1), EAGAIN);  // the message in flight holds the writer
  ASSERT_EQ(read(b_.get(), &c, 1), 1);
  EXPECT_EQ(read(r.get(), &c, 1), 0);
}
TEST_P(FdPassing, DroppedWithTheReceiver) {
  int p[2];
  ASSERT_OK(pipe2(p, O_NONBLOCK));
  const ScopedFd r(p[0]);
  ScopedFd w(p[1]);
  ASSERT_EQ(Send(a_.get(), "x", {w.get()}), 1);
  w.Reset();
  b_.Reset();
  a_.Reset();
  char c;
  EXPECT_TRUE(Eventually([&] { return read(r.get(), &c, 1) == 0; }));
}
TEST_P(FdPassing, PeekDuplicates) {
  ASSERT_EQ(Send(a_.get(), "x", {file_.get()}), 1);
  EXPECT_EQ(Receive(b_.get(), MSG_PEEK).fds.size(), 1u);
  EXPECT_EQ(Receive(b_.get()).fds.size(), 1u);
}
TEST_P(FdPassing, StreamStopsAtMessagesWithDescriptors) {
  ASSERT_EQ(Send(a_.get(), "ab", {file_.get()}), 2);
  ASSERT_EQ(Send(a_.get(), "cd", {file_.get()}), 2);
  const Message m = Receive(b_.get());
  EXPECT_EQ(m.data, "ab");
  EXPECT_EQ(m.fds.size(), 1u);
}
TEST_P(FdPassing, SocketInsideItself) {  // a cycle that only a collector can free
  ASSERT_EQ(Send(a_.get(), "x", {a_.get(), b_.get()}), 1);
  a_.Reset();
  b_.Reset();
}
TEST_P(FdPassing, AcrossFork) {
  EXPECT_TRUE(PassesInChild([&] {
    const ScopedFd made(open(dir_.File("child", "from child").c_str(), O_RDONLY));
    EXPECT_EQ(Send(a_.get(), "x", {made.get()}), 1);
  }));
  const Message m = Receive(b_.get());
  ASSERT_EQ(m.fds.size(), 1u);
  EXPECT_EQ(ReadAll(m.fds[0].get()), "from child");
}
TEST_P(FdPassing, PasscredAddsTheSender) {
  const int on = 1;
  ASSERT_OK(setsockopt(b_.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
  ASSERT_EQ(Send(a_.get(), "x", {}), 1);
  const Message m = Receive(b_.get());
  ASSERT_TRUE(m.has_cred);
  EXPECT_EQ(m.cred.pid, getpid());
  EXPECT_EQ(m.cred.uid, getuid());
}
TEST_P(FdPassing, NoCredentialsUnlessAsked) {
  ASSERT_EQ(SendCred(a_.get(), {getpid(), getuid(), getgid()}), 1);
  EXPECT_FALSE(Receive(b_.get()).has_cred);
}
TEST_P(FdPassing, ForgedCredentialsNeedPrivilege) {
  const int on = 1;
  ASSERT_OK(setsockopt(b_.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof on));
  EXPECT_TRUE(PassesAsUser(1000, [&] {
    EXPECT_FAIL(SendCred(a_.get(), {getpid(), 0, 0}), EPERM);
    EXPECT_EQ(SendCred(a_.get(), {getpid(), 1000, 1000}), 1);
  }));
  EXPECT_EQ(Receive(b_.get()).cred.uid, 1000u);
  ASSERT_EQ(SendCred(a_.get(), {getpid(), 5, 6}), 1);  // root may
  EXPECT_EQ(Receive(b_.get()).cred.uid, 5u);
}
TEST_P(FdPassing, MalformedControl) {
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  char byte = 'x';
  iovec iov = {&byte, 1};
  msghdr m = {};
  m.msg_iov = &iov;
  m.msg_iovlen = 1;
  m.msg_control = control;
  m.msg_controllen = sizeof control;
  cmsghdr* c = CMSG_FIRSTHDR(&m);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = sizeof control + 100;
  EXPECT_FAIL(sendmsg(a_.get(), &m, 0), EINVAL);
  c->cmsg_len = 3;
  EXPECT_FAIL(sendmsg(a_.get(), &m, 0), EINVAL);
  c->cmsg_len = CMSG_LEN(sizeof(int));
  c->cmsg_type = 77;
  EXPECT_FAIL(sendmsg(a_.get(), &m, 0), EINVAL);
}
INSTANTIATE_TEST_SUITE_P(, FdPassing, testing::Values(SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET), [](const auto& info) {
  return info.param == SOCK_STREAM ? "Stream" : info.param == SOCK_DGRAM ? "Dgram" : "Seqpacket";
});

}  // namespace
}  // namespace moat::guest
