// stat(2), lstat(2), fstatat(2), statx(2), access(2), faccessat2(2), statfs(2).
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

class Stat : public testing::Test {
 protected:
  TempDir dir_;
  struct stat st_;
  struct statx sx_;
};

TEST_F(Stat, RegularFile) {
  const std::string path = dir_.File("f", "hello", 0640);
  ASSERT_OK(stat(path.c_str(), &st_));
  EXPECT_EQ(st_.st_mode, S_IFREG | 0640u);
  EXPECT_EQ(st_.st_size, 5);
  EXPECT_EQ(st_.st_nlink, 1u);
  EXPECT_EQ(st_.st_uid, geteuid());
  EXPECT_EQ(st_.st_gid, getegid());
  EXPECT_GT(st_.st_blksize, 0);
}
TEST_F(Stat, DirectoryLinkCount) {
  const std::string path = dir_.Dir("d");
  ASSERT_OK(stat(path.c_str(), &st_));
  EXPECT_TRUE(S_ISDIR(st_.st_mode));
  EXPECT_EQ(st_.st_nlink, 2u);
  dir_.Dir("d/e");
  ASSERT_OK(stat(path.c_str(), &st_));
  EXPECT_EQ(st_.st_nlink, 3u);
}
TEST_F(Stat, SymlinkFollowedOrNot) {
  dir_.File("f", "hello");
  ASSERT_OK(symlink("f", dir_.Join("l").c_str()));
  ASSERT_OK(stat(dir_.Join("l").c_str(), &st_));
  EXPECT_TRUE(S_ISREG(st_.st_mode));
  ASSERT_OK(lstat(dir_.Join("l").c_str(), &st_));
  EXPECT_TRUE(S_ISLNK(st_.st_mode));
  EXPECT_EQ(st_.st_size, 1);
  EXPECT_EQ(st_.st_mode & 07777, 0777u);
}
TEST_F(Stat, SameInodeThroughEveryWay) {
  const std::string path = dir_.File("f");
  const ScopedFd fd(open(path.c_str(), O_RDONLY)), at = dir_.Open();
  struct stat a, b, c;
  ASSERT_OK(stat(path.c_str(), &a));
  ASSERT_OK(fstat(fd.get(), &b));
  ASSERT_OK(fstatat(at.get(), "f", &c, 0));
  EXPECT_EQ(a.st_ino, b.st_ino);
  EXPECT_EQ(a.st_ino, c.st_ino);
  EXPECT_EQ(a.st_dev, c.st_dev);
}
TEST_F(Stat, DifferentFilesHaveDifferentInodes) {
  struct stat a, b;
  ASSERT_OK(stat(dir_.File("a").c_str(), &a));
  ASSERT_OK(stat(dir_.File("b").c_str(), &b));
  EXPECT_NE(a.st_ino, b.st_ino);
}
TEST_F(Stat, Errors) {
  dir_.File("f");
  EXPECT_FAIL(stat(dir_.Join("no").c_str(), &st_), ENOENT);
  EXPECT_FAIL(stat("", &st_), ENOENT);
  EXPECT_FAIL(stat(dir_.Join("f/x").c_str(), &st_), ENOTDIR);
  EXPECT_FAIL(stat(BadPointer(), &st_), EFAULT);
  EXPECT_FAIL(stat("/", reinterpret_cast<struct stat*>(BadPointer())), EFAULT);
  EXPECT_FAIL(fstat(-1, &st_), EBADF);
  EXPECT_FAIL(fstatat(AT_FDCWD, "/", &st_, 0x8000000), EINVAL);
}
TEST_F(Stat, EmptyPath) {
  const ScopedFd fd(open(dir_.File("f", "abc").c_str(), O_RDONLY));
  ASSERT_OK(fstatat(fd.get(), "", &st_, AT_EMPTY_PATH));
  EXPECT_EQ(st_.st_size, 3);
  EXPECT_FAIL(fstatat(fd.get(), "", &st_, 0), ENOENT);
  ASSERT_OK(fstatat(AT_FDCWD, "", &st_, AT_EMPTY_PATH));
  EXPECT_TRUE(S_ISDIR(st_.st_mode));
}
TEST_F(Stat, TrailingSlashOnSymlinkToDirectoryFollows) {
  dir_.Dir("d");
  ASSERT_OK(symlink("d", dir_.Join("l").c_str()));
  ASSERT_OK(lstat(dir_.Join("l/").c_str(), &st_));
  EXPECT_TRUE(S_ISDIR(st_.st_mode));
}
TEST_F(Stat, DotAndDotDotComponents) {
  dir_.Dir("a");
  dir_.Dir("a/b");
  dir_.File("f");
  EXPECT_OK(stat(dir_.Join("a/./b/../../f").c_str(), &st_));
  EXPECT_OK(stat(dir_.Join("a//b///../b").c_str(), &st_));
  EXPECT_FAIL(stat(dir_.Join("missing/../f").c_str(), &st_), ENOENT);
}
TEST_F(Stat, RootsParentIsRoot) {
  struct stat a, b;
  ASSERT_OK(stat("/", &a));
  ASSERT_OK(stat("/../..", &b));
  EXPECT_EQ(a.st_ino, b.st_ino);
}
TEST_F(Stat, DeviceNumbers) {
  ASSERT_OK(stat("/dev/null", &st_));
  EXPECT_TRUE(S_ISCHR(st_.st_mode));
  EXPECT_EQ(st_.st_rdev, makedev(1, 3));
  ASSERT_OK(stat("/dev/zero", &st_));
  EXPECT_EQ(st_.st_rdev, makedev(1, 5));
}
TEST_F(Stat, TimesFollowEvents) {
  const std::string path = dir_.File("f", "x");
  const timespec old[2] = {{100, 1}, {200, 2}};
  ASSERT_OK(utimensat(AT_FDCWD, path.c_str(), old, 0));
  struct stat before;
  ASSERT_OK(stat(path.c_str(), &before));
  EXPECT_EQ(before.st_atim.tv_sec, 100);
  EXPECT_EQ(before.st_mtim.tv_nsec, 2);
  ASSERT_OK(chmod(path.c_str(), 0600));
  ASSERT_OK(stat(path.c_str(), &st_));
  EXPECT_EQ(st_.st_mtim.tv_sec, 200);  // a chmod moves ctime only
  EXPECT_GE(st_.st_ctim.tv_sec, before.st_ctim.tv_sec);
  const ScopedFd fd(open(path.c_str(), O_WRONLY));
  ASSERT_EQ(write(fd.get(), "y", 1), 1);
  ASSERT_OK(stat(path.c_str(), &st_));
  EXPECT_GT(st_.st_mtim.tv_sec, 200);
}
TEST_F(Stat, DirectoryMtimeFollowsEntries) {
  const std::string path = dir_.Dir("d");
  const timespec old[2] = {{100, 0}, {100, 0}};
  ASSERT_OK(utimensat(AT_FDCWD, path.c_str(), old, 0));
  dir_.File("d/f");
  ASSERT_OK(stat(path.c_str(), &st_));
  EXPECT_GT(st_.st_mtim.tv_sec, 100);
}
TEST_F(Stat, BlocksCountAllocatedSpace) {
  const std::string path = dir_.File("f", std::string(100'000, 'x'));
  ASSERT_OK(stat(path.c_str(), &st_));
  EXPECT_GE(st_.st_blocks * 512, 100'000);
}

TEST_F(Stat, StatxBasic) {
  const std::string path = dir_.File("f", "hello", 0604);
  ASSERT_OK(statx(AT_FDCWD, path.c_str(), 0, STATX_BASIC_STATS, &sx_));
  EXPECT_EQ(sx_.stx_mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
  EXPECT_EQ(sx_.stx_mode, S_IFREG | 0604);
  EXPECT_EQ(sx_.stx_size, 5u);
  EXPECT_EQ(sx_.stx_nlink, 1u);
  ASSERT_OK(stat(path.c_str(), &st_));
  EXPECT_EQ(sx_.stx_ino, st_.st_ino);
  EXPECT_EQ(makedev(sx_.stx_dev_major, sx_.stx_dev_minor), st_.st_dev);
  EXPECT_EQ(sx_.stx_mtime.tv_sec, st_.st_mtim.tv_sec);
  EXPECT_EQ(sx_.stx_mtime.tv_nsec, static_cast<uint32_t>(st_.st_mtim.tv_nsec));
}
TEST_F(Stat, StatxNofollowAndEmptyPath) {
  ASSERT_OK(symlink("nowhere", dir_.Join("l").c_str()));
  ASSERT_OK(statx(AT_FDCWD, dir_.Join("l").c_str(), AT_SYMLINK_NOFOLLOW, STATX_TYPE, &sx_));
  EXPECT_TRUE(S_ISLNK(sx_.stx_mode));
  const ScopedFd fd(open(dir_.File("f", "abc").c_str(), O_RDONLY));
  ASSERT_OK(statx(fd.get(), "", AT_EMPTY_PATH, STATX_SIZE, &sx_));
  EXPECT_EQ(sx_.stx_size, 3u);
}
TEST_F(Stat, StatxDeviceRdev) {
  ASSERT_OK(statx(AT_FDCWD, "/dev/zero", 0, STATX_BASIC_STATS, &sx_));
  EXPECT_EQ(sx_.stx_rdev_major, 1u);
  EXPECT_EQ(sx_.stx_rdev_minor, 5u);
}
TEST_F(Stat, StatxErrors) {
  EXPECT_FAIL(statx(AT_FDCWD, "/", 0, STATX__RESERVED, &sx_), EINVAL);
  EXPECT_FAIL(statx(AT_FDCWD, "/", AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC, STATX_ALL, &sx_), EINVAL);
  EXPECT_FAIL(statx(AT_FDCWD, "/", 0x40000000, STATX_ALL, &sx_), EINVAL);
  EXPECT_FAIL(statx(-1, "x", 0, STATX_ALL, &sx_), EBADF);
  EXPECT_FAIL(statx(AT_FDCWD, "", 0, STATX_ALL, &sx_), ENOENT);
  EXPECT_FAIL(statx(AT_FDCWD, "/", 0, STATX_ALL, reinterpret_cast<struct statx*>(BadPointer())), EFAULT);
}
TEST_F(Stat, StatxMountId) {
  struct statx other;
  ASSERT_OK(statx(AT_FDCWD, dir_.path().c_str(), 0, STATX_MNT_ID, &sx_));
  ASSERT_OK(statx(AT_FDCWD, "/proc", 0, STATX_MNT_ID, &other));
  EXPECT_NE(sx_.stx_mnt_id, other.stx_mnt_id);
}

TEST_F(Stat, AccessModes) {
  const std::string path = dir_.File("f", "", 0644);
  EXPECT_OK(access(path.c_str(), F_OK));
  EXPECT_OK(access(path.c_str(), R_OK | W_OK));
  EXPECT_FAIL(access(path.c_str(), X_OK), EACCES);  // even for root: no execute bit at all
  EXPECT_FAIL(access(dir_.Join("no").c_str(), F_OK), ENOENT);
  EXPECT_FAIL(access(path.c_str(), 8), EINVAL);
}
TEST_F(Stat, AccessUsesRealIds) {
  ASSERT_OK(chmod(dir_.path().c_str(), 0755));
  const std::string path = dir_.File("f", "", 0600);
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(setresuid(1000, 0, 0));
    EXPECT_FAIL(access(path.c_str(), R_OK), EACCES);
    EXPECT_OK(FaccessAt2(AT_FDCWD, path.c_str(), R_OK, AT_EACCESS));
  }));
}
TEST_F(Stat, Faccessat2Flags) {
  ASSERT_OK(symlink("nowhere", dir_.Join("l").c_str()));
  EXPECT_FAIL(FaccessAt2(AT_FDCWD, dir_.Join("l").c_str(), F_OK, 0), ENOENT);
  EXPECT_OK(FaccessAt2(AT_FDCWD, dir_.Join("l").c_str(), F_OK, AT_SYMLINK_NOFOLLOW));
  EXPECT_FAIL(FaccessAt2(AT_FDCWD, "/", F_OK, 0x40), EINVAL);
  const ScopedFd at = dir_.Open();
  EXPECT_OK(FaccessAt2(at.get(), "", R_OK, AT_EMPTY_PATH));
}
TEST_F(Stat, Statfs) {
  struct statfs fs;
  ASSERT_OK(statfs("/proc", &fs));
  EXPECT_EQ(fs.f_type, 0x9fa0);
  ASSERT_OK(statfs(dir_.path().c_str(), &fs));
  EXPECT_GT(fs.f_bsize, 0);
  EXPECT_GE(fs.f_namelen, 255);
  EXPECT_FAIL(statfs(dir_.Join("no").c_str(), &fs), ENOENT);
  EXPECT_FAIL(fstatfs(-1, &fs), EBADF);
}
TEST_F(Stat, StatfsOfPipe) {
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]), w(p[1]);
  struct statfs fs;
  ASSERT_OK(fstatfs(r.get(), &fs));
  EXPECT_EQ(fs.f_type, 0x50495045);
}

}  // namespace
}  // namespace moat::guest
