// The mount calls on descriptors: fsopen(2), fsconfig(2), fsmount(2), move_mount(2), open_tree(2), mount_setattr(2).
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <string>

#include "tests/guest/support/child.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

struct MountAttributes {  // struct mount_attr
  uint64_t set, clear, propagation, userns_fd;
};

class MountApi : public testing::Test {
 protected:
  std::string At(const std::string& name) const { return dir_.path() + "/" + name; }
  // In a mount namespace of its own, so that nothing stays behind.
  testing::AssertionResult Passes(const std::function<void()>& body) {
    return PassesInChild([&] {
      ASSERT_OK(unshare(CLONE_NEWNS));
      body();
    });
  }
  // A new tmpfs of `size`, mounted nowhere yet.
  static int NewTmpfs(const char* size) {
    const ScopedFd fs(static_cast<int>(syscall(SYS_fsopen, "tmpfs", 0)));
    EXPECT_OK(fs.get());
    EXPECT_OK(syscall(SYS_fsconfig, fs.get(), FSCONFIG_SET_STRING, "size", size, 0));
    EXPECT_OK(syscall(SYS_fsconfig, fs.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0));
    return static_cast<int>(syscall(SYS_fsmount, fs.get(), 0, 0));
  }
  TempDir dir_;
};

TEST_F(MountApi, NewFileSystemIsMovedIntoPlace) {
  dir_.Dir("m");
  EXPECT_TRUE(Passes([&] {
    const ScopedFd mount(NewTmpfs("64k"));
    ASSERT_OK(mount.get());
    ASSERT_OK(syscall(SYS_move_mount, mount.get(), "", AT_FDCWD, At("m").c_str(), MOVE_MOUNT_F_EMPTY_PATH));
    const ScopedFd file(open(At("m/f").c_str(), O_CREAT | O_RDWR, 0600));
    ASSERT_OK(file.get());
    EXPECT_OK(access(At("m/f").c_str(), F_OK));
  }));
}

TEST_F(MountApi, ReadOnlyIsSetAndCleared) {
  dir_.Dir("m");
  EXPECT_TRUE(Passes([&] {
    const ScopedFd mount(NewTmpfs("64k"));
    ASSERT_OK(syscall(SYS_move_mount, mount.get(), "", AT_FDCWD, At("m").c_str(), MOVE_MOUNT_F_EMPTY_PATH));
    MountAttributes attr = {MOUNT_ATTR_RDONLY, 0, 0, 0};
    ASSERT_OK(syscall(SYS_mount_setattr, AT_FDCWD, At("m").c_str(), 0, &attr, sizeof attr));
    EXPECT_FAIL(mkdir(At("m/d").c_str(), 0700), EROFS);
    attr = {0, MOUNT_ATTR_RDONLY, 0, 0};
    ASSERT_OK(syscall(SYS_mount_setattr, AT_FDCWD, At("m").c_str(), 0, &attr, sizeof attr));
    EXPECT_OK(mkdir(At("m/d").c_str(), 0700));
  }));
}

TEST_F(MountApi, NosymfollowIsShownByStatfs) {
  dir_.Dir("m");
  EXPECT_TRUE(Passes([&] {
    const ScopedFd mount(NewTmpfs("64k"));
    ASSERT_OK(syscall(SYS_move_mount, mount.get(), "", AT_FDCWD, At("m").c_str(), MOVE_MOUNT_F_EMPTY_PATH));
    constexpr uint64_t kNosymfollow = 0x200000;
    constexpr long kStNosymfollow = 0x2000;
    struct statfs st;
    ASSERT_OK(statfs(At("m").c_str(), &st));
    EXPECT_EQ(st.f_flags & kStNosymfollow, 0);
    MountAttributes attr = {kNosymfollow, 0, 0, 0};
    ASSERT_OK(syscall(SYS_mount_setattr, -1, At("m").c_str(), 0, &attr, sizeof attr));
    ASSERT_OK(statfs(At("m").c_str(), &st));
    EXPECT_NE(st.f_flags & kStNosymfollow, 0);
    ASSERT_OK(symlink("m", At("m/link").c_str()));
    EXPECT_FAIL(open(At("m/link").c_str(), O_RDONLY), ELOOP);
  }));
}
TEST_F(MountApi, Errors) {
  EXPECT_FAIL(syscall(SYS_fsopen, "no-such-fs", 0), ENODEV);
  EXPECT_FAIL(syscall(SYS_fsopen, "tmpfs", 0x80), EINVAL);
  EXPECT_FAIL(syscall(SYS_fsmount, -1, 0, 0), EBADF);
  EXPECT_FAIL(syscall(SYS_fsconfig, -1, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0), EINVAL);
  EXPECT_FAIL(syscall(SYS_fsconfig, 0, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0), EINVAL);
  MountAttributes attr = {};
  EXPECT_FAIL(syscall(SYS_mount_setattr, AT_FDCWD, "/", 0, &attr, 8), EINVAL);
}

}  // namespace
}  // namespace moat::guest
