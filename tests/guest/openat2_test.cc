// openat2(2): resolve flags, argument checks.
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

// root/{file,dir/{inner},up->..,abs->/dev/null,same->file,inside->dir/inner,out->../outside}, outside
class OpenAt2Test : public testing::Test {
 protected:
  void SetUp() override {
    dir_.File("outside");
    dir_.Dir("root");
    dir_.File("root/file", "f");
    dir_.Dir("root/dir");
    dir_.File("root/dir/inner", "i");
    for (auto [target, name] : std::initializer_list<std::pair<const char*, const char*>>{{"..", "up"},
                                                                                          {"/dev/null", "abs"},
                                                                                          {"/file", "absfile"},
                                                                                          {"file", "same"},
                                                                                          {"dir/inner", "inside"},
                                                                                          {"../outside", "out"}}) {
      ASSERT_OK(symlink(target, dir_.Join("root/" + std::string(name)).c_str()));
    }
    root_.Reset(open(dir_.Join("root").c_str(), O_PATH | O_DIRECTORY));
    ASSERT_OK(root_.get());
  }
  int Try(const char* path, uint64_t resolve, uint64_t flags = O_RDONLY, uint64_t mode = 0) {
    fd_.Reset(OpenAt2(root_.get(), path, flags, resolve, mode));
    return fd_.get();
  }
  TempDir dir_;
  ScopedFd root_, fd_;
};

struct ResolveCase {
  const char* name;
  const char* path;
  uint64_t resolve;
  int error;  // 0: opens
};
class Resolve : public OpenAt2Test, public testing::WithParamInterface<ResolveCase> {};
TEST_P(Resolve, Path) {
  const ResolveCase& c = GetParam();
  if (c.error == 0) {
    EXPECT_OK(Try(c.path, c.resolve));
  } else {
    EXPECT_FAIL(Try(c.path, c.resolve), c.error);
  }
}
INSTANTIATE_TEST_SUITE_P(
    , Resolve,
    testing::Values(ResolveCase{"PlainFile", "file", 0, 0}, ResolveCase{"PlainDotDot", "../outside", 0, 0},
                    ResolveCase{"BeneathFile", "file", RESOLVE_BENEATH, 0},
                    ResolveCase{"BeneathDotDotInside", "dir/../file", RESOLVE_BENEATH, 0},
                    ResolveCase{"BeneathDotDotOut", "../outside", RESOLVE_BENEATH, EXDEV},
                    ResolveCase{"BeneathDotDotOutAndBack", "../root/file", RESOLVE_BENEATH, EXDEV},
                    ResolveCase{"BeneathAbsolutePath", "/dev/null", RESOLVE_BENEATH, EXDEV},
                    ResolveCase{"BeneathSymlinkInside", "inside", RESOLVE_BENEATH, 0},
                    ResolveCase{"BeneathSymlinkUp", "up/outside", RESOLVE_BENEATH, EXDEV},
                    ResolveCase{"BeneathSymlinkAbsolute", "abs", RESOLVE_BENEATH, EXDEV},
                    ResolveCase{"BeneathSymlinkOut", "out", RESOLVE_BENEATH, EXDEV},
                    ResolveCase{"InRootDotDotStaysAtRoot", "../file", RESOLVE_IN_ROOT, 0},
                    ResolveCase{"InRootAbsolute", "/file", RESOLVE_IN_ROOT, 0},
                    ResolveCase{"InRootAbsoluteSymlink", "absfile", RESOLVE_IN_ROOT, 0},
                    ResolveCase{"InRootAbsoluteSymlinkMissing", "abs", RESOLVE_IN_ROOT, ENOENT},
                    ResolveCase{"InRootOutIsMissing", "out", RESOLVE_IN_ROOT, ENOENT},
                    ResolveCase{"NoSymlinksFile", "file", RESOLVE_NO_SYMLINKS, 0},
                    ResolveCase{"NoSymlinksLast", "same", RESOLVE_NO_SYMLINKS, ELOOP},
                    ResolveCase{"NoSymlinksMiddle", "up/outside", RESOLVE_NO_SYMLINKS, ELOOP},
                    ResolveCase{"NoMagiclinksSymlinkIsFine", "same", RESOLVE_NO_MAGICLINKS, 0},
                    ResolveCase{"NoMagiclinksProcFd", "/proc/self/fd/0", RESOLVE_NO_MAGICLINKS, ELOOP},
                    ResolveCase{"NoMagiclinksProcCwd", "/proc/self/cwd/.", RESOLVE_NO_MAGICLINKS, ELOOP},
                    ResolveCase{"NoXdevProc", "/proc/self/status", RESOLVE_NO_XDEV, EXDEV},
                    ResolveCase{"NoXdevSame", "dir/inner", RESOLVE_NO_XDEV, 0},
                    ResolveCase{"BeneathAndInRoot", "file", RESOLVE_BENEATH | RESOLVE_IN_ROOT, EINVAL},
                    ResolveCase{"UnknownResolve", "file", 0x80, EINVAL}),
    [](const auto& info) { return info.param.name; });

TEST_F(OpenAt2Test, NoSymlinksWithPathNofollowOpensLink) {
  EXPECT_OK(Try("same", RESOLVE_NO_SYMLINKS, O_PATH | O_NOFOLLOW));
}
TEST_F(OpenAt2Test, UnknownFlagIsRefused) { EXPECT_FAIL(Try("file", 0, O_RDONLY | (1ull << 40)), EINVAL); }
TEST_F(OpenAt2Test, ModeWithoutCreateIsRefused) { EXPECT_FAIL(Try("file", 0, O_RDONLY, 0600), EINVAL); }
TEST_F(OpenAt2Test, ModeBeyondPermissionBitsIsRefused) {
  EXPECT_FAIL(Try("new", 0, O_CREAT | O_RDWR, 0200000), EINVAL);
}
TEST_F(OpenAt2Test, PathWithOtherFlagsIsRefused) { EXPECT_FAIL(Try("file", 0, O_PATH | O_RDWR), EINVAL); }
TEST_F(OpenAt2Test, CreateBeneath) {
  ASSERT_OK(Try("dir/new", RESOLVE_BENEATH, O_CREAT | O_EXCL | O_RDWR, 0640));
  struct stat st;
  ASSERT_OK(fstat(fd_.get(), &st));
  EXPECT_TRUE(S_ISREG(st.st_mode));
}
TEST_F(OpenAt2Test, StructSizes) {
  struct {
    open_how how = {O_RDONLY, 0, 0};
    uint64_t more = 0;
  } big;
  EXPECT_FAIL(syscall(SYS_openat2, root_.get(), "file", &big, size_t{16}), EINVAL);
  ScopedFd fd(static_cast<int>(syscall(SYS_openat2, root_.get(), "file", &big, sizeof big)));
  EXPECT_OK(fd.get());
  big.more = 1;
  EXPECT_FAIL(syscall(SYS_openat2, root_.get(), "file", &big, sizeof big), E2BIG);
}
TEST_F(OpenAt2Test, BadStructPointer) {
  EXPECT_FAIL(syscall(SYS_openat2, root_.get(), "file", BadPointer(), sizeof(open_how)), EFAULT);
}
TEST_F(OpenAt2Test, CachedMayGiveEagainButNeverWrong) {
  const int fd = Try("file", RESOLVE_CACHED);
  if (fd == -1) {
    EXPECT_EQ(errno, EAGAIN);
  } else {
    EXPECT_EQ(ReadAll(fd), "f");
  }
}

}  // namespace
}  // namespace moat::guest
