// rename(2), renameat2(2).
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

// f ("f"), g ("g"), d/, d/in, empty/, l -> f
class Rename : public testing::Test {
 protected:
  void SetUp() override {
    dir_.File("f", "f");
    dir_.File("g", "g");
    dir_.Dir("d");
    dir_.File("d/in", "in");
    dir_.Dir("empty");
    ASSERT_OK(symlink("f", At("l").c_str()));
  }
  std::string At(std::string_view name) const { return dir_.Join(name); }
  int Move(const char* from, const char* to, unsigned flags = 0) {
    return renameat2(AT_FDCWD, At(from).c_str(), AT_FDCWD, At(to).c_str(), flags);
  }
  ino_t Inode(const char* name) {
    struct stat st;
    EXPECT_OK(lstat(At(name).c_str(), &st)) << name;
    return st.st_ino;
  }
  TempDir dir_;
};

TEST_F(Rename, ToNewName) {
  const ino_t inode = Inode("f");
  ASSERT_OK(Move("f", "new"));
  EXPECT_FALSE(Exists(At("f")));
  EXPECT_EQ(Inode("new"), inode);
}
TEST_F(Rename, ReplacesFile) {
  ASSERT_OK(Move("f", "g"));
  EXPECT_EQ(ReadFile(At("g")), "f");
  EXPECT_FALSE(Exists(At("f")));
}
TEST_F(Rename, ReplacedFileStaysOpen) {
  const ScopedFd fd(open(At("g").c_str(), O_RDONLY));
  ASSERT_OK(Move("f", "g"));
  EXPECT_EQ(ReadAll(fd.get()), "g");
}
TEST_F(Rename, IntoDirectory) {
  ASSERT_OK(Move("f", "d/f"));
  EXPECT_EQ(ReadFile(At("d/f")), "f");
}
TEST_F(Rename, SameNameIsNothing) { EXPECT_OK(Move("f", "f")); }
TEST_F(Rename, HardLinksOfOneFileBothStay) {
  ASSERT_OK(link(At("f").c_str(), At("h").c_str()));
  ASSERT_OK(Move("f", "h"));
  EXPECT_TRUE(Exists(At("f")));
  EXPECT_TRUE(Exists(At("h")));
}
TEST_F(Rename, DirectoryMovesWithItsContents) {
  ASSERT_OK(Move("d", "e"));
  EXPECT_EQ(ReadFile(At("e/in")), "in");
}
TEST_F(Rename, DirectoryOverEmptyDirectory) {
  ASSERT_OK(Move("d", "empty"));
  EXPECT_EQ(ReadFile(At("empty/in")), "in");
}
TEST_F(Rename, DirectoryUpdatesParentLinkCounts) {
  dir_.Dir("d/sub");
  struct stat st;
  ASSERT_OK(Move("d/sub", "empty/sub"));
  ASSERT_OK(stat(At("d").c_str(), &st));
  EXPECT_EQ(st.st_nlink, 2u);
  ASSERT_OK(stat(At("empty").c_str(), &st));
  EXPECT_EQ(st.st_nlink, 3u);
}
TEST_F(Rename, DotDotFollowsTheMove) {
  dir_.Dir("d/sub");
  const ScopedFd sub(open(At("d/sub").c_str(), O_RDONLY | O_DIRECTORY));
  ASSERT_OK(Move("d/sub", "empty/sub"));
  struct stat up;
  ASSERT_OK(fstatat(sub.get(), "..", &up, 0));
  EXPECT_EQ(up.st_ino, Inode("empty"));
}
TEST_F(Rename, SymlinkItselfMoves) {
  ASSERT_OK(Move("l", "m"));
  struct stat st;
  ASSERT_OK(lstat(At("m").c_str(), &st));
  EXPECT_TRUE(S_ISLNK(st.st_mode));
}
TEST_F(Rename, OverSymlinkReplacesTheLink) {
  ASSERT_OK(Move("g", "l"));
  EXPECT_EQ(ReadFile(At("f")), "f");
  EXPECT_EQ(ReadFile(At("l")), "g");
}

struct FailCase {
  const char* name;
  const char* from;
  const char* to;
  unsigned flags;
  int error;
};
class RenameFails : public Rename, public testing::WithParamInterface<FailCase> {};
TEST_P(RenameFails, AndNothingChanges) {
  const FailCase& c = GetParam();
  const auto before = List(dir_.path());
  EXPECT_FAIL(Move(c.from, c.to, c.flags), c.error);
  EXPECT_EQ(List(dir_.path()), before);
}
INSTANTIATE_TEST_SUITE_P(
    , RenameFails,
    testing::Values(
        FailCase{"MissingSource", "no", "x", 0, ENOENT}, FailCase{"MissingParent", "f", "no/x", 0, ENOENT},
        FailCase{"FileOverDirectory", "f", "empty", 0, EISDIR}, FailCase{"DirectoryOverFile", "d", "f", 0, ENOTDIR},
        FailCase{"DirectoryOverFull", "empty", "d", 0, ENOTEMPTY}, FailCase{"IntoItself", "d", "d/x", 0, EINVAL},
        FailCase{"AncestorOver", "d/in", "d", 0, ENOTEMPTY}, FailCase{"SourceDot", "d/.", "x", 0, EBUSY},
        FailCase{"TargetDotDot", "f", "d/..", 0, EBUSY}, FailCase{"FileTrailingSlash", "f/", "x", 0, ENOTDIR},
        FailCase{"NewNameTrailingSlash", "f", "x/", 0, ENOTDIR}, FailCase{"ThroughFile", "f", "g/x", 0, ENOTDIR},
        FailCase{"NoReplaceExisting", "f", "g", RENAME_NOREPLACE, EEXIST},
        FailCase{"NoReplaceItself", "f", "f", RENAME_NOREPLACE, EEXIST},
        FailCase{"ExchangeMissing", "f", "no", RENAME_EXCHANGE, ENOENT},
        FailCase{"ExchangeIntoItself", "d", "d/in", RENAME_EXCHANGE, EINVAL},
        FailCase{"ExchangeAndNoReplace", "f", "g", RENAME_EXCHANGE | RENAME_NOREPLACE, EINVAL},
        FailCase{"UnknownFlag", "f", "g", 0x100, EINVAL}),
    [](const auto& info) { return info.param.name; });

TEST_F(Rename, AcrossFilesystems) { EXPECT_FAIL(rename(At("f").c_str(), "/proc/x"), EXDEV); }
TEST_F(Rename, BadPointer) {
  EXPECT_FAIL(rename(BadPointer(), At("f").c_str()), EFAULT);
  EXPECT_FAIL(rename(At("f").c_str(), BadPointer()), EFAULT);
}
TEST_F(Rename, NoReplaceToFreeName) {
  EXPECT_OK(Move("f", "x", RENAME_NOREPLACE));
  EXPECT_EQ(ReadFile(At("x")), "f");
}
TEST_F(Rename, ExchangeFiles) {
  ASSERT_OK(Move("f", "g", RENAME_EXCHANGE));
  EXPECT_EQ(ReadFile(At("f")), "g");
  EXPECT_EQ(ReadFile(At("g")), "f");
}
TEST_F(Rename, ExchangeFileAndFullDirectory) {
  ASSERT_OK(Move("f", "d", RENAME_EXCHANGE));
  EXPECT_EQ(ReadFile(At("d")), "f");
  EXPECT_EQ(ReadFile(At("f/in")), "in");
}
TEST_F(Rename, RelativeToDescriptors) {
  const ScopedFd at = dir_.Open();
  const ScopedFd d(open(At("d").c_str(), O_PATH));
  ASSERT_OK(renameat(at.get(), "f", d.get(), "moved"));
  EXPECT_EQ(ReadFile(At("d/moved")), "f");
}
TEST_F(Rename, StickyDirectoryProtectsForeignFiles) {
  ASSERT_OK(chmod(dir_.path().c_str(), 01777));
  EXPECT_TRUE(PassesAsUser(1000, [&] {
    EXPECT_FAIL(Move("f", "mine"), EPERM);
    const ScopedFd own(open(At("own").c_str(), O_CREAT | O_WRONLY, 0600));
    EXPECT_OK(own.get());
    EXPECT_OK(Move("own", "own2"));
    EXPECT_FAIL(Move("own2", "f"), EPERM);
  }));
}
TEST_F(Rename, NeedsWriteOnBothDirectories) {
  ASSERT_OK(chmod(dir_.path().c_str(), 0777));
  EXPECT_TRUE(PassesAsUser(1000, [&] {
    EXPECT_FAIL(Move("d/in", "x"), EACCES);
    EXPECT_FAIL(Move("f", "d/f"), EACCES);
    EXPECT_OK(Move("f", "f2"));
  }));
}

}  // namespace
}  // namespace moat::guest
