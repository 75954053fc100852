// setxattr(2), getxattr(2), listxattr(2), removexattr(2) on the temporary file system.
#include <fcntl.h>
#include <linux/limits.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <set>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

class Xattr : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(chmod(dir_.path().c_str(), 0755));
    path_ = dir_.File("f");
    ASSERT_OK(symlink("f", dir_.Join("l").c_str()));
  }
  int Set(const char* name, const std::string& value, int flags = 0) {
    return setxattr(path_.c_str(), name, value.data(), value.size(), flags);
  }
  std::string Get(const char* name) {
    char b[256];
    const ssize_t n = getxattr(path_.c_str(), name, b, sizeof b);
    EXPECT_OK(n) << name;
    return std::string(b, n > 0 ? n : 0);
  }
  static std::set<std::string> Names(const std::string& path) {
    char b[4096];
    const ssize_t n = listxattr(path.c_str(), b, sizeof b);
    EXPECT_OK(n);
    std::set<std::string> names;
    for (ssize_t at = 0; at < n; at += names.emplace(b + at).first->size() + 1) {
    }
    return names;
  }
  TempDir dir_;
  std::string path_;
};

TEST_F(Xattr, SetAndGet) {
  ASSERT_OK(Set("user.a", "value"));
  EXPECT_EQ(Get("user.a"), "value");
}
TEST_F(Xattr, EmptyValue) {
  ASSERT_OK(Set("user.a", ""));
  EXPECT_EQ(getxattr(path_.c_str(), "user.a", nullptr, 0), 0);
}
TEST_F(Xattr, BinaryValue) {
  const std::string value("\0\1\xff\0", 4);
  ASSERT_OK(Set("user.a", value));
  EXPECT_EQ(Get("user.a"), value);
}
TEST_F(Xattr, ReplaceChangesLength) {
  ASSERT_OK(Set("user.a", "a long value"));
  ASSERT_OK(Set("user.a", "x"));
  EXPECT_EQ(Get("user.a"), "x");
}
TEST_F(Xattr, CreateFlag) {
  ASSERT_OK(Set("user.a", "1", XATTR_CREATE));
  EXPECT_FAIL(Set("user.a", "2", XATTR_CREATE), EEXIST);
  EXPECT_EQ(Get("user.a"), "1");
}
TEST_F(Xattr, ReplaceFlag) {
  EXPECT_FAIL(Set("user.a", "1", XATTR_REPLACE), ENODATA);
  ASSERT_OK(Set("user.a", "1"));
  EXPECT_OK(Set("user.a", "2", XATTR_REPLACE));
}
TEST_F(Xattr, UnknownFlag) { EXPECT_FAIL(Set("user.a", "1", 0x10), EINVAL); }
TEST_F(Xattr, MissingAttribute) {
  EXPECT_FAIL(getxattr(path_.c_str(), "user.none", nullptr, 0), ENODATA);
  EXPECT_FAIL(removexattr(path_.c_str(), "user.none"), ENODATA);
}
TEST_F(Xattr, SizeQueryAndSmallBuffer) {
  ASSERT_OK(Set("user.a", "12345"));
  EXPECT_EQ(getxattr(path_.c_str(), "user.a", nullptr, 0), 5);
  char b[4];
  EXPECT_FAIL(getxattr(path_.c_str(), "user.a", b, 4), ERANGE);
}
TEST_F(Xattr, ListNamesEveryAttribute) {
  ASSERT_OK(Set("user.a", "1"));
  ASSERT_OK(Set("user.b", "2"));
  const auto names = Names(path_);
  EXPECT_TRUE(names.count("user.a"));
  EXPECT_TRUE(names.count("user.b"));
}
TEST_F(Xattr, ListSizeAndSmallBuffer) {
  ASSERT_OK(Set("user.attribute", "1"));
  EXPECT_GE(listxattr(path_.c_str(), nullptr, 0), 15);
  char b[3];
  EXPECT_FAIL(listxattr(path_.c_str(), b, sizeof b), ERANGE);
}
TEST_F(Xattr, Remove) {
  ASSERT_OK(Set("user.a", "1"));
  ASSERT_OK(removexattr(path_.c_str(), "user.a"));
  EXPECT_FALSE(Names(path_).count("user.a"));
}
TEST_F(Xattr, NameErrors) {
  EXPECT_FAIL(Set("", "1"), ERANGE);
  EXPECT_FAIL(Set(("user." + std::string(XATTR_NAME_MAX, 'n')).c_str(), "1"), ERANGE);
  EXPECT_FAIL(Set("noprefix", "1"), EOPNOTSUPP);
  EXPECT_FAIL(Set("user.", "1"), EINVAL);
}
TEST_F(Xattr, LongestName) {
  const std::string name = "user." + std::string(XATTR_NAME_MAX - 5, 'n');
  EXPECT_OK(Set(name.c_str(), "1"));
}
TEST_F(Xattr, TooLargeValue) {
  const std::string value(XATTR_SIZE_MAX + 1, 'v');
  EXPECT_FAIL(Set("user.a", value), E2BIG);
}
TEST_F(Xattr, BadPointers) {
  EXPECT_FAIL(setxattr(path_.c_str(), BadPointer(), "1", 1, 0), EFAULT);
  EXPECT_FAIL(setxattr(path_.c_str(), "user.a", BadPointer(), 1, 0), EFAULT);
  ASSERT_OK(Set("user.a", "1"));
  EXPECT_FAIL(getxattr(path_.c_str(), "user.a", BadPointer(), 1), EFAULT);
}
TEST_F(Xattr, FollowsSymlinks) {
  ASSERT_OK(setxattr(dir_.Join("l").c_str(), "user.a", "1", 1, 0));
  EXPECT_EQ(Get("user.a"), "1");
}
TEST_F(Xattr, UserNamespaceIsNotForSymlinks) {
  EXPECT_FAIL(lsetxattr(dir_.Join("l").c_str(), "user.a", "1", 1, 0), EPERM);
  EXPECT_FAIL(lgetxattr(dir_.Join("l").c_str(), "user.a", nullptr, 0), ENODATA);
}
TEST_F(Xattr, TrustedOnSymlink) {
  ASSERT_OK(lsetxattr(dir_.Join("l").c_str(), "trusted.a", "1", 1, 0));
  EXPECT_EQ(lgetxattr(dir_.Join("l").c_str(), "trusted.a", nullptr, 0), 1);
  EXPECT_FAIL(getxattr(path_.c_str(), "trusted.a", nullptr, 0), ENODATA);
}
TEST_F(Xattr, TrustedIsHiddenFromUsers) {
  ASSERT_OK(Set("trusted.a", "1"));
  EXPECT_TRUE(Names(path_).count("trusted.a"));
  EXPECT_TRUE(PassesAsUser(1000, [&] {
    EXPECT_FAIL(getxattr(path_.c_str(), "trusted.a", nullptr, 0), ENODATA);
    EXPECT_FAIL(Set("trusted.b", "1"), EPERM);
    EXPECT_FALSE(Names(path_).count("trusted.a"));
  }));
}
TEST_F(Xattr, UserNeedsFilePermission) {
  ASSERT_OK(Set("user.a", "1"));
  EXPECT_TRUE(PassesAsUser(1000, [&] {
    EXPECT_EQ(Get("user.a"), "1");
    EXPECT_FAIL(Set("user.b", "1"), EACCES);
  }));
  ASSERT_OK(chmod(path_.c_str(), 0600));
  EXPECT_TRUE(PassesAsUser(1000, [&] { EXPECT_FAIL(getxattr(path_.c_str(), "user.a", nullptr, 0), EACCES); }));
}
TEST_F(Xattr, DescriptorVariants) {
  const ScopedFd fd(open(path_.c_str(), O_RDONLY));
  ASSERT_OK(fsetxattr(fd.get(), "user.a", "xyz", 3, 0));
  char b[8];
  EXPECT_EQ(fgetxattr(fd.get(), "user.a", b, sizeof b), 3);
  EXPECT_GT(flistxattr(fd.get(), nullptr, 0), 0);
  EXPECT_OK(fremovexattr(fd.get(), "user.a"));
  EXPECT_FAIL(fgetxattr(fd.get(), "user.a", b, sizeof b), ENODATA);
  EXPECT_FAIL(fsetxattr(-1, "user.a", "x", 1, 0), EBADF);
  const ScopedFd path_fd(open(path_.c_str(), O_PATH));
  EXPECT_FAIL(fsetxattr(path_fd.get(), "user.a", "x", 1, 0), EBADF);
}
TEST_F(Xattr, OnDirectory) {
  ASSERT_OK(setxattr(dir_.path().c_str(), "user.d", "1", 1, 0));
  EXPECT_EQ(getxattr(dir_.path().c_str(), "user.d", nullptr, 0), 1);
}
TEST_F(Xattr, NotOnFifo) {
  ASSERT_OK(mkfifo(dir_.Join("p").c_str(), 0600));
  EXPECT_FAIL(setxattr(dir_.Join("p").c_str(), "user.a", "1", 1, 0), EPERM);
}
TEST_F(Xattr, HardLinkSharesThem) {
  ASSERT_OK(Set("user.a", "1"));
  ASSERT_OK(link(path_.c_str(), dir_.Join("g").c_str()));
  EXPECT_EQ(getxattr(dir_.Join("g").c_str(), "user.a", nullptr, 0), 1);
}
TEST_F(Xattr, FileCapabilitiesMustBeWellFormed) { EXPECT_FAIL(Set("security.capability", "junk"), EINVAL); }

}  // namespace
}  // namespace moat::guest
