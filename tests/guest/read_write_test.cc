// read(2), write(2), pread(2), pwrite(2), readv(2), writev(2), preadv2(2), pwritev2(2).
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

class ReadWrite : public testing::Test {
 protected:
  void SetUp() override {
    fd_.Reset(open(dir_.File("f", "0123456789").c_str(), O_RDWR));
    ASSERT_OK(fd_.get());
  }
  int fd() const { return fd_.get(); }
  std::string Content() const { return ReadFile(dir_.Join("f")); }
  TempDir dir_;
  ScopedFd fd_;
};

TEST_F(ReadWrite, ReadMovesTheOffset) {
  char b[4];
  EXPECT_EQ(read(fd(), b, 4), 4);
  EXPECT_EQ(std::string(b, 4), "0123");
  EXPECT_EQ(read(fd(), b, 4), 4);
  EXPECT_EQ(std::string(b, 4), "4567");
  EXPECT_EQ(read(fd(), b, 4), 2);
  EXPECT_EQ(read(fd(), b, 4), 0);
}
TEST_F(ReadWrite, ReadZeroBytes) { EXPECT_EQ(read(fd(), nullptr, 0), 0); }
TEST_F(ReadWrite, BadDescriptor) {
  char b[4];
  EXPECT_FAIL(read(-1, b, 4), EBADF);
  EXPECT_FAIL(write(4000, b, 4), EBADF);
  EXPECT_FAIL(pread(-1, b, 4, 0), EBADF);
}
TEST_F(ReadWrite, BadBuffer) {
  EXPECT_FAIL(read(fd(), BadPointer(), 4), EFAULT);
  EXPECT_FAIL(write(fd(), BadPointer(), 4), EFAULT);
  EXPECT_EQ(lseek(fd(), 0, SEEK_CUR), 0);
}
TEST_F(ReadWrite, ReadAtEndWithBadBufferIsZero) {
  ASSERT_EQ(lseek(fd(), 0, SEEK_END), 10);
  EXPECT_EQ(read(fd(), BadPointer(), 4), 0);
}
TEST_F(ReadWrite, ReadIntoPartlyMappedBufferIsShort) {
  Mapping two(2 * kPage);
  ASSERT_OK(mprotect(two.page(1), kPage, PROT_NONE));
  EXPECT_EQ(read(fd(), two.page(1) - 4, 10), 4);
  EXPECT_EQ(std::string(two.page(1) - 4, 4), "0123");
  EXPECT_EQ(lseek(fd(), 0, SEEK_CUR), 4);
}
TEST_F(ReadWrite, WriteFromPartlyMappedBufferIsShort) {
  Mapping two(2 * kPage);
  memset(two.data(), 'x', kPage);
  ASSERT_OK(mprotect(two.page(1), kPage, PROT_NONE));
  EXPECT_EQ(write(fd(), two.page(1) - 3, 8), 3);
  EXPECT_EQ(Content(), "xxx3456789");
}
TEST_F(ReadWrite, WriteExtends) {
  ASSERT_EQ(lseek(fd(), 8, SEEK_SET), 8);
  EXPECT_EQ(write(fd(), "abcd", 4), 4);
  EXPECT_EQ(Content(), "01234567abcd");
}
TEST_F(ReadWrite, WritePastEndLeavesZeros) {
  ASSERT_EQ(lseek(fd(), 12, SEEK_SET), 12);
  EXPECT_EQ(write(fd(), "x", 1), 1);
  EXPECT_EQ(Content(), std::string("0123456789\0\0x", 13));
}
TEST_F(ReadWrite, WriteZeroBytesKeepsSize) {
  ASSERT_EQ(lseek(fd(), 100, SEEK_SET), 100);
  EXPECT_EQ(write(fd(), "", 0), 0);
  EXPECT_EQ(Content().size(), 10u);
}
TEST_F(ReadWrite, PreadKeepsTheOffset) {
  char b[3];
  EXPECT_EQ(pread(fd(), b, 3, 5), 3);
  EXPECT_EQ(std::string(b, 3), "567");
  EXPECT_EQ(lseek(fd(), 0, SEEK_CUR), 0);
}
TEST_F(ReadWrite, PreadPastEnd) {
  char b[3];
  EXPECT_EQ(pread(fd(), b, 3, 100), 0);
  EXPECT_EQ(pread(fd(), b, 3, 9), 1);
}
TEST_F(ReadWrite, PreadNegativeOffset) {
  char b[3];
  EXPECT_FAIL(pread(fd(), b, 3, -1), EINVAL);
  EXPECT_FAIL(pwrite(fd(), b, 3, -1), EINVAL);
}
TEST_F(ReadWrite, PwriteKeepsTheOffset) {
  EXPECT_EQ(pwrite(fd(), "ab", 2, 3), 2);
  EXPECT_EQ(Content(), "012ab56789");
  EXPECT_EQ(lseek(fd(), 0, SEEK_CUR), 0);
}
TEST_F(ReadWrite, PwriteOnAppendFileAppends) {
  const ScopedFd append(open(dir_.Join("f").c_str(), O_WRONLY | O_APPEND));
  EXPECT_EQ(pwrite(append.get(), "Z", 1, 0), 1);
  EXPECT_EQ(Content(), "0123456789Z");
}
TEST_F(ReadWrite, PreadOnPipe) {
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]), w(p[1]);
  char b;
  EXPECT_FAIL(pread(r.get(), &b, 1, 0), ESPIPE);
  EXPECT_FAIL(pwrite(w.get(), &b, 1, 0), ESPIPE);
}
TEST_F(ReadWrite, OffsetOnTheWrongEndOfAPipe) {
  // That a pipe has no offsets is said before that this end cannot be written (or read).
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]), w(p[1]);
  char b[4] = {};
  iovec v = {b, 4};
  EXPECT_FAIL(pwrite(p[0], b, 4, 0), ESPIPE);
  EXPECT_FAIL(pread(p[1], b, 4, 0), ESPIPE);
  EXPECT_FAIL(pwritev(p[0], &v, 1, 0), ESPIPE);
  EXPECT_FAIL(preadv(p[1], &v, 1, 0), ESPIPE);
  EXPECT_FAIL(pwritev2(p[0], &v, 1, 0, 0), ESPIPE);
  EXPECT_FAIL(preadv2(p[1], &v, 1, 0, 0), ESPIPE);
  EXPECT_FAIL(pwritev2(p[0], &v, 1, -1, 0), EBADF);
  const ScopedFd read_only(open(dir_.Join("f").c_str(), O_RDONLY));
  EXPECT_FAIL(pwrite(read_only.get(), b, 4, 0), EBADF);
}
TEST_F(ReadWrite, ReadvFillsBuffersInOrder) {
  char a[3], b[4];
  iovec iov[] = {{a, 3}, {nullptr, 0}, {b, 4}};
  EXPECT_EQ(readv(fd(), iov, 3), 7);
  EXPECT_EQ(std::string(a, 3) + std::string(b, 4), "0123456");
}
TEST_F(ReadWrite, WritevGathers) {
  iovec iov[] = {{const_cast<char*>("ab"), 2}, {const_cast<char*>("cde"), 3}};
  EXPECT_EQ(writev(fd(), iov, 2), 5);
  EXPECT_EQ(Content(), "abcde56789");
}
TEST_F(ReadWrite, VectorOfNothing) {
  EXPECT_EQ(readv(fd(), nullptr, 0), 0);
  EXPECT_EQ(writev(fd(), nullptr, 0), 0);
}
TEST_F(ReadWrite, VectorCountLimits) {
  std::vector<iovec> iov(IOV_MAX + 1, iovec{nullptr, 0});
  EXPECT_EQ(readv(fd(), iov.data(), IOV_MAX), 0);
  EXPECT_FAIL(readv(fd(), iov.data(), IOV_MAX + 1), EINVAL);
  EXPECT_FAIL(writev(fd(), iov.data(), -1), EINVAL);
}
TEST_F(ReadWrite, VectorLengthOverflow) {
  char b;
  iovec iov[] = {{&b, SIZE_MAX / 2 + 1}, {&b, 1}};
  EXPECT_FAIL(readv(fd(), iov, 2), EINVAL);
}
TEST_F(ReadWrite, BadVectorPointer) { EXPECT_FAIL(readv(fd(), reinterpret_cast<iovec*>(BadPointer()), 1), EFAULT); }
TEST_F(ReadWrite, SecondBadBufferMakesReadvShort) {
  char a[4];
  iovec iov[] = {{a, 4}, {BadPointer(), 4}};
  EXPECT_EQ(readv(fd(), iov, 2), 4);
}
TEST_F(ReadWrite, PreadvAndPwritev) {
  char a[2], b[2];
  iovec in[] = {{a, 2}, {b, 2}};
  EXPECT_EQ(preadv(fd(), in, 2, 4), 4);
  EXPECT_EQ(std::string(a, 2) + std::string(b, 2), "4567");
  iovec out[] = {{const_cast<char*>("XY"), 2}};
  EXPECT_EQ(pwritev(fd(), out, 1, 0), 2);
  EXPECT_EQ(Content(), "XY23456789");
  EXPECT_FAIL(preadv(fd(), in, 2, -2), EINVAL);
}
TEST_F(ReadWrite, Preadv2OffsetMinusOneUsesTheFileOffset) {
  char a[2];
  iovec iov = {a, 2};
  EXPECT_EQ(preadv2(fd(), &iov, 1, -1, 0), 2);
  EXPECT_EQ(lseek(fd(), 0, SEEK_CUR), 2);
}
TEST_F(ReadWrite, Preadv2UnknownFlag) {
  char a[2];
  iovec iov = {a, 2};
  EXPECT_FAIL(preadv2(fd(), &iov, 1, 0, 0x4000000), EOPNOTSUPP);
}
TEST_F(ReadWrite, Pwritev2Append) {
  iovec iov = {const_cast<char*>("end"), 3};
  EXPECT_EQ(pwritev2(fd(), &iov, 1, 0, RWF_APPEND), 3);
  EXPECT_EQ(Content(), "0123456789end");
}
TEST_F(ReadWrite, Pwritev2Dsync) {
  iovec iov = {const_cast<char*>("D"), 1};
  EXPECT_EQ(pwritev2(fd(), &iov, 1, 1, RWF_DSYNC), 1);
  EXPECT_EQ(Content(), "0D23456789");
}
TEST_F(ReadWrite, HugeCountIsCappedNotRefused) {
  Mapping page(kPage);
  EXPECT_EQ(read(fd(), page.data(), 10), 10);
  EXPECT_EQ(read(fd(), page.data(), static_cast<size_t>(INT_MAX) + 5), 0);
}
TEST_F(ReadWrite, NegativeCountFails) {
  char b;
  // As a signed length it is negative; Linux answers EFAULT for the range or EINVAL for the length.
  EXPECT_EQ(read(fd(), &b, SIZE_MAX), -1);
  EXPECT_TRUE(errno == EFAULT || errno == EINVAL) << ErrnoName(errno);
}
TEST_F(ReadWrite, SharedOffsetAfterDupAndFork) {
  const ScopedFd copy(dup(fd()));
  char b[2];
  ASSERT_EQ(read(copy.get(), b, 2), 2);
  EXPECT_EQ(lseek(fd(), 0, SEEK_CUR), 2);
  EXPECT_TRUE(PassesInChild([&] {
    char c[3];
    EXPECT_EQ(read(fd(), c, 3), 3);
  }));
  EXPECT_EQ(lseek(fd(), 0, SEEK_CUR), 5);
}
TEST_F(ReadWrite, SeparateOpensHaveSeparateOffsets) {
  const ScopedFd other(open(dir_.Join("f").c_str(), O_RDONLY));
  char b[2];
  ASSERT_EQ(read(other.get(), b, 2), 2);
  EXPECT_EQ(lseek(fd(), 0, SEEK_CUR), 0);
}
TEST_F(ReadWrite, FileSizeLimitSignals) {
  EXPECT_TRUE(PassesInChild([&] {
    const rlimit limit = {12, 12};
    ASSERT_OK(setrlimit(RLIMIT_FSIZE, &limit));
    signal(SIGXFSZ, SIG_IGN);
    EXPECT_EQ(pwrite(fd(), "abcdef", 6, 10), 2);
    EXPECT_FAIL(pwrite(fd(), "x", 1, 12), EFBIG);
  }));
  const int status = StatusOf([&] {
    const rlimit limit = {12, 12};
    ASSERT_OK(setrlimit(RLIMIT_FSIZE, &limit));
    pwrite(fd(), "x", 1, 12);
  });
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGXFSZ);
}
TEST_F(ReadWrite, WriteClearsSetuidBitForUsers) {
  ASSERT_OK(chmod(dir_.path().c_str(), 0755));
  const std::string path = dir_.File("s", "x", 06777);
  EXPECT_TRUE(PassesAsUser(1000, [&] {
    const ScopedFd f(open(path.c_str(), O_WRONLY));
    ASSERT_OK(f.get());
    ASSERT_EQ(write(f.get(), "y", 1), 1);
    struct stat st;
    ASSERT_OK(stat(path.c_str(), &st));
    EXPECT_EQ(st.st_mode & 07777, 0777u);
  }));
}
TEST_F(ReadWrite, MegabyteRoundTrip) {
  std::string data(1 << 20, '\0');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 131 >> 3);
  ASSERT_EQ(pwrite(fd(), data.data(), data.size(), 0), static_cast<ssize_t>(data.size()));
  EXPECT_TRUE(Content() == data);
}
TEST_F(ReadWrite, FsyncFamily) {
  EXPECT_OK(fsync(fd()));
  EXPECT_OK(fdatasync(fd()));
  EXPECT_OK(syncfs(fd()));
  EXPECT_OK(sync_file_range(fd(), 0, 0, SYNC_FILE_RANGE_WRITE));
  EXPECT_FAIL(sync_file_range(fd(), 0, 0, 0x100), EINVAL);
  EXPECT_FAIL(fsync(-1), EBADF);
}
TEST_F(ReadWrite, FsyncOnPipe) {
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]), w(p[1]);
  EXPECT_FAIL(fsync(w.get()), EINVAL);
}
TEST_F(ReadWrite, FadviseAndReadahead) {
  EXPECT_EQ(posix_fadvise(fd(), 0, 0, POSIX_FADV_SEQUENTIAL), 0);
  EXPECT_EQ(posix_fadvise(fd(), 0, 0, 77), EINVAL);
  EXPECT_EQ(posix_fadvise(-1, 0, 0, POSIX_FADV_NORMAL), EBADF);
  EXPECT_FAIL(readahead(-1, 0, 10), EBADF);
}

}  // namespace
}  // namespace moat::guest
