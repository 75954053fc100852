// splice(2), tee(2), vmsplice(2), sendfile(2), copy_file_range(2).
#include <fcntl.h>
#include <signal.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

class Splice : public testing::Test {
 protected:
  void SetUp() override {
    in_.Reset(open(dir_.File("in", "0123456789").c_str(), O_RDWR));
    out_.Reset(open(dir_.File("out").c_str(), O_RDWR));
    int p[2];
    ASSERT_OK(pipe2(p, O_NONBLOCK));
    r_.Reset(p[0]);
    w_.Reset(p[1]);
  }
  std::string FromPipe(int fd = -1) {
    char b[4096];
    const ssize_t n = read(fd == -1 ? r_.get() : fd, b, sizeof b);
    return std::string(b, n > 0 ? n : 0);
  }
  std::string Out() const { return ReadFile(dir_.Join("out")); }
  TempDir dir_;
  ScopedFd in_, out_, r_, w_;
};

TEST_F(Splice, FileToPipe) {
  EXPECT_EQ(splice(in_.get(), nullptr, w_.get(), nullptr, 4, 0), 4);
  EXPECT_EQ(FromPipe(), "0123");
  EXPECT_EQ(lseek(in_.get(), 0, SEEK_CUR), 4);
}
TEST_F(Splice, FileToPipeWithOffset) {
  loff_t offset = 7;
  EXPECT_EQ(splice(in_.get(), &offset, w_.get(), nullptr, 100, 0), 3);
  EXPECT_EQ(offset, 10);
  EXPECT_EQ(FromPipe(), "789");
  EXPECT_EQ(lseek(in_.get(), 0, SEEK_CUR), 0);
}
TEST_F(Splice, PipeToFile) {
  ASSERT_EQ(write(w_.get(), "hello", 5), 5);
  EXPECT_EQ(splice(r_.get(), nullptr, out_.get(), nullptr, 100, 0), 5);
  EXPECT_EQ(Out(), "hello");
}
TEST_F(Splice, PipeToFileWithOffset) {
  ASSERT_EQ(write(w_.get(), "XY", 2), 2);
  loff_t offset = 3;
  EXPECT_EQ(splice(r_.get(), nullptr, in_.get(), &offset, 2, 0), 2);
  EXPECT_EQ(ReadFile(dir_.Join("in")), "012XY56789");
}
TEST_F(Splice, PipeToPipe) {
  int p[2];
  ASSERT_OK(pipe2(p, O_NONBLOCK));
  const ScopedFd r(p[0]), w(p[1]);
  ASSERT_EQ(write(w_.get(), "abcdef", 6), 6);
  EXPECT_EQ(splice(r_.get(), nullptr, w.get(), nullptr, 4, 0), 4);
  EXPECT_EQ(FromPipe(r.get()), "abcd");
  EXPECT_EQ(FromPipe(), "ef");
}
TEST_F(Splice, SocketToPipeAndBack) {
  int s[2];
  ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s));
  const ScopedFd a(s[0]), b(s[1]);
  ASSERT_EQ(write(a.get(), "net", 3), 3);
  EXPECT_EQ(splice(b.get(), nullptr, w_.get(), nullptr, 10, 0), 3);
  EXPECT_EQ(splice(r_.get(), nullptr, b.get(), nullptr, 10, 0), 3);
  EXPECT_EQ(FromPipe(a.get()), "net");
}
TEST_F(Splice, AtEndOfFileIsZero) {
  ASSERT_EQ(lseek(in_.get(), 0, SEEK_END), 10);
  EXPECT_EQ(splice(in_.get(), nullptr, w_.get(), nullptr, 4, 0), 0);
}
TEST_F(Splice, EmptyPipe) {
  EXPECT_FAIL(splice(r_.get(), nullptr, out_.get(), nullptr, 4, SPLICE_F_NONBLOCK), EAGAIN);
  w_.Reset();
  EXPECT_EQ(splice(r_.get(), nullptr, out_.get(), nullptr, 4, 0), 0);
}
TEST_F(Splice, ZeroLength) { EXPECT_EQ(splice(in_.get(), nullptr, w_.get(), nullptr, 0, 0), 0); }
TEST_F(Splice, Errors) {
  loff_t offset = 0;
  EXPECT_FAIL(splice(in_.get(), nullptr, out_.get(), nullptr, 4, 0), EINVAL);
  EXPECT_FAIL(splice(r_.get(), &offset, out_.get(), nullptr, 4, 0), ESPIPE);
  EXPECT_FAIL(splice(in_.get(), nullptr, w_.get(), nullptr, 4, 0x100), EINVAL);
  EXPECT_FAIL(splice(-1, nullptr, w_.get(), nullptr, 4, 0), EBADF);
  EXPECT_FAIL(splice(in_.get(), nullptr, r_.get(), nullptr, 4, 0), EBADF);
  EXPECT_FAIL(splice(r_.get(), nullptr, w_.get(), nullptr, 4, 0), EINVAL);  // both ends of one pipe
  const ScopedFd append(open(dir_.Join("out").c_str(), O_WRONLY | O_APPEND));
  ASSERT_EQ(write(w_.get(), "x", 1), 1);
  EXPECT_FAIL(splice(r_.get(), nullptr, append.get(), nullptr, 1, 0), EINVAL);
}
TEST_F(Splice, ToClosedReaderIsEpipe) {
  r_.Reset();
  EXPECT_TRUE(PassesInChild([&] {
    signal(SIGPIPE, SIG_IGN);
    EXPECT_FAIL(splice(in_.get(), nullptr, w_.get(), nullptr, 4, 0), EPIPE);
  }));
}

TEST_F(Splice, TeeDuplicatesWithoutConsuming) {
  int p[2];
  ASSERT_OK(pipe2(p, O_NONBLOCK));
  const ScopedFd r(p[0]), w(p[1]);
  ASSERT_EQ(write(w_.get(), "abcdef", 6), 6);
  EXPECT_EQ(tee(r_.get(), w.get(), 4, 0), 4);
  EXPECT_EQ(FromPipe(r.get()), "abcd");
  EXPECT_EQ(FromPipe(), "abcdef");
}
TEST_F(Splice, TeeErrors) {
  EXPECT_FAIL(tee(r_.get(), w_.get(), 4, 0), EINVAL);
  EXPECT_FAIL(tee(in_.get(), w_.get(), 4, 0), EINVAL);
  EXPECT_FAIL(tee(-1, w_.get(), 4, 0), EBADF);
  int p[2];
  ASSERT_OK(pipe2(p, O_NONBLOCK));
  const ScopedFd r(p[0]), w(p[1]);
  EXPECT_FAIL(tee(r_.get(), w.get(), 4, SPLICE_F_NONBLOCK), EAGAIN);
}

TEST_F(Splice, VmspliceIntoPipe) {
  char a[] = "user ", b[] = "memory";
  const iovec iov[] = {{a, 5}, {b, 6}};
  EXPECT_EQ(vmsplice(w_.get(), iov, 2, 0), 11);
  EXPECT_EQ(FromPipe(), "user memory");
}
TEST_F(Splice, VmspliceOfMoreThanFitsTakesWhatFits) {
  std::string data(256 << 10, 'v');
  const iovec iov = {data.data(), data.size()};
  const ssize_t first = vmsplice(w_.get(), &iov, 1, 0);  // would block, if it waited for all
  EXPECT_GT(first, 0);
  EXPECT_LT(first, static_cast<ssize_t>(data.size()));
  EXPECT_FAIL(vmsplice(w_.get(), &iov, 1, SPLICE_F_NONBLOCK), EAGAIN);
}
TEST_F(Splice, VmspliceOutOfPipe) {
  ASSERT_EQ(write(w_.get(), "data", 4), 4);
  char b[8] = {};
  const iovec iov = {b, sizeof b};
  EXPECT_EQ(vmsplice(r_.get(), &iov, 1, 0), 4);
  EXPECT_STREQ(b, "data");
}
TEST_F(Splice, VmspliceErrors) {
  char b;
  const iovec iov = {&b, 1};
  EXPECT_FAIL(vmsplice(in_.get(), &iov, 1, 0), EBADF);
  EXPECT_FAIL(vmsplice(w_.get(), &iov, 1, 0x100), EINVAL);
  EXPECT_FAIL(vmsplice(w_.get(), reinterpret_cast<iovec*>(BadPointer()), 1, 0), EFAULT);
}

TEST_F(Splice, SendfileToFile) {
  EXPECT_EQ(sendfile(out_.get(), in_.get(), nullptr, 6), 6);
  EXPECT_EQ(Out(), "012345");
  EXPECT_EQ(lseek(in_.get(), 0, SEEK_CUR), 6);
  EXPECT_EQ(lseek(out_.get(), 0, SEEK_CUR), 6);
}
TEST_F(Splice, SendfileWithOffset) {
  off_t offset = 5;
  EXPECT_EQ(sendfile(out_.get(), in_.get(), &offset, 100), 5);
  EXPECT_EQ(offset, 10);
  EXPECT_EQ(lseek(in_.get(), 0, SEEK_CUR), 0);
  EXPECT_EQ(Out(), "56789");
}
TEST_F(Splice, SendfileToPipeAndSocket) {
  EXPECT_EQ(sendfile(w_.get(), in_.get(), nullptr, 3), 3);
  EXPECT_EQ(FromPipe(), "012");
  int s[2];
  ASSERT_OK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, s));
  const ScopedFd a(s[0]), b(s[1]);
  EXPECT_EQ(sendfile(a.get(), in_.get(), nullptr, 100), 7);
  EXPECT_EQ(FromPipe(b.get()), "3456789");
}
TEST_F(Splice, SendfileErrors) {
  off_t negative = -1;
  EXPECT_FAIL(sendfile(-1, in_.get(), nullptr, 1), EBADF);
  EXPECT_FAIL(sendfile(out_.get(), -1, nullptr, 1), EBADF);
  EXPECT_FAIL(sendfile(out_.get(), in_.get(), &negative, 1), EINVAL);
  EXPECT_FAIL(sendfile(out_.get(), in_.get(), reinterpret_cast<off_t*>(BadPointer()), 1), EFAULT);
  const ScopedFd append(open(dir_.Join("out").c_str(), O_WRONLY | O_APPEND));
  EXPECT_FAIL(sendfile(append.get(), in_.get(), nullptr, 1), EINVAL);
}
TEST_F(Splice, SendfileMegabyte) {
  std::string data(1 << 20, '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7 >> 4);
  ASSERT_EQ(pwrite(in_.get(), data.data(), data.size(), 0), static_cast<ssize_t>(data.size()));
  size_t sent = 0;
  for (ssize_t n; (n = sendfile(out_.get(), in_.get(), nullptr, 1 << 20)) > 0;) sent += n;
  EXPECT_EQ(sent, data.size());
  EXPECT_TRUE(Out() == data);
}

TEST_F(Splice, CopyFileRange) {
  EXPECT_EQ(copy_file_range(in_.get(), nullptr, out_.get(), nullptr, 4, 0), 4);
  EXPECT_EQ(Out(), "0123");
  EXPECT_EQ(lseek(in_.get(), 0, SEEK_CUR), 4);
}
TEST_F(Splice, CopyFileRangeWithOffsets) {
  loff_t from = 2, to = 5;
  EXPECT_EQ(copy_file_range(in_.get(), &from, out_.get(), &to, 3, 0), 3);
  EXPECT_EQ(from, 5);
  EXPECT_EQ(to, 8);
  EXPECT_EQ(Out(), std::string("\0\0\0\0\000234", 8));
}
TEST_F(Splice, CopyFileRangeWithinOneFile) {
  loff_t from = 0, to = 5;
  EXPECT_EQ(copy_file_range(in_.get(), &from, in_.get(), &to, 5, 0), 5);
  EXPECT_EQ(ReadFile(dir_.Join("in")), "0123401234");
  from = 0, to = 2;
  EXPECT_FAIL(copy_file_range(in_.get(), &from, in_.get(), &to, 5, 0), EINVAL);
}
TEST_F(Splice, CopyFileRangePastEnd) {
  loff_t from = 8;
  EXPECT_EQ(copy_file_range(in_.get(), &from, out_.get(), nullptr, 100, 0), 2);
  EXPECT_EQ(copy_file_range(in_.get(), &from, out_.get(), nullptr, 100, 0), 0);
}
TEST_F(Splice, CopyFileRangeErrors) {
  EXPECT_FAIL(copy_file_range(in_.get(), nullptr, out_.get(), nullptr, 1, 1), EINVAL);
  EXPECT_FAIL(copy_file_range(r_.get(), nullptr, out_.get(), nullptr, 1, 0), EINVAL);
  const ScopedFd read_only(open(dir_.Join("out").c_str(), O_RDONLY));
  EXPECT_FAIL(copy_file_range(in_.get(), nullptr, read_only.get(), nullptr, 1, 0), EBADF);
  const ScopedFd append(open(dir_.Join("out").c_str(), O_WRONLY | O_APPEND));
  EXPECT_FAIL(copy_file_range(in_.get(), nullptr, append.get(), nullptr, 1, 0), EBADF);
  const ScopedFd at = dir_.Open();
  EXPECT_FAIL(copy_file_range(at.get(), nullptr, out_.get(), nullptr, 1, 0), EISDIR);
  EXPECT_FAIL(copy_file_range(in_.get(), nullptr, at.get(), nullptr, 1, 0), EISDIR);
  EXPECT_FAIL(copy_file_range(in_.get(), nullptr, r_.get(), nullptr, 1, 0), EINVAL);
  off64_t end = INT64_MAX;
  EXPECT_FAIL(copy_file_range(in_.get(), nullptr, out_.get(), &end, 4, 0), EFBIG);
  EXPECT_EQ(copy_file_range(in_.get(), &end, out_.get(), nullptr, 4, 0), 0);
}

}  // namespace
}  // namespace moat::guest
