// open(2), openat(2), creat(2): flags, modes and errors.
#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

class Open : public testing::Test {
 protected:
  int Try(std::string_view name, int flags, mode_t mode = 0644) {
    fd_.Reset(open(dir_.Join(name).c_str(), flags, mode));
    return fd_.get();
  }
  TempDir dir_;
  ScopedFd fd_;
};

TEST_F(Open, MissingFile) { EXPECT_FAIL(Try("none", O_RDONLY), ENOENT); }
TEST_F(Open, EmptyPath) { EXPECT_FAIL(open("", O_RDONLY), ENOENT); }
TEST_F(Open, BadPathPointer) { EXPECT_FAIL(open(BadPointer(), O_RDONLY), EFAULT); }
TEST_F(Open, CreateThenExists) {
  ASSERT_OK(Try("f", O_CREAT | O_WRONLY));
  EXPECT_TRUE(Exists(dir_.Join("f")));
}
TEST_F(Open, CreateUsesModeAndUmask) {
  const mode_t old = umask(027);
  ASSERT_OK(Try("f", O_CREAT | O_WRONLY, 0666));
  umask(old);
  struct stat st;
  ASSERT_OK(fstat(fd_.get(), &st));
  EXPECT_EQ(st.st_mode, S_IFREG | 0640u);
}
TEST_F(Open, CreateWithReadOnlyModeStillWrites) {
  ASSERT_OK(Try("f", O_CREAT | O_RDWR, 0000));
  EXPECT_EQ(write(fd_.get(), "x", 1), 1);
}
TEST_F(Open, ExclusiveOnExisting) {
  dir_.File("f");
  EXPECT_FAIL(Try("f", O_CREAT | O_EXCL | O_WRONLY), EEXIST);
}
TEST_F(Open, ExclusiveDoesNotFollowDanglingSymlink) {
  ASSERT_OK(symlink("nowhere", dir_.Join("l").c_str()));
  EXPECT_FAIL(Try("l", O_CREAT | O_EXCL | O_WRONLY), EEXIST);
}
TEST_F(Open, CreateThroughDanglingSymlinkMakesTarget) {
  ASSERT_OK(symlink("target", dir_.Join("l").c_str()));
  ASSERT_OK(Try("l", O_CREAT | O_WRONLY));
  EXPECT_TRUE(Exists(dir_.Join("target")));
}
TEST_F(Open, CreateInMissingDirectory) { EXPECT_FAIL(Try("no/f", O_CREAT | O_WRONLY), ENOENT); }
TEST_F(Open, CreateWithTrailingSlash) { EXPECT_FAIL(Try("f/", O_CREAT | O_WRONLY), EISDIR); }
TEST_F(Open, FileWithTrailingSlash) {
  dir_.File("f");
  EXPECT_FAIL(Try("f/", O_RDONLY), ENOTDIR);
}
TEST_F(Open, FileAsDirectoryComponent) {
  dir_.File("f");
  EXPECT_FAIL(Try("f/x", O_RDONLY), ENOTDIR);
}
TEST_F(Open, DirectoryForWriting) {
  dir_.Dir("d");
  EXPECT_FAIL(Try("d", O_WRONLY), EISDIR);
  EXPECT_FAIL(Try("d", O_RDWR), EISDIR);
}
TEST_F(Open, DirectoryReadOnlyButReadFails) {
  dir_.Dir("d");
  ASSERT_OK(Try("d", O_RDONLY));
  char c;
  EXPECT_FAIL(read(fd_.get(), &c, 1), EISDIR);
}
TEST_F(Open, DirectoryWithCreate) {
  dir_.Dir("d");
  EXPECT_FAIL(Try("d", O_RDONLY | O_CREAT), EISDIR);
}
TEST_F(Open, ODirectoryOnFile) {
  dir_.File("f");
  EXPECT_FAIL(Try("f", O_RDONLY | O_DIRECTORY), ENOTDIR);
}
TEST_F(Open, NofollowOnSymlink) {
  dir_.File("f");
  ASSERT_OK(symlink("f", dir_.Join("l").c_str()));
  EXPECT_FAIL(Try("l", O_RDONLY | O_NOFOLLOW), ELOOP);
}
TEST_F(Open, NofollowStillFollowsParents) {
  dir_.Dir("d");
  dir_.File("d/f");
  ASSERT_OK(symlink("d", dir_.Join("l").c_str()));
  EXPECT_OK(Try("l/f", O_RDONLY | O_NOFOLLOW));
}
TEST_F(Open, NofollowDirectoryOnSymlinkToDirectory) {
  dir_.Dir("d");
  ASSERT_OK(symlink("d", dir_.Join("l").c_str()));
  EXPECT_FAIL(Try("l", O_RDONLY | O_NOFOLLOW | O_DIRECTORY), ENOTDIR);
}
TEST_F(Open, SymlinkLoop) {
  ASSERT_OK(symlink("b", dir_.Join("a").c_str()));
  ASSERT_OK(symlink("a", dir_.Join("b").c_str()));
  EXPECT_FAIL(Try("a", O_RDONLY), ELOOP);
}
TEST_F(Open, FortySymlinksPassFortyOneFail) {
  dir_.File("s0");
  for (int i = 1; i <= 41; ++i) {
    ASSERT_OK(symlink(("s" + std::to_string(i - 1)).c_str(), dir_.Join("s" + std::to_string(i)).c_str()));
  }
  EXPECT_OK(Try("s40", O_RDONLY));
  EXPECT_FAIL(Try("s41", O_RDONLY), ELOOP);
}
TEST_F(Open, TruncateEmptiesFile) {
  dir_.File("f", "content");
  ASSERT_OK(Try("f", O_WRONLY | O_TRUNC));
  EXPECT_EQ(ReadFile(dir_.Join("f")), "");
}
TEST_F(Open, AppendWritesAtTheEnd) {
  dir_.File("f", "abc");
  ASSERT_OK(Try("f", O_WRONLY | O_APPEND));
  ASSERT_OK(lseek(fd_.get(), 0, SEEK_SET));
  ASSERT_EQ(write(fd_.get(), "d", 1), 1);
  EXPECT_EQ(ReadFile(dir_.Join("f")), "abcd");
  EXPECT_EQ(lseek(fd_.get(), 0, SEEK_CUR), 4);
}
TEST_F(Open, ReadOnlyRefusesWrite) {
  dir_.File("f");
  ASSERT_OK(Try("f", O_RDONLY));
  EXPECT_FAIL(write(fd_.get(), "x", 1), EBADF);
}
TEST_F(Open, WriteOnlyRefusesRead) {
  dir_.File("f", "x");
  ASSERT_OK(Try("f", O_WRONLY));
  char c;
  EXPECT_FAIL(read(fd_.get(), &c, 1), EBADF);
}
TEST_F(Open, CloexecSetsTheFlag) {
  dir_.File("f");
  ASSERT_OK(Try("f", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(fcntl(fd_.get(), F_GETFD), FD_CLOEXEC);
  ASSERT_OK(Try("f", O_RDONLY));
  EXPECT_EQ(fcntl(fd_.get(), F_GETFD), 0);
}
TEST_F(Open, GetflTellsAccessAndStatusFlags) {
  ASSERT_OK(Try("f", O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_NONBLOCK));
  const int flags = fcntl(fd_.get(), F_GETFL);
  EXPECT_EQ(flags & (O_ACCMODE | O_APPEND | O_NONBLOCK), O_RDWR | O_APPEND | O_NONBLOCK);
  EXPECT_EQ(flags & (O_CREAT | O_EXCL), 0);
}
TEST_F(Open, LowestDescriptorIsUsed) {
  const ScopedFd first(open("/dev/null", O_RDONLY));
  const int hole = dup(first.get());
  const ScopedFd after(dup(first.get()));
  close(hole);
  const ScopedFd again(open("/dev/null", O_RDONLY));
  EXPECT_EQ(again.get(), hole);
}
TEST_F(Open, UnknownFlagBitsAreIgnored) {
  dir_.File("f");
  EXPECT_OK(Try("f", O_RDONLY | 0x20000000));
}
TEST_F(Open, NameTooLong) {
  EXPECT_OK(Try(std::string(NAME_MAX, 'n'), O_CREAT | O_WRONLY));
  EXPECT_FAIL(Try(std::string(NAME_MAX + 1, 'n'), O_CREAT | O_WRONLY), ENAMETOOLONG);
}
TEST_F(Open, PathTooLong) {
  std::string path = "/";
  while (path.size() < PATH_MAX) path += "./";
  EXPECT_FAIL(open(path.c_str(), O_RDONLY), ENAMETOOLONG);
  path.resize(PATH_MAX - 1);
  fd_.Reset(open(path.c_str(), O_RDONLY));
  EXPECT_OK(fd_.get());
}
TEST_F(Open, PathAtEndOfMappedMemory) {
  Mapping two(2 * kPage);
  ASSERT_OK(mprotect(two.page(1), kPage, PROT_NONE));
  char* path = two.page(1) - 10;
  memcpy(path, "/dev/null", 10);
  fd_.Reset(open(path, O_RDONLY));
  EXPECT_OK(fd_.get());
  memcpy(path, "/dev/nulll", 10);  // no terminator before the unreadable page
  EXPECT_FAIL(open(path, O_RDONLY), EFAULT);
}
TEST_F(Open, OpenAtRelativeToDirectory) {
  dir_.File("f", "x");
  const ScopedFd at = dir_.Open();
  const ScopedFd fd(openat(at.get(), "f", O_RDONLY));
  EXPECT_OK(fd.get());
  EXPECT_FAIL(openat(at.get(), "g", O_RDONLY), ENOENT);
}
TEST_F(Open, OpenAtBadDirectory) {
  const ScopedFd file(open(dir_.File("f").c_str(), O_RDONLY));
  EXPECT_FAIL(openat(file.get(), "x", O_RDONLY), ENOTDIR);
  EXPECT_FAIL(openat(-1, "x", O_RDONLY), EBADF);
  EXPECT_FAIL(openat(12345, "x", O_RDONLY), EBADF);
}
TEST_F(Open, OpenAtAbsolutePathIgnoresDirectory) {
  const ScopedFd fd(openat(-1, "/dev/null", O_RDONLY));
  EXPECT_OK(fd.get());
}
TEST_F(Open, OPathAllowsFstatButNotRead) {
  dir_.File("f", "hello");
  ASSERT_OK(Try("f", O_PATH));
  struct stat st;
  EXPECT_OK(fstat(fd_.get(), &st));
  EXPECT_EQ(st.st_size, 5);
  char c;
  EXPECT_FAIL(read(fd_.get(), &c, 1), EBADF);
  EXPECT_FAIL(lseek(fd_.get(), 0, SEEK_SET), EBADF);
  EXPECT_FAIL(fchmod(fd_.get(), 0600), EBADF);
  EXPECT_EQ(fcntl(fd_.get(), F_GETFL) & O_PATH, O_PATH);
}
TEST_F(Open, OPathNofollowOpensTheSymlink) {
  ASSERT_OK(symlink("target", dir_.Join("l").c_str()));
  ASSERT_OK(Try("l", O_PATH | O_NOFOLLOW));
  struct stat st;
  ASSERT_OK(fstat(fd_.get(), &st));
  EXPECT_TRUE(S_ISLNK(st.st_mode));
  char target[16] = {};
  EXPECT_EQ(readlinkat(fd_.get(), "", target, sizeof target), 6);
}
TEST_F(Open, OPathReopensThroughProc) {
  dir_.File("f", "hello");
  ASSERT_OK(Try("f", O_PATH));
  EXPECT_EQ(ReadFile("/proc/self/fd/" + std::to_string(fd_.get())), "hello");
}
TEST_F(Open, OPathDirectoryServesOpenAt) {
  dir_.Dir("d");
  dir_.File("d/f");
  ASSERT_OK(Try("d", O_PATH | O_DIRECTORY));
  const ScopedFd file(openat(fd_.get(), "f", O_RDONLY));
  EXPECT_OK(file.get());
}
TEST_F(Open, SocketFileIsRefused) {
  const ScopedFd sock(socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un addr = {AF_UNIX, {}};
  strncpy(addr.sun_path, dir_.Join("s").c_str(), sizeof addr.sun_path - 1);
  ASSERT_OK(bind(sock.get(), reinterpret_cast<sockaddr*>(&addr), sizeof addr));
  EXPECT_FAIL(Try("s", O_RDWR), ENXIO);
}
TEST_F(Open, CreatIsOpenForWriting) {
  dir_.File("f", "old");
  const ScopedFd fd(creat(dir_.Join("f").c_str(), 0600));
  ASSERT_OK(fd.get());
  EXPECT_EQ(fcntl(fd.get(), F_GETFL) & O_ACCMODE, O_WRONLY);
  EXPECT_EQ(ReadFile(dir_.Join("f")), "");
}
TEST_F(Open, NoatimeNeedsOwnership) {
  const std::string path = dir_.File("f", "x");
  ASSERT_OK(chmod(dir_.path().c_str(), 0755));
  EXPECT_TRUE(PassesAsUser(1000, [&] { EXPECT_FAIL(open(path.c_str(), O_RDONLY | O_NOATIME), EPERM); }));
  EXPECT_OK(Try("f", O_RDONLY | O_NOATIME));
}
TEST_F(Open, DescriptorLimitGivesEmfile) {
  EXPECT_TRUE(PassesInChild([] {
    const rlimit limit = {16, 16};
    ASSERT_OK(setrlimit(RLIMIT_NOFILE, &limit));
    int fd, last = -1;
    while ((fd = open("/dev/null", O_RDONLY)) >= 0) last = fd;
    EXPECT_EQ(errno, EMFILE);
    EXPECT_EQ(last, 15);
  }));
}

class Tmpfile : public Open {};
TEST_F(Tmpfile, HasNoNameAndNoLinks) {
  ASSERT_OK(Try(".", O_TMPFILE | O_RDWR, 0600));
  struct stat st;
  ASSERT_OK(fstat(fd_.get(), &st));
  EXPECT_EQ(st.st_nlink, 0u);
  EXPECT_EQ(write(fd_.get(), "x", 1), 1);
  EXPECT_TRUE(List(dir_.path()).empty());
}
TEST_F(Tmpfile, NeedsWriteAccess) { EXPECT_FAIL(Try(".", O_TMPFILE | O_RDONLY), EINVAL); }
TEST_F(Tmpfile, OnFileFails) {
  dir_.File("f");
  EXPECT_FAIL(Try("f", O_TMPFILE | O_RDWR), ENOTDIR);
}
TEST_F(Tmpfile, LinkatThroughProcGivesItAName) {
  ASSERT_OK(Try(".", O_TMPFILE | O_RDWR));
  ASSERT_EQ(write(fd_.get(), "x", 1), 1);
  const std::string proc = "/proc/self/fd/" + std::to_string(fd_.get());
  ASSERT_OK(linkat(AT_FDCWD, proc.c_str(), AT_FDCWD, dir_.Join("named").c_str(), AT_SYMLINK_FOLLOW));
  EXPECT_EQ(ReadFile(dir_.Join("named")), "x");
}
TEST_F(Tmpfile, LinkatEmptyPathGivesItAName) {
  ASSERT_OK(Try(".", O_TMPFILE | O_RDWR));
  ASSERT_OK(linkat(fd_.get(), "", AT_FDCWD, dir_.Join("named").c_str(), AT_EMPTY_PATH));
  EXPECT_TRUE(Exists(dir_.Join("named")));
}
TEST_F(Tmpfile, ExclusiveForbidsLinkat) {
  ASSERT_OK(Try(".", O_TMPFILE | O_RDWR | O_EXCL));
  EXPECT_FAIL(linkat(fd_.get(), "", AT_FDCWD, dir_.Join("named").c_str(), AT_EMPTY_PATH), ENOENT);
}

}  // namespace
}  // namespace moat::guest
