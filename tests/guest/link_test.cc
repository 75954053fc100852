// link(2), unlink(2), symlink(2), readlink(2), mknod(2).
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

class Link : public testing::Test {
 protected:
  void SetUp() override {
    dir_.File("f", "data");
    dir_.Dir("d");
    ASSERT_OK(symlink("f", At("l").c_str()));
  }
  std::string At(std::string_view name) const { return dir_.Join(name); }
  int MakeLink(const char* from, const char* to) { return link(At(from).c_str(), At(to).c_str()); }
  nlink_t Links(const char* name) {
    struct stat st;
    EXPECT_OK(lstat(At(name).c_str(), &st));
    return st.st_nlink;
  }
  TempDir dir_;
};

TEST_F(Link, HardLinkSharesTheInode) {
  ASSERT_OK(MakeLink("f", "g"));
  EXPECT_EQ(Links("f"), 2u);
  ASSERT_OK(truncate(At("g").c_str(), 2));
  EXPECT_EQ(ReadFile(At("f")), "da");
}
TEST_F(Link, UnlinkDropsTheCount) {
  ASSERT_OK(MakeLink("f", "g"));
  ASSERT_OK(unlink(At("f").c_str()));
  EXPECT_EQ(Links("g"), 1u);
  EXPECT_EQ(ReadFile(At("g")), "data");
}
TEST_F(Link, OpenFileOutlivesItsName) {
  const ScopedFd fd(open(At("f").c_str(), O_RDONLY));
  ASSERT_OK(unlink(At("f").c_str()));
  EXPECT_EQ(ReadAll(fd.get()), "data");
  struct stat st;
  ASSERT_OK(fstat(fd.get(), &st));
  EXPECT_EQ(st.st_nlink, 0u);
}
TEST_F(Link, DeletedFileShowsInProc) {
  const ScopedFd fd(open(At("f").c_str(), O_RDONLY));
  ASSERT_OK(unlink(At("f").c_str()));
  char target[512];
  const ssize_t n = readlink(("/proc/self/fd/" + std::to_string(fd.get())).c_str(), target, sizeof target);
  ASSERT_OK(n);
  EXPECT_EQ(std::string(target, n), At("f") + " (deleted)");
}
TEST_F(Link, Errors) {
  EXPECT_FAIL(MakeLink("no", "g"), ENOENT);
  EXPECT_FAIL(MakeLink("f", "d"), EEXIST);
  EXPECT_FAIL(MakeLink("f", "no/g"), ENOENT);
  EXPECT_FAIL(MakeLink("d", "e"), EPERM);
  EXPECT_FAIL(MakeLink("f", "f/g"), ENOTDIR);
  EXPECT_FAIL(link("/proc/self/status", At("g").c_str()), EXDEV);
}
TEST_F(Link, LinkDoesNotFollowSymlinkByDefault) {
  ASSERT_OK(MakeLink("l", "l2"));
  struct stat st;
  ASSERT_OK(lstat(At("l2").c_str(), &st));
  EXPECT_TRUE(S_ISLNK(st.st_mode));
  EXPECT_EQ(Links("l"), 2u);
}
TEST_F(Link, LinkatFollow) {
  ASSERT_OK(linkat(AT_FDCWD, At("l").c_str(), AT_FDCWD, At("g").c_str(), AT_SYMLINK_FOLLOW));
  EXPECT_EQ(Links("f"), 2u);
  EXPECT_FAIL(linkat(AT_FDCWD, At("f").c_str(), AT_FDCWD, At("h").c_str(), 0x1), EINVAL);
}
TEST_F(Link, LinkatEmptyPathNeedsTheFlag) {
  const ScopedFd fd(open(At("f").c_str(), O_RDONLY));
  EXPECT_FAIL(linkat(fd.get(), "", AT_FDCWD, At("g").c_str(), 0), ENOENT);
  EXPECT_OK(linkat(fd.get(), "", AT_FDCWD, At("g").c_str(), AT_EMPTY_PATH));
}

TEST_F(Link, UnlinkErrors) {
  EXPECT_FAIL(unlink(At("no").c_str()), ENOENT);
  EXPECT_FAIL(unlink(At("d").c_str()), EISDIR);
  EXPECT_FAIL(unlink(At("f/").c_str()), ENOTDIR);
  EXPECT_FAIL(unlink(""), ENOENT);
  EXPECT_FAIL(unlink(BadPointer()), EFAULT);
  EXPECT_FAIL(unlink("/proc/self/status"), EPERM);
  EXPECT_FAIL(unlinkat(AT_FDCWD, At("f").c_str(), 0x1), EINVAL);
}
TEST_F(Link, UnlinkRemovesSymlinkNotTarget) {
  ASSERT_OK(unlink(At("l").c_str()));
  EXPECT_TRUE(Exists(At("f")));
}
TEST_F(Link, UnlinkatRemovedir) {
  const ScopedFd at = dir_.Open();
  EXPECT_FAIL(unlinkat(at.get(), "d", 0), EISDIR);
  EXPECT_FAIL(unlinkat(at.get(), "f", AT_REMOVEDIR), ENOTDIR);
  EXPECT_OK(unlinkat(at.get(), "d", AT_REMOVEDIR));
  EXPECT_FALSE(Exists(At("d")));
}

TEST_F(Link, ReadlinkGivesTargetWithoutTerminator) {
  char b[8] = "zzzzzzz";
  EXPECT_EQ(readlink(At("l").c_str(), b, sizeof b), 1);
  EXPECT_EQ(b[0], 'f');
  EXPECT_EQ(b[1], 'z');
}
TEST_F(Link, ReadlinkTruncates) {
  ASSERT_OK(symlink("longer-target", At("m").c_str()));
  char b[4];
  EXPECT_EQ(readlink(At("m").c_str(), b, sizeof b), 4);
  EXPECT_EQ(std::string(b, 4), "long");
}
TEST_F(Link, ReadlinkErrors) {
  char b[8];
  EXPECT_FAIL(readlink(At("f").c_str(), b, sizeof b), EINVAL);
  EXPECT_FAIL(readlink(At("d").c_str(), b, sizeof b), EINVAL);
  EXPECT_FAIL(readlink(At("no").c_str(), b, sizeof b), ENOENT);
  EXPECT_FAIL(readlink(At("l").c_str(), b, 0), EINVAL);
  EXPECT_FAIL(readlink(At("l").c_str(), BadPointer(), 8), EFAULT);
}
TEST_F(Link, SymlinkErrors) {
  EXPECT_FAIL(symlink("x", At("f").c_str()), EEXIST);
  EXPECT_FAIL(symlink("", At("n").c_str()), ENOENT);
  EXPECT_FAIL(symlink("x", At("no/n").c_str()), ENOENT);
  EXPECT_FAIL(symlink("x", ""), ENOENT);
  EXPECT_FAIL(symlink(std::string(4096, 'x').c_str(), At("n").c_str()), ENAMETOOLONG);
}
TEST_F(Link, LongestSymlinkTarget) {
  const std::string target(4095, 'x');
  ASSERT_OK(symlink(target.c_str(), At("n").c_str()));
  std::string b(5000, '\0');
  EXPECT_EQ(readlink(At("n").c_str(), b.data(), b.size()), 4095);
}
TEST_F(Link, SymlinkAtDirectory) {
  const ScopedFd at = dir_.Open();
  ASSERT_OK(symlinkat("f", at.get(), "rel"));
  char b[4];
  EXPECT_EQ(readlinkat(at.get(), "rel", b, 4), 1);
}
TEST_F(Link, RelativeSymlinkIsRelativeToItsDirectory) {
  ASSERT_OK(symlink("../f", At("d/up").c_str()));
  EXPECT_EQ(ReadFile(At("d/up")), "data");
}

struct NodeCase {
  const char* name;
  mode_t type;
};
class Mknod : public Link, public testing::WithParamInterface<NodeCase> {};
TEST_P(Mknod, MakesTheType) {
  ASSERT_OK(mknod(At("n").c_str(), GetParam().type | 0600, 0));
  struct stat st;
  ASSERT_OK(lstat(At("n").c_str(), &st));
  EXPECT_EQ(st.st_mode & S_IFMT, GetParam().type == 0 ? S_IFREG : GetParam().type);
  EXPECT_FAIL(mknod(At("n").c_str(), GetParam().type | 0600, 0), EEXIST);
}
INSTANTIATE_TEST_SUITE_P(, Mknod,
                         testing::Values(NodeCase{"Regular", S_IFREG}, NodeCase{"NoType", 0}, NodeCase{"Fifo", S_IFIFO},
                                         NodeCase{"Socket", S_IFSOCK}),
                         [](const auto& info) { return info.param.name; });
TEST_F(Link, MknodErrors) {
  EXPECT_FAIL(mknod(At("n").c_str(), S_IFDIR | 0700, 0), EPERM);
  EXPECT_FAIL(mknod(At("n").c_str(), S_IFLNK | 0700, 0), EINVAL);
  EXPECT_FAIL(mknod(At("no/n").c_str(), S_IFREG, 0), ENOENT);
  ASSERT_OK(chmod(dir_.path().c_str(), 0777));
  EXPECT_TRUE(PassesAsUser(1000, [&] { EXPECT_FAIL(mknod(At("n").c_str(), S_IFCHR | 0600, makedev(1, 3)), EPERM); }));
}

}  // namespace
}  // namespace moat::guest
