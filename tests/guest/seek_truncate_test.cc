// lseek(2), truncate(2), ftruncate(2), fallocate(2).
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

class SeekTruncate : public testing::Test {
 protected:
  void SetUp() override {
    path_ = dir_.File("f", "0123456789");
    fd_.Reset(open(path_.c_str(), O_RDWR));
    ASSERT_OK(fd_.get());
  }
  int fd() const { return fd_.get(); }
  off_t Size() const {
    struct stat st;
    EXPECT_OK(fstat(fd(), &st));
    return st.st_size;
  }
  blkcnt_t Blocks() const {
    struct stat st;
    EXPECT_OK(fstat(fd(), &st));
    return st.st_blocks;
  }
  TempDir dir_;
  std::string path_;
  ScopedFd fd_;
};

struct SeekCase {
  const char* name;
  off_t offset;
  int whence;
  off_t result;  // negative: an errno
};
class Seek : public SeekTruncate, public testing::WithParamInterface<SeekCase> {};
TEST_P(Seek, FromOffsetFour) {  // the file has ten bytes
  ASSERT_EQ(lseek(fd(), 4, SEEK_SET), 4);
  const SeekCase& c = GetParam();
  if (c.result >= 0) {
    EXPECT_EQ(lseek(fd(), c.offset, c.whence), c.result);
    return;
  }
  EXPECT_FAIL(lseek(fd(), c.offset, c.whence), static_cast<int>(-c.result));
  EXPECT_EQ(lseek(fd(), 0, SEEK_CUR), 4);
}
INSTANTIATE_TEST_SUITE_P(
    , Seek,
    testing::Values(SeekCase{"Set", 7, SEEK_SET, 7}, SeekCase{"SetNegative", -1, SEEK_SET, -EINVAL},
                    SeekCase{"SetPastEnd", 1000, SEEK_SET, 1000}, SeekCase{"Cur", 3, SEEK_CUR, 7},
                    SeekCase{"CurBack", -4, SEEK_CUR, 0}, SeekCase{"CurTooFarBack", -5, SEEK_CUR, -EINVAL},
                    SeekCase{"End", 0, SEEK_END, 10}, SeekCase{"EndBack", -10, SEEK_END, 0},
                    SeekCase{"EndTooFarBack", -11, SEEK_END, -EINVAL}, SeekCase{"EndBeyond", 5, SEEK_END, 15},
                    SeekCase{"CurOverflow", INT64_MAX, SEEK_CUR, -EINVAL}, SeekCase{"BadWhence", 0, 9, -EINVAL},
                    SeekCase{"DataAtStart", 0, SEEK_DATA, 0}, SeekCase{"DataAtEnd", 10, SEEK_DATA, -ENXIO},
                    SeekCase{"DataPastEnd", 11, SEEK_DATA, -ENXIO}, SeekCase{"DataNegative", -1, SEEK_DATA, -ENXIO},
                    SeekCase{"HoleIsTheEnd", 0, SEEK_HOLE, 10}, SeekCase{"HoleInside", 4, SEEK_HOLE, 10},
                    SeekCase{"HoleAtEnd", 10, SEEK_HOLE, -ENXIO}),
    [](const auto& info) { return info.param.name; });

TEST_F(SeekTruncate, SeekBadDescriptor) { EXPECT_FAIL(lseek(-1, 0, SEEK_SET), EBADF); }
TEST_F(SeekTruncate, SeekOnPipe) {
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]), w(p[1]);
  EXPECT_FAIL(lseek(r.get(), 0, SEEK_CUR), ESPIPE);
}
TEST_F(SeekTruncate, DataAndHoleOfSparseFile) {
  constexpr off_t kFar = 1 << 20;
  ASSERT_OK(ftruncate(fd(), 0));
  ASSERT_EQ(pwrite(fd(), "x", 1, kFar), 1);
  EXPECT_EQ(lseek(fd(), 0, SEEK_HOLE), 0);
  const off_t data = lseek(fd(), 0, SEEK_DATA);
  EXPECT_GT(data, 0);
  EXPECT_LE(data, kFar);
  EXPECT_EQ(lseek(fd(), kFar, SEEK_HOLE), kFar + 1);
}
TEST_F(SeekTruncate, SparseFileUsesFewBlocks) {
  ASSERT_OK(ftruncate(fd(), 1 << 24));
  EXPECT_LT(Blocks() * 512, 1 << 20);
}

TEST_F(SeekTruncate, Shrink) {
  ASSERT_OK(truncate(path_.c_str(), 3));
  EXPECT_EQ(ReadFile(path_), "012");
}
TEST_F(SeekTruncate, ShrinkThenGrowReadsZeros) {
  ASSERT_OK(ftruncate(fd(), 3));
  ASSERT_OK(ftruncate(fd(), 6));
  EXPECT_EQ(ReadFile(path_), std::string("012\0\0\0", 6));
}
TEST_F(SeekTruncate, GrowKeepsTheOffset) {
  ASSERT_EQ(lseek(fd(), 2, SEEK_SET), 2);
  ASSERT_OK(ftruncate(fd(), 20));
  EXPECT_EQ(lseek(fd(), 0, SEEK_CUR), 2);
  EXPECT_EQ(Size(), 20);
}
TEST_F(SeekTruncate, ReadAfterShrinkBelowOffset) {
  ASSERT_EQ(lseek(fd(), 8, SEEK_SET), 8);
  ASSERT_OK(ftruncate(fd(), 2));
  char c;
  EXPECT_EQ(read(fd(), &c, 1), 0);
}
TEST_F(SeekTruncate, NegativeLength) {
  EXPECT_FAIL(ftruncate(fd(), -1), EINVAL);
  EXPECT_FAIL(truncate(path_.c_str(), -1), EINVAL);
}
TEST_F(SeekTruncate, ReadOnlyDescriptor) {
  const ScopedFd r(open(path_.c_str(), O_RDONLY));
  EXPECT_FAIL(ftruncate(r.get(), 1), EINVAL);
}
TEST_F(SeekTruncate, TruncateDirectory) { EXPECT_FAIL(truncate(dir_.path().c_str(), 0), EISDIR); }
TEST_F(SeekTruncate, TruncateMissing) { EXPECT_FAIL(truncate(dir_.Join("no").c_str(), 0), ENOENT); }
TEST_F(SeekTruncate, TruncatePipe) {
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]), w(p[1]);
  EXPECT_FAIL(ftruncate(w.get(), 0), EINVAL);
}
TEST_F(SeekTruncate, TruncateUpdatesMtime) {
  const timespec old[2] = {{1000, 0}, {1000, 0}};
  ASSERT_OK(futimens(fd(), old));
  ASSERT_OK(ftruncate(fd(), 5));
  struct stat st;
  ASSERT_OK(fstat(fd(), &st));
  EXPECT_GT(st.st_mtim.tv_sec, 1000);
}
TEST_F(SeekTruncate, TruncateNeedsWritePermission) {
  ASSERT_OK(chmod(dir_.path().c_str(), 0755));
  EXPECT_TRUE(PassesAsUser(1000, [&] { EXPECT_FAIL(truncate(path_.c_str(), 0), EACCES); }));
}
TEST_F(SeekTruncate, TruncateBeyondFileSizeLimit) {
  EXPECT_TRUE(PassesInChild([&] {
    const rlimit limit = {100, 100};
    ASSERT_OK(setrlimit(RLIMIT_FSIZE, &limit));
    signal(SIGXFSZ, SIG_IGN);
    EXPECT_FAIL(ftruncate(fd(), 101), EFBIG);
    EXPECT_OK(ftruncate(fd(), 100));
  }));
}

TEST_F(SeekTruncate, FallocateExtends) {
  ASSERT_OK(fallocate(fd(), 0, 5, 20));
  EXPECT_EQ(Size(), 25);
  EXPECT_EQ(ReadFile(path_).substr(0, 10), "0123456789");
}
TEST_F(SeekTruncate, FallocateInsideKeepsSize) {
  ASSERT_OK(fallocate(fd(), 0, 0, 4));
  EXPECT_EQ(Size(), 10);
}
TEST_F(SeekTruncate, FallocateKeepSize) {
  ASSERT_OK(fallocate(fd(), FALLOC_FL_KEEP_SIZE, 0, 1 << 16));
  EXPECT_EQ(Size(), 10);
  EXPECT_GE(Blocks() * 512, 1 << 16);
}
TEST_F(SeekTruncate, PunchHole) {
  const std::string data(4 * kPage, 'd');
  ASSERT_EQ(pwrite(fd(), data.data(), data.size(), 0), static_cast<ssize_t>(data.size()));
  const blkcnt_t before = Blocks();
  ASSERT_OK(fallocate(fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, kPage, 2 * kPage));
  EXPECT_LT(Blocks(), before);
  const std::string now = ReadFile(path_);
  EXPECT_EQ(now.size(), 4 * kPage);
  EXPECT_EQ(now.substr(kPage, 2 * kPage), std::string(2 * kPage, '\0'));
  EXPECT_EQ(now[kPage - 1], 'd');
  EXPECT_EQ(now[3 * kPage], 'd');
}
TEST_F(SeekTruncate, PunchPartOfAPage) {
  ASSERT_OK(fallocate(fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2, 3));
  EXPECT_EQ(ReadFile(path_), std::string("01\0\0\00056789", 10));
}
TEST_F(SeekTruncate, FallocateErrors) {
  EXPECT_FAIL(fallocate(fd(), 0, -1, 10), EINVAL);
  EXPECT_FAIL(fallocate(fd(), 0, 0, 0), EINVAL);
  EXPECT_FAIL(fallocate(fd(), 0, 0, -5), EINVAL);
  EXPECT_FAIL(fallocate(fd(), FALLOC_FL_PUNCH_HOLE, 0, 10), EOPNOTSUPP);
  EXPECT_FAIL(fallocate(fd(), 0x4000, 0, 10), EOPNOTSUPP);
  EXPECT_FAIL(fallocate(fd(), 0, INT64_MAX, 1), EFBIG);
  EXPECT_FAIL(fallocate(-1, 0, 0, 1), EBADF);
}
TEST_F(SeekTruncate, FallocateOtherKinds) {
  const ScopedFd r(open(path_.c_str(), O_RDONLY));
  EXPECT_FAIL(fallocate(r.get(), 0, 0, 1), EBADF);
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd pr(p[0]), pw(p[1]);
  EXPECT_FAIL(fallocate(pw.get(), 0, 0, 1), ESPIPE);
}

}  // namespace
}  // namespace moat::guest
