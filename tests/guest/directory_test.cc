// mkdir(2), rmdir(2), getdents64(2), chdir(2), fchdir(2), getcwd(2), chroot(2).
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <set>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

class Directory : public testing::Test {
 protected:
  std::string At(std::string_view name) const { return dir_.Join(name); }
  TempDir dir_;
};

TEST_F(Directory, MkdirUsesUmask) {
  const mode_t old = umask(022);
  ASSERT_OK(mkdir(At("d").c_str(), 0777));
  umask(old);
  struct stat st;
  ASSERT_OK(stat(At("d").c_str(), &st));
  EXPECT_EQ(st.st_mode, S_IFDIR | 0755u);
}
TEST_F(Directory, MkdirErrors) {
  dir_.File("f");
  dir_.Dir("d");
  ASSERT_OK(symlink("nowhere", At("l").c_str()));
  EXPECT_FAIL(mkdir(At("d").c_str(), 0755), EEXIST);
  EXPECT_FAIL(mkdir(At("f").c_str(), 0755), EEXIST);
  EXPECT_FAIL(mkdir(At("l").c_str(), 0755), EEXIST);
  EXPECT_FAIL(mkdir(At("no/d").c_str(), 0755), ENOENT);
  EXPECT_FAIL(mkdir(At("f/d").c_str(), 0755), ENOTDIR);
  EXPECT_FAIL(mkdir("/", 0755), EEXIST);
  EXPECT_FAIL(mkdir("", 0755), ENOENT);
  EXPECT_FAIL(mkdir(BadPointer(), 0755), EFAULT);
  EXPECT_OK(mkdir(At("slash/").c_str(), 0755));
}
TEST_F(Directory, MkdiratRelative) {
  const ScopedFd at = dir_.Open();
  EXPECT_OK(mkdirat(at.get(), "d", 0700));
  EXPECT_TRUE(Exists(At("d")));
}
TEST_F(Directory, MkdirInheritsSetgidAndGroup) {
  dir_.Dir("g");
  ASSERT_OK(chown(At("g").c_str(), 0, 1234));
  ASSERT_OK(chmod(At("g").c_str(), 02775));
  ASSERT_OK(mkdir(At("g/sub").c_str(), 0755));
  struct stat st;
  ASSERT_OK(stat(At("g/sub").c_str(), &st));
  EXPECT_EQ(st.st_gid, 1234u);
  EXPECT_TRUE(st.st_mode & S_ISGID);
  dir_.File("g/file");
  ASSERT_OK(stat(At("g/file").c_str(), &st));
  EXPECT_EQ(st.st_gid, 1234u);
  EXPECT_FALSE(st.st_mode & S_ISGID);
}
TEST_F(Directory, RmdirErrors) {
  dir_.File("f");
  dir_.Dir("d");
  dir_.Dir("d/e");
  EXPECT_FAIL(rmdir(At("d").c_str()), ENOTEMPTY);
  EXPECT_FAIL(rmdir(At("f").c_str()), ENOTDIR);
  EXPECT_FAIL(rmdir(At("no").c_str()), ENOENT);
  EXPECT_FAIL(rmdir(At("d/e/.").c_str()), EINVAL);
  EXPECT_FAIL(rmdir(At("d/e/..").c_str()), ENOTEMPTY);
  EXPECT_FAIL(rmdir("/"), EBUSY);
  EXPECT_FAIL(rmdir("/proc"), EBUSY);  // a mount point
  EXPECT_OK(rmdir(At("d/e").c_str()));
}
TEST_F(Directory, RemovedDirectoryIsDead) {
  dir_.Dir("d");
  const ScopedFd fd(open(At("d").c_str(), O_RDONLY | O_DIRECTORY));
  ASSERT_OK(rmdir(At("d").c_str()));
  EXPECT_FAIL(openat(fd.get(), "x", O_CREAT | O_WRONLY, 0600), ENOENT);
  EXPECT_FAIL(mkdirat(fd.get(), "x", 0700), ENOENT);
  char b[1024];
  EXPECT_FAIL(getdents64(fd.get(), b, sizeof b), ENOENT);
  struct stat st;
  ASSERT_OK(fstat(fd.get(), &st));
  EXPECT_EQ(st.st_nlink, 0u);
}

TEST_F(Directory, ListsAllEntriesOnceWithTypes) {
  dir_.File("file");
  dir_.Dir("dir");
  ASSERT_OK(symlink("x", At("link").c_str()));
  ASSERT_OK(mkfifo(At("fifo").c_str(), 0600));
  DIR* d = opendir(dir_.path().c_str());
  ASSERT_NE(d, nullptr);
  std::multiset<std::pair<std::string, int>> seen;
  while (dirent* e = readdir(d)) seen.emplace(e->d_name, e->d_type);
  closedir(d);
  const std::multiset<std::pair<std::string, int>> expected = {{".", DT_DIR},   {"..", DT_DIR},   {"file", DT_REG},
                                                               {"dir", DT_DIR}, {"link", DT_LNK}, {"fifo", DT_FIFO}};
  EXPECT_EQ(seen, expected);
}
TEST_F(Directory, InodeNumbersAgreeWithStat) {
  dir_.File("file");
  DIR* d = opendir(dir_.path().c_str());
  ASSERT_NE(d, nullptr);
  while (dirent* e = readdir(d)) {
    struct stat st;
    ASSERT_OK(lstat(At(e->d_name).c_str(), &st));
    if (std::string(e->d_name) == "file") {
      EXPECT_EQ(e->d_ino, st.st_ino);
    }
  }
  closedir(d);
}
TEST_F(Directory, ThousandEntriesThroughSmallBuffer) {
  std::set<std::string> expected = {".", ".."};
  for (int i = 0; i < 1000; ++i) {
    const std::string name = "entry-" + std::to_string(i);
    dir_.File(name);
    expected.insert(name);
  }
  const ScopedFd fd = dir_.Open();
  std::set<std::string> seen;
  size_t count = 0;
  alignas(8) char b[256];
  for (ssize_t n; (n = getdents64(fd.get(), b, sizeof b)) != 0;) {
    ASSERT_OK(n);
    for (ssize_t at = 0; at < n;) {
      auto* e = reinterpret_cast<dirent64*>(b + at);
      seen.insert(e->d_name);
      ++count;
      at += e->d_reclen;
    }
  }
  EXPECT_EQ(seen, expected);
  EXPECT_EQ(count, expected.size());
}
TEST_F(Directory, GetdentsErrors) {
  const ScopedFd fd = dir_.Open();
  const ScopedFd file(open(dir_.File("f").c_str(), O_RDONLY));
  char b[1024];
  EXPECT_FAIL(getdents64(fd.get(), b, 4), EINVAL);
  EXPECT_FAIL(getdents64(file.get(), b, sizeof b), ENOTDIR);
  EXPECT_FAIL(getdents64(-1, b, sizeof b), EBADF);
  EXPECT_FAIL(getdents64(fd.get(), BadPointer(), 1024), EFAULT);
}
TEST_F(Directory, RewindSeesNewEntries) {
  DIR* d = opendir(dir_.path().c_str());
  ASSERT_NE(d, nullptr);
  while (readdir(d) != nullptr) {
  }
  dir_.File("late");
  rewinddir(d);
  bool found = false;
  while (dirent* e = readdir(d)) found |= std::string(e->d_name) == "late";
  closedir(d);
  EXPECT_TRUE(found);
}
TEST_F(Directory, DeletingWhileReadingSkipsNothingElse) {
  for (int i = 0; i < 300; ++i) dir_.File("n" + std::to_string(i));
  DIR* d = opendir(dir_.path().c_str());
  ASSERT_NE(d, nullptr);
  int removed = 0;
  while (dirent* e = readdir(d)) {
    if (e->d_name[0] == 'n' && unlink(At(e->d_name).c_str()) == 0) ++removed;
  }
  closedir(d);
  EXPECT_EQ(removed, 300);
  EXPECT_TRUE(List(dir_.path()).empty());
}
TEST_F(Directory, TelldirSeekdir) {
  for (int i = 0; i < 20; ++i) dir_.File("n" + std::to_string(i));
  DIR* d = opendir(dir_.path().c_str());
  ASSERT_NE(d, nullptr);
  for (int i = 0; i < 5; ++i) ASSERT_NE(readdir(d), nullptr);
  const long position = telldir(d);
  const std::string next = readdir(d)->d_name;
  readdir(d);
  seekdir(d, position);
  EXPECT_EQ(readdir(d)->d_name, next);
  closedir(d);
}
TEST_F(Directory, OldGetdents) {
  dir_.File("f");
  const ScopedFd fd = dir_.Open();
  char b[1024];
  EXPECT_GT(syscall(SYS_getdents, fd.get(), b, sizeof b), 0);
  EXPECT_EQ(syscall(SYS_getdents, fd.get(), b, sizeof b), 0);
}

TEST_F(Directory, ChdirAndGetcwd) {
  dir_.Dir("d");
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(chdir(At("d").c_str()));
    char b[512];
    ASSERT_NE(getcwd(b, sizeof b), nullptr);
    EXPECT_EQ(At("d"), b);
    ASSERT_OK(chdir(".."));
    ASSERT_NE(getcwd(b, sizeof b), nullptr);
    EXPECT_EQ(dir_.path(), b);
  }));
}
TEST_F(Directory, ChdirErrors) {
  EXPECT_FAIL(chdir(dir_.File("f").c_str()), ENOTDIR);
  EXPECT_FAIL(chdir(At("no").c_str()), ENOENT);
  EXPECT_FAIL(fchdir(-1), EBADF);
  const ScopedFd file(open(At("f").c_str(), O_RDONLY));
  EXPECT_FAIL(fchdir(file.get()), ENOTDIR);
}
TEST_F(Directory, ChdirNeedsSearchPermission) {
  ASSERT_OK(chmod(dir_.path().c_str(), 0755));
  dir_.Dir("locked", 0644);
  EXPECT_TRUE(PassesAsUser(1000, [&] { EXPECT_FAIL(chdir(At("locked").c_str()), EACCES); }));
}
TEST_F(Directory, FchdirOnPathDescriptor) {
  dir_.File("f", "x");
  EXPECT_TRUE(PassesInChild([&] {
    const ScopedFd fd(open(dir_.path().c_str(), O_PATH));
    ASSERT_OK(fchdir(fd.get()));
    EXPECT_EQ(ReadFile("f"), "x");
  }));
}
TEST_F(Directory, GetcwdSmallBuffer) {
  char b[2];
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(chdir(dir_.path().c_str()));
    EXPECT_FAIL(syscall(SYS_getcwd, b, sizeof b), ERANGE);
    EXPECT_FAIL(syscall(SYS_getcwd, BadPointer(), size_t{4096}), EFAULT);
  }));
}
TEST_F(Directory, GetcwdCountsTheTerminator) {
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(chdir(dir_.path().c_str()));
    char b[512];
    EXPECT_EQ(syscall(SYS_getcwd, b, sizeof b), static_cast<long>(dir_.path().size() + 1));
  }));
}
TEST_F(Directory, GetcwdOfRemovedDirectory) {
  dir_.Dir("d");
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(chdir(At("d").c_str()));
    ASSERT_OK(rmdir(At("d").c_str()));
    char b[512];
    EXPECT_FAIL(syscall(SYS_getcwd, b, sizeof b), ENOENT);
    struct stat st;
    EXPECT_OK(stat(".", &st));
    EXPECT_OK(chdir(".."));
  }));
}
TEST_F(Directory, CwdFollowsRename) {
  dir_.Dir("d");
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(chdir(At("d").c_str()));
    ASSERT_OK(rename(At("d").c_str(), At("e").c_str()));
    char b[512];
    ASSERT_NE(getcwd(b, sizeof b), nullptr);
    EXPECT_EQ(At("e"), b);
  }));
}
TEST_F(Directory, ChrootConfinesAbsolutePaths) {
  dir_.File("only", "here");
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(chroot(dir_.path().c_str()));
    ASSERT_OK(chdir("/"));
    EXPECT_EQ(ReadFile("/only"), "here");
    EXPECT_EQ(ReadFile("/../../only"), "here");
    EXPECT_FAIL(open("/proc/self/status", O_RDONLY), ENOENT);
    char b[64];
    EXPECT_STREQ(getcwd(b, sizeof b), "/");
  }));
}
TEST_F(Directory, CwdOutsideOfChrootIsUnreachable) {
  dir_.Dir("r");
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(chdir(dir_.path().c_str()));
    ASSERT_OK(chroot(At("r").c_str()));
    char b[512];
    ASSERT_OK(syscall(SYS_getcwd, b, sizeof b));
    EXPECT_EQ(std::string(b).substr(0, 13), "(unreachable)");
  }));
}
TEST_F(Directory, ChrootErrors) {
  EXPECT_TRUE(PassesAsUser(1000, [] { EXPECT_FAIL(chroot("/"), EPERM); }));
  EXPECT_FAIL(chroot(At("no").c_str()), ENOENT);
  EXPECT_FAIL(chroot(dir_.File("f").c_str()), ENOTDIR);
}

}  // namespace
}  // namespace moat::guest
