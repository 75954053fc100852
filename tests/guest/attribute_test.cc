// chmod(2), chown(2), utimensat(2), umask(2) and their kin.
#include <fcntl.h>
#include <grp.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <unistd.h>
#include <utime.h>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

class Attribute : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(chmod(dir_.path().c_str(), 0755));
    path_ = dir_.File("f", "data", 0644);
    ASSERT_OK(symlink("f", dir_.Join("l").c_str()));
  }
  struct stat Get(const char* name = "f") const {
    struct stat st = {};
    EXPECT_OK(lstat(dir_.Join(name).c_str(), &st));
    return st;
  }
  mode_t Mode(const char* name = "f") const { return Get(name).st_mode & 07777; }
  TempDir dir_;
  std::string path_;
};

class ChmodBits : public Attribute, public testing::WithParamInterface<mode_t> {};
TEST_P(ChmodBits, AreKept) {
  ASSERT_OK(chmod(path_.c_str(), GetParam()));
  EXPECT_EQ(Mode(), GetParam());
  EXPECT_TRUE(S_ISREG(Get().st_mode));
}
INSTANTIATE_TEST_SUITE_P(, ChmodBits, testing::Values(0, 0777, 0400, 0111, 04755, 02755, 01777, 07777));

TEST_F(Attribute, ChmodIgnoresTypeBits) {
  ASSERT_OK(chmod(path_.c_str(), S_IFDIR | 0600));
  EXPECT_TRUE(S_ISREG(Get().st_mode));
  EXPECT_EQ(Mode(), 0600u);
}
TEST_F(Attribute, ChmodFollowsSymlinks) {
  ASSERT_OK(chmod(dir_.Join("l").c_str(), 0600));
  EXPECT_EQ(Mode(), 0600u);
  EXPECT_EQ(Mode("l"), 0777u);
}
TEST_F(Attribute, FchmodAndFchmodat) {
  const ScopedFd fd(open(path_.c_str(), O_RDONLY)), at = dir_.Open();
  ASSERT_OK(fchmod(fd.get(), 0604));
  EXPECT_EQ(Mode(), 0604u);
  ASSERT_OK(fchmodat(at.get(), "f", 0640, 0));
  EXPECT_EQ(Mode(), 0640u);
}
TEST_F(Attribute, ChmodErrors) {
  EXPECT_FAIL(chmod(dir_.Join("no").c_str(), 0600), ENOENT);
  EXPECT_FAIL(fchmod(-1, 0600), EBADF);
  EXPECT_FAIL(chmod(BadPointer(), 0600), EFAULT);
  EXPECT_TRUE(PassesAsUser(1000, [&] { EXPECT_FAIL(chmod(path_.c_str(), 0666), EPERM); }));
}
TEST_F(Attribute, ChmodOwnerMayWithoutPrivilege) {
  ASSERT_OK(chown(path_.c_str(), 1000, 1000));
  EXPECT_TRUE(PassesAsUser(1000, [&] { EXPECT_OK(chmod(path_.c_str(), 0600)); }));
  EXPECT_EQ(Mode(), 0600u);
}
TEST_F(Attribute, ChmodDropsSetgidForForeignGroup) {
  ASSERT_OK(chown(path_.c_str(), 1000, 2000));
  EXPECT_TRUE(PassesAsUser(1000, [&] { EXPECT_OK(chmod(path_.c_str(), 02755)); }));
  EXPECT_EQ(Mode(), 0755u);
}

TEST_F(Attribute, ChownByRoot) {
  ASSERT_OK(chown(path_.c_str(), 1000, 2000));
  EXPECT_EQ(Get().st_uid, 1000u);
  EXPECT_EQ(Get().st_gid, 2000u);
}
TEST_F(Attribute, ChownMinusOneKeeps) {
  ASSERT_OK(chown(path_.c_str(), 1000, 2000));
  ASSERT_OK(chown(path_.c_str(), -1, 3000));
  EXPECT_EQ(Get().st_uid, 1000u);
  ASSERT_OK(chown(path_.c_str(), 1001, -1));
  EXPECT_EQ(Get().st_gid, 3000u);
}
TEST_F(Attribute, LchownChangesTheLink) {
  ASSERT_OK(lchown(dir_.Join("l").c_str(), 1000, 1000));
  EXPECT_EQ(Get("l").st_uid, 1000u);
  EXPECT_EQ(Get("f").st_uid, 0u);
  ASSERT_OK(chown(dir_.Join("l").c_str(), 1001, 1001));
  EXPECT_EQ(Get("f").st_uid, 1001u);
}
TEST_F(Attribute, FchownatEmptyPath) {
  const ScopedFd fd(open(path_.c_str(), O_RDONLY));
  ASSERT_OK(fchownat(fd.get(), "", 7, 8, AT_EMPTY_PATH));
  EXPECT_EQ(Get().st_gid, 8u);
  EXPECT_FAIL(fchownat(fd.get(), "", 7, 8, 0), ENOENT);
  EXPECT_FAIL(fchownat(AT_FDCWD, path_.c_str(), 7, 8, 0x1), EINVAL);
}
TEST_F(Attribute, ChownClearsSetidBits) {
  ASSERT_OK(chmod(path_.c_str(), 06755));
  ASSERT_OK(chown(path_.c_str(), 1000, 1000));
  EXPECT_EQ(Mode(), 0755u);
}
TEST_F(Attribute, ChownKeepsSetgidWithoutGroupExecute) {
  ASSERT_OK(chmod(path_.c_str(), 02644));  // means mandatory locking, not setgid
  ASSERT_OK(chown(path_.c_str(), 0, 0));
  EXPECT_EQ(Mode(), 02644u);
}
TEST_F(Attribute, UserMayNotGiveFilesAway) {
  ASSERT_OK(chown(path_.c_str(), 1000, 1000));
  EXPECT_TRUE(PassesAsUser(1000, [&] {
    EXPECT_FAIL(chown(path_.c_str(), 1001, -1), EPERM);
    EXPECT_FAIL(chown(path_.c_str(), -1, 2000), EPERM);
    EXPECT_OK(chown(path_.c_str(), 1000, 1000));
  }));
}
TEST_F(Attribute, UserMayChangeGroupToOneOfItsOwn) {
  ASSERT_OK(chown(path_.c_str(), 1000, 1000));
  EXPECT_TRUE(PassesInChild([&] {
    const gid_t groups[] = {2000};
    ASSERT_OK(setgroups(1, groups));
    ASSERT_OK(setresgid(1000, 1000, 1000));
    ASSERT_OK(setresuid(1000, 1000, 1000));
    EXPECT_OK(chown(path_.c_str(), -1, 2000));
    EXPECT_FAIL(chown(path_.c_str(), -1, 2001), EPERM);
  }));
  EXPECT_EQ(Get().st_gid, 2000u);
}

TEST_F(Attribute, UtimensatSetsNanoseconds) {
  const timespec times[2] = {{1'000'000'000, 123'456'789}, {1'100'000'000, 987'654'321}};
  ASSERT_OK(utimensat(AT_FDCWD, path_.c_str(), times, 0));
  EXPECT_EQ(Get().st_atim.tv_sec, 1'000'000'000);
  EXPECT_EQ(Get().st_atim.tv_nsec, 123'456'789);
  EXPECT_EQ(Get().st_mtim.tv_sec, 1'100'000'000);
  EXPECT_EQ(Get().st_mtim.tv_nsec, 987'654'321);
}
TEST_F(Attribute, UtimensatOmit) {
  const timespec first[2] = {{1000, 0}, {2000, 0}};
  ASSERT_OK(utimensat(AT_FDCWD, path_.c_str(), first, 0));
  const timespec second[2] = {{0, UTIME_OMIT}, {3000, 0}};
  ASSERT_OK(utimensat(AT_FDCWD, path_.c_str(), second, 0));
  EXPECT_EQ(Get().st_atim.tv_sec, 1000);
  EXPECT_EQ(Get().st_mtim.tv_sec, 3000);
}
TEST_F(Attribute, UtimensatNow) {
  const timespec old[2] = {{1000, 0}, {2000, 0}};
  ASSERT_OK(utimensat(AT_FDCWD, path_.c_str(), old, 0));
  const timespec now[2] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
  ASSERT_OK(utimensat(AT_FDCWD, path_.c_str(), now, 0));
  EXPECT_GE(Get().st_atim.tv_sec, time(nullptr) - 5);
  EXPECT_EQ(Get().st_mtim.tv_sec, 2000);
}
TEST_F(Attribute, UtimensatNullIsNow) {
  const timespec old[2] = {{1000, 0}, {2000, 0}};
  ASSERT_OK(utimensat(AT_FDCWD, path_.c_str(), old, 0));
  ASSERT_OK(utimensat(AT_FDCWD, path_.c_str(), nullptr, 0));
  EXPECT_GE(Get().st_mtim.tv_sec, time(nullptr) - 5);
}
TEST_F(Attribute, UtimensatOnSymlink) {
  const timespec times[2] = {{10, 0}, {20, 0}};
  ASSERT_OK(utimensat(AT_FDCWD, dir_.Join("l").c_str(), times, AT_SYMLINK_NOFOLLOW));
  EXPECT_EQ(Get("l").st_mtim.tv_sec, 20);
  EXPECT_NE(Get("f").st_mtim.tv_sec, 20);
}
TEST_F(Attribute, UtimensatErrors) {
  const timespec bad[2] = {{0, 1'000'000'000}, {0, 0}};
  EXPECT_FAIL(utimensat(AT_FDCWD, path_.c_str(), bad, 0), EINVAL);
  EXPECT_FAIL(utimensat(AT_FDCWD, dir_.Join("no").c_str(), nullptr, 0), ENOENT);
  EXPECT_FAIL(utimensat(AT_FDCWD, path_.c_str(), nullptr, 0x8), EINVAL);
  EXPECT_FAIL(syscall(SYS_utimensat, AT_FDCWD, path_.c_str(), BadPointer(), 0), EFAULT);
  EXPECT_FAIL(futimens(-1, nullptr), EBADF);
}
TEST_F(Attribute, UtimensatPermissions) {
  const std::string writable = dir_.File("w", "", 0666);
  EXPECT_TRUE(PassesAsUser(1000, [&] {
    const timespec explicit_times[2] = {{1, 0}, {2, 0}};
    EXPECT_OK(utimensat(AT_FDCWD, writable.c_str(), nullptr, 0));
    EXPECT_FAIL(utimensat(AT_FDCWD, writable.c_str(), explicit_times, 0), EPERM);
    EXPECT_FAIL(utimensat(AT_FDCWD, path_.c_str(), nullptr, 0), EACCES);
  }));
}
TEST_F(Attribute, OldTimeCalls) {
  const utimbuf buf = {100, 200};
  ASSERT_OK(syscall(SYS_utime, path_.c_str(), &buf));
  EXPECT_EQ(Get().st_mtim.tv_sec, 200);
  const timeval tv[2] = {{300, 1}, {400, 2}};
  ASSERT_OK(syscall(SYS_utimes, path_.c_str(), tv));
  EXPECT_EQ(Get().st_atim.tv_sec, 300);
  EXPECT_EQ(Get().st_mtim.tv_nsec, 2000);
  const timeval bad[2] = {{300, 1'000'000}, {400, 2}};
  EXPECT_FAIL(syscall(SYS_utimes, path_.c_str(), bad), EINVAL);
  ASSERT_OK(syscall(SYS_futimesat, AT_FDCWD, path_.c_str(), tv));
}
TEST_F(Attribute, DatesBefore1970) {
  const timespec times[2] = {{-100, 5}, {-200, 6}};
  ASSERT_OK(utimensat(AT_FDCWD, path_.c_str(), times, 0));
  EXPECT_EQ(Get().st_mtim.tv_sec, -200);
  EXPECT_EQ(Get().st_mtim.tv_nsec, 6);
}
TEST_F(Attribute, ReadUpdatesAtimeOnlyWhenOlder) {  // relatime
  const timespec times[2] = {{1000, 0}, {2000, 0}};
  ASSERT_OK(utimensat(AT_FDCWD, path_.c_str(), times, 0));
  EXPECT_EQ(ReadFile(path_), "data");
  EXPECT_EQ(Get().st_mtim.tv_sec, 2000);
}

TEST_F(Attribute, UmaskReturnsTheOldOne) {
  const mode_t old = umask(0123);
  EXPECT_EQ(umask(07777), 0123u);
  EXPECT_EQ(umask(old), 0777u);
}
TEST_F(Attribute, UmaskIsInherited) {
  const mode_t old = umask(0117);
  EXPECT_TRUE(PassesInChild([] { EXPECT_EQ(umask(0), 0117u); }));
  EXPECT_EQ(umask(old), 0117u);
}

}  // namespace
}  // namespace moat::guest
