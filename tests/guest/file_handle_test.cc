// File handles: name_to_handle_at(2), open_by_handle_at(2).
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <vector>

#include "tests/guest/support/child.h"
#include "tests/guest/support/temp_dir.h"

#ifndef AT_HANDLE_FID
#define AT_HANDLE_FID 0x200
#endif

namespace moat::guest {
namespace {

struct Handle {
  alignas(file_handle) char space[sizeof(file_handle) + MAX_HANDLE_SZ] = {};
  file_handle* get() { return reinterpret_cast<file_handle*>(space); }
  explicit Handle(unsigned bytes = MAX_HANDLE_SZ) { get()->handle_bytes = bytes; }
};

class FileHandle : public testing::Test {
 protected:
  testing::AssertionResult Passes(const std::function<void()>& body) {
    return PassesInChild([&] {
      ASSERT_OK(unshare(CLONE_NEWNS));
      ASSERT_OK(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr));
      ASSERT_OK(mount("t", dir_.path().c_str(), "tmpfs", 0, nullptr));
      ASSERT_OK(chdir(dir_.path().c_str()));
      body();
      ASSERT_OK(chdir("/"));
    });
  }
  TempDir dir_;
};

TEST_F(FileHandle, OpensWhatItWasMadeOf) {
  EXPECT_TRUE(Passes([&] {
    dir_.Dir("d");
    dir_.File("d/f", "content");
    Handle file, dir;
    int id = 0, dir_id = 0;
    ASSERT_OK(name_to_handle_at(AT_FDCWD, "d/f", file.get(), &id, 0));
    ASSERT_OK(name_to_handle_at(AT_FDCWD, "d", dir.get(), &dir_id, 0));
    EXPECT_EQ(id, dir_id);
    EXPECT_EQ(file.get()->handle_bytes, 12u);
    EXPECT_NE(memcmp(file.space, dir.space, sizeof file.space), 0);
    const ScopedFd root(open(".", O_RDONLY));
    const ScopedFd fd(open_by_handle_at(root.get(), file.get(), O_RDONLY));
    ASSERT_OK(fd.get());
    EXPECT_EQ(ReadAll(fd.get()), "content");
    ASSERT_OK(rename("d/f", "d/g"));
    const ScopedFd moved(open_by_handle_at(root.get(), file.get(), O_RDWR));
    ASSERT_OK(moved.get());
    char path[512];
    const ssize_t n = readlink(("/proc/self/fd/" + std::to_string(moved.get())).c_str(), path, sizeof path);
    ASSERT_OK(n);
    EXPECT_EQ(std::string(path, n), dir_.path() + "/d/g");
    const ScopedFd opened_dir(open_by_handle_at(AT_FDCWD, dir.get(), O_RDONLY | O_DIRECTORY));
    ASSERT_OK(opened_dir.get());
    EXPECT_OK(faccessat(opened_dir.get(), "g", F_OK, 0));
    EXPECT_FAIL(open_by_handle_at(root.get(), file.get(), O_RDONLY | O_DIRECTORY), ENOTDIR);
    const ScopedFd path_only(open_by_handle_at(root.get(), file.get(), O_PATH));
    ASSERT_OK(path_only.get());
    EXPECT_FAIL(read(path_only.get(), path, 1), EBADF);
  }));
}
TEST_F(FileHandle, SameFileSameHandle) {
  EXPECT_TRUE(Passes([&] {
    dir_.File("f");
    ASSERT_OK(link("f", "g"));
    ASSERT_OK(symlink("f", "s"));
    Handle a, b, link_itself, followed, by_fd;
    int id;
    ASSERT_OK(name_to_handle_at(AT_FDCWD, "f", a.get(), &id, 0));
    ASSERT_OK(name_to_handle_at(AT_FDCWD, "g", b.get(), &id, 0));
    EXPECT_EQ(memcmp(a.space, b.space, sizeof a.space), 0);
    ASSERT_OK(name_to_handle_at(AT_FDCWD, "s", link_itself.get(), &id, 0));
    EXPECT_NE(memcmp(a.space, link_itself.space, sizeof a.space), 0);
    ASSERT_OK(name_to_handle_at(AT_FDCWD, "s", followed.get(), &id, AT_SYMLINK_FOLLOW));
    EXPECT_EQ(memcmp(a.space, followed.space, sizeof a.space), 0);
    const ScopedFd fd(open("f", O_RDONLY));
    ASSERT_OK(name_to_handle_at(fd.get(), "", by_fd.get(), &id, AT_EMPTY_PATH));
    EXPECT_EQ(memcmp(a.space, by_fd.space, sizeof a.space), 0);
    EXPECT_FAIL(open_by_handle_at(AT_FDCWD, link_itself.get(), O_RDONLY), ELOOP);
  }));
}
TEST_F(FileHandle, StaleAfterRemoval) {
  EXPECT_TRUE(Passes([&] {
    dir_.File("f");
    dir_.Dir("d");
    Handle file, dir;
    int id;
    ASSERT_OK(name_to_handle_at(AT_FDCWD, "f", file.get(), &id, 0));
    ASSERT_OK(name_to_handle_at(AT_FDCWD, "d", dir.get(), &id, 0));
    ASSERT_OK(unlink("f"));
    ASSERT_OK(rmdir("d"));
    EXPECT_FAIL(open_by_handle_at(AT_FDCWD, file.get(), O_RDONLY), ESTALE);
    EXPECT_FAIL(open_by_handle_at(AT_FDCWD, dir.get(), O_RDONLY), ESTALE);
    Handle wrong;
    wrong.get()->handle_bytes = 12;
    wrong.get()->handle_type = 1;
    memset(wrong.get()->f_handle, 0x7f, 12);
    EXPECT_FAIL(open_by_handle_at(AT_FDCWD, wrong.get(), O_RDONLY), ESTALE);
  }));
}
TEST_F(FileHandle, TooSmallSaysHowLarge) {
  EXPECT_TRUE(Passes([&] {
    dir_.File("f");
    Handle h(0);
    int id = -1;
    EXPECT_FAIL(name_to_handle_at(AT_FDCWD, "f", h.get(), &id, 0), EOVERFLOW);
    EXPECT_EQ(h.get()->handle_bytes, 12u);
    EXPECT_NE(id, -1);
    Handle exact(12);
    EXPECT_OK(name_to_handle_at(AT_FDCWD, "f", exact.get(), &id, 0));
  }));
}
TEST_F(FileHandle, Errors) {
  EXPECT_TRUE(Passes([&] {
    dir_.File("f");
    Handle h, large(MAX_HANDLE_SZ + 1);
    int id;
    EXPECT_FAIL(name_to_handle_at(AT_FDCWD, "f", large.get(), &id, 0), EINVAL);
    EXPECT_FAIL(name_to_handle_at(AT_FDCWD, "f", h.get(), &id, AT_SYMLINK_NOFOLLOW), EINVAL);
    EXPECT_FAIL(name_to_handle_at(AT_FDCWD, "missing", h.get(), &id, 0), ENOENT);
    EXPECT_FAIL(name_to_handle_at(AT_FDCWD, "", h.get(), &id, 0), ENOENT);
    EXPECT_FAIL(name_to_handle_at(-1, "f", h.get(), &id, 0), EBADF);
    EXPECT_FAIL(name_to_handle_at(AT_FDCWD, "f", reinterpret_cast<file_handle*>(8), &id, 0), EFAULT);
    EXPECT_FAIL(name_to_handle_at(AT_FDCWD, "f", h.get(), reinterpret_cast<int*>(8), 0), EFAULT);
    EXPECT_FAIL(name_to_handle_at(AT_FDCWD, "/proc/self/status", h.get(), &id, 0), EOPNOTSUPP);
    Handle none(0);
    EXPECT_FAIL(open_by_handle_at(AT_FDCWD, none.get(), O_RDONLY), EINVAL);
    EXPECT_FAIL(open_by_handle_at(AT_FDCWD, large.get(), O_RDONLY), EINVAL);
    ASSERT_OK(name_to_handle_at(AT_FDCWD, "f", h.get(), &id, 0));
    EXPECT_FAIL(open_by_handle_at(-1, h.get(), O_RDONLY), EBADF);
    EXPECT_FAIL(open_by_handle_at(AT_FDCWD, reinterpret_cast<file_handle*>(8), O_RDONLY), EFAULT);
    const ScopedFd proc(open("/proc", O_RDONLY));
    EXPECT_FAIL(open_by_handle_at(proc.get(), h.get(), O_RDONLY), ESTALE);
    EXPECT_TRUE(PassesAsUser(1000, [&] {
      EXPECT_OK(name_to_handle_at(AT_FDCWD, "f", h.get(), &id, 0));
      EXPECT_FAIL(open_by_handle_at(AT_FDCWD, h.get(), O_RDONLY), EPERM);
    }));
  }));
}
TEST_F(FileHandle, IdentifierOfAnyFile) {
  Handle a, b;
  int id;
  if (name_to_handle_at(AT_FDCWD, "/proc/self/status", a.get(), &id, AT_HANDLE_FID) < 0 && errno != EOVERFLOW) {
    GTEST_SKIP() << "no such handles before Linux 6.6";
  }
  EXPECT_OK(name_to_handle_at(AT_FDCWD, "/proc/self/stat", b.get(), &id, AT_HANDLE_FID));
  EXPECT_NE(memcmp(a.space, b.space, sizeof a.space), 0);
}

}  // namespace
}  // namespace moat::guest
