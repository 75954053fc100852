// Overlays that a guest mounts: mount(2) of type overlay, fsopen(2). What lands in the upper directory is read by
// container engines, so its format is tested too. Source: Documentation/filesystems/overlayfs.rst.
#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/mount.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>

#include "tests/guest/support/child.h"
#include "tests/guest/support/temp_dir.h"

// <sys/mount.h> cannot be included beside <linux/mount.h>.
extern "C" int mount(const char*, const char*, const char*, unsigned long, const void*) noexcept;
extern "C" int umount2(const char*, int) noexcept;

namespace moat::guest {
namespace {

constexpr unsigned long kRemount = 32, kReadOnly = 1, kBind = 4096, kPrivateTree = 16384 | (1 << 18);

std::string Xattr(const std::string& path, const char* name) {
  char value[256];
  const ssize_t n = lgetxattr(path.c_str(), name, value, sizeof value);
  return n < 0 ? ErrnoName(errno) : std::string(value, n);
}
bool IsWhiteout(const std::string& path) {
  struct stat st;
  return lstat(path.c_str(), &st) == 0 && S_ISCHR(st.st_mode) && st.st_rdev == makedev(0, 0);
}
struct stat Stat(const std::string& path) {
  struct stat st = {};
  EXPECT_OK(lstat(path.c_str(), &st)) << path;
  return st;
}
void Append(const std::string& path, const std::string& text) {
  const ScopedFd fd(open(path.c_str(), O_WRONLY | O_APPEND));
  ASSERT_OK(fd.get()) << path;
  ASSERT_EQ(write(fd.get(), text.data(), text.size()), static_cast<ssize_t>(text.size()));
}
using Names = std::vector<std::string>;
// What is left in the work directory, but for the whiteout that Linux keeps there to link it.
Names Leftovers() {
  Names names = List("w/work");
  std::erase_if(names, [](const std::string& name) { return IsWhiteout("w/work/" + name); });
  return names;
}

class Overlay : public testing::Test {
 protected:
  // `body` in a mount namespace of its own, with a tmpfs on the test's directory and empty layers in it.
  testing::AssertionResult Passes(const std::function<void()>& body, int flags = CLONE_NEWNS) {
    return PassesInChild([&] {
      ASSERT_OK(unshare(flags));
      if (flags & CLONE_NEWUSER) MapRoot();
      ASSERT_OK(mount(nullptr, "/", nullptr, kPrivateTree, nullptr));
      ASSERT_OK(mount("t", dir_.path().c_str(), "tmpfs", 0, nullptr));
      ASSERT_OK(chdir(dir_.path().c_str()));
      for (const char* name : {"l", "l2", "u", "w", "m"}) dir_.Dir(name);
      body();
      ASSERT_OK(chdir("/"));
    });
  }
  static void MapRoot() {
    for (const auto& [file, text] : std::initializer_list<std::pair<const char*, const char*>>{
             {"/proc/self/setgroups", "deny"}, {"/proc/self/uid_map", "0 0 1"}, {"/proc/self/gid_map", "0 0 1"}}) {
      const ScopedFd fd(open(file, O_WRONLY));
      ASSERT_OK(write(fd.get(), text, strlen(text))) << file;
    }
  }
  static int Mount(const std::string& options, unsigned long flags = 0) {
    return mount("overlay", "m", "overlay", flags, options.c_str());
  }
  static int MountDefault(const std::string& more = "") { return Mount("lowerdir=l,upperdir=u,workdir=w" + more); }
  static int Again(const std::string& more = "") {
    EXPECT_OK(umount2("m", 0));
    return MountDefault(more);
  }
  TempDir dir_;
};

TEST_F(Overlay, CopiesUpOnWrite) {
  EXPECT_TRUE(Passes([&] {
    dir_.File("l/f", "low", 0640);
    ASSERT_OK(MountDefault());
    EXPECT_EQ(ReadFile("m/f"), "low");
    EXPECT_FALSE(Exists("u/f"));
    const ino_t before = Stat("m/f").st_ino;
    Append("m/f", "+up");
    EXPECT_EQ(ReadFile("m/f"), "low+up");
    EXPECT_EQ(ReadFile("l/f"), "low");
    EXPECT_EQ(ReadFile("u/f"), "low+up");
    EXPECT_EQ(Stat("m/f").st_ino, before);
    EXPECT_EQ(Stat("u/f").st_mode & 07777, 0640u);
  }));
}
TEST_F(Overlay, CopiesUpOnChangeOfAttributes) {
  EXPECT_TRUE(Passes([&] {
    dir_.Dir("l/d");
    dir_.Dir("l/d/e");
    dir_.File("l/d/e/f", "data");
    ASSERT_OK(symlink("to", "l/d/link"));
    ASSERT_OK(MountDefault());
    ASSERT_OK(chmod("m/d/e/f", 0600));
    EXPECT_EQ(ReadFile("u/d/e/f"), "data");
    EXPECT_EQ(Stat("u/d/e/f").st_mode & 07777, 0600u);
    EXPECT_EQ(Stat("l/d/e/f").st_mode & 07777, 0644u);
    EXPECT_EQ(List("u/d"), Names{"e"});
    ASSERT_OK(lchown("m/d/link", 3, 4));
    EXPECT_EQ(Stat("u/d/link").st_uid, 3u);
    EXPECT_EQ(Stat("m/d/link").st_gid, 4u);
    ASSERT_OK(truncate("m/d/e/f", 2));
    EXPECT_EQ(ReadFile("u/d/e/f"), "da");
  }));
}
TEST_F(Overlay, CopyKeepsTimesOwnersAndXattrs) {
  EXPECT_TRUE(Passes([&] {
    dir_.Dir("l/d");
    dir_.File("l/d/f", "data", 04755);
    const timespec times[2] = {{1000, 5}, {2000, 6}};
    ASSERT_OK(lchown("l/d/f", 7, 8));
    ASSERT_OK(chmod("l/d/f", 04755));
    ASSERT_OK(setxattr("l/d/f", "trusted.kept", "v", 1, 0));
    ASSERT_OK(utimensat(AT_FDCWD, "l/d/f", times, 0));
    ASSERT_OK(utimensat(AT_FDCWD, "l/d", times, 0));
    ASSERT_OK(MountDefault());
    ASSERT_OK(setxattr("m/d/f", "trusted.new", "w", 1, 0));
    const struct stat st = Stat("u/d/f");
    EXPECT_EQ(st.st_uid, 7u);
    EXPECT_EQ(st.st_gid, 8u);
    EXPECT_EQ(st.st_mode & 07777, 04755u);
    EXPECT_EQ(st.st_mtim.tv_sec, 2000);
    EXPECT_EQ(st.st_mtim.tv_nsec, 6);
    EXPECT_EQ(Xattr("u/d/f", "trusted.kept"), "v");
    EXPECT_EQ(Xattr("m/d/f", "trusted.new"), "w");
    EXPECT_EQ(Stat("m/d").st_mtim.tv_sec, 2000) << "a copy-up changes no parent";
  }));
}
TEST_F(Overlay, UnlinkLeavesAWhiteout) {
  EXPECT_TRUE(Passes([&] {
    dir_.File("l/f", "low");
    dir_.File("l/g", "low");
    ASSERT_OK(MountDefault());
    ASSERT_OK(unlink("m/f"));
    EXPECT_FALSE(Exists("m/f"));
    EXPECT_TRUE(IsWhiteout("u/f"));
    Append("m/g", "!");
    ASSERT_OK(unlink("m/g"));
    EXPECT_TRUE(IsWhiteout("u/g"));
    EXPECT_TRUE(List("m").empty());
    EXPECT_EQ(Leftovers(), Names{});
    dir_.File("m/new", "n");
    ASSERT_OK(unlink("m/new"));
    EXPECT_FALSE(Exists("u/new")) << "nothing below to hide";
    EXPECT_EQ(List("l"), (Names{"f", "g"}));
  }));
}
TEST_F(Overlay, FileOverAWhiteout) {
  EXPECT_TRUE(Passes([&] {
    dir_.File("l/f", "low");
    ASSERT_OK(MountDefault());
    ASSERT_OK(unlink("m/f"));
    dir_.File("m/f", "again");
    EXPECT_EQ(ReadFile("u/f"), "again");
    ASSERT_OK(unlink("m/f"));
    ASSERT_OK(symlink("x", "m/f"));
    ASSERT_OK(unlink("m/f"));
    ASSERT_OK(mkfifo("m/f", 0600));
    EXPECT_TRUE(S_ISFIFO(Stat("m/f").st_mode));
    ASSERT_OK(unlink("m/f"));
    dir_.File("m/other", "o");
    ASSERT_OK(link("m/other", "m/f"));
    EXPECT_EQ(ReadFile("m/f"), "o");
    EXPECT_EQ(Stat("m/f").st_nlink, 2u);
    ASSERT_OK(unlink("m/f"));
    EXPECT_TRUE(IsWhiteout("u/f"));
  }));
}
TEST_F(Overlay, DirectoryOverAWhiteoutIsOpaque) {
  EXPECT_TRUE(Passes([&] {
    dir_.Dir("l/d");
    dir_.File("l/d/f", "low");
    ASSERT_OK(MountDefault());
    ASSERT_OK(unlink("m/d/f"));
    ASSERT_OK(rmdir("m/d"));
    EXPECT_TRUE(IsWhiteout("u/d"));
    ASSERT_OK(mkdir("m/d", 0750));
    EXPECT_TRUE(List("m/d").empty());
    EXPECT_EQ(Stat("u/d").st_mode & 07777, 0750u);
    EXPECT_EQ(Xattr("u/d", "trusted.overlay.opaque"), "y");
    EXPECT_EQ(Xattr("m/d", "trusted.overlay.opaque"), "ENODATA");
    char names[64];
    EXPECT_EQ(listxattr("m/d", names, sizeof names), 0);
    ASSERT_OK(Again());
    EXPECT_TRUE(List("m/d").empty());
  }));
}
TEST_F(Overlay, MergesDirectories) {
  EXPECT_TRUE(Passes([&] {
    for (const char* d : {"l/d", "l2/d", "u/d"}) dir_.Dir(d);
    dir_.File("l/d/a", "1");
    dir_.File("l2/d/a", "2");
    dir_.File("l2/d/b", "2");
    dir_.File("u/d/c", "u");
    dir_.File("l/file", "x");
    dir_.Dir("l2/file");
    ASSERT_OK(Mount("lowerdir=l:l2,upperdir=u,workdir=w"));
    EXPECT_EQ(List("m/d"), (Names{"a", "b", "c"}));
    EXPECT_EQ(ReadFile("m/d/a"), "1");
    EXPECT_EQ(ReadFile("m/d/b"), "2");
    EXPECT_EQ(ReadFile("m/file"), "x");
    EXPECT_EQ(Stat("m/d").st_nlink, 1u);
    ASSERT_OK(unlink("m/d/a"));
    EXPECT_EQ(List("m/d"), (Names{"b", "c"}));
  }));
}
TEST_F(Overlay, WhiteoutsAndOpaqueDirectoriesOfALowerLayer) {
  EXPECT_TRUE(Passes([&] {
    for (const char* d : {"l/d", "l2/d", "l2/o", "l/o"}) dir_.Dir(d);
    dir_.File("l2/d/f");
    dir_.File("l2/o/f");
    ASSERT_OK(mknod("l/d/f", S_IFCHR, 0));
    ASSERT_OK(setxattr("l/o", "trusted.overlay.opaque", "y", 1, 0));
    dir_.File("l/o/g");
    ASSERT_OK(Mount("lowerdir=l:l2"));
    EXPECT_FALSE(Exists("m/d/f"));
    EXPECT_TRUE(List("m/d").empty());
    EXPECT_EQ(List("m/o"), Names{"g"});
  }));
}
TEST_F(Overlay, RmdirOfAMergedDirectory) {
  EXPECT_TRUE(Passes([&] {
    dir_.Dir("l/d");
    dir_.File("l/d/f");
    ASSERT_OK(MountDefault());
    EXPECT_FAIL(rmdir("m/d"), ENOTEMPTY);
    dir_.File("m/d/g");
    ASSERT_OK(unlink("m/d/f"));
    EXPECT_FAIL(rmdir("m/d"), ENOTEMPTY);
    ASSERT_OK(unlink("m/d/g"));
    ASSERT_OK(rmdir("m/d"));
    EXPECT_FALSE(Exists("m/d"));
    EXPECT_TRUE(IsWhiteout("u/d"));
    EXPECT_EQ(Leftovers(), Names{});
    ASSERT_OK(Again());
    EXPECT_FALSE(Exists("m/d"));
  }));
}
TEST_F(Overlay, StateSurvivesARemount) {
  EXPECT_TRUE(Passes([&] {
    for (const char* d : {"l/d", "l/gone"}) dir_.Dir(d);
    dir_.File("l/d/f", "low");
    dir_.File("l/d/g", "low");
    ASSERT_OK(MountDefault());
    Append("m/d/f", "+");
    ASSERT_OK(unlink("m/d/g"));
    ASSERT_OK(rmdir("m/gone"));
    ASSERT_OK(mkdir("m/new", 0755));
    dir_.File("m/new/n", "n");
    ASSERT_OK(Again());
    EXPECT_EQ(List("m"), (Names{"d", "new"}));
    EXPECT_EQ(List("m/d"), Names{"f"});
    EXPECT_EQ(ReadFile("m/d/f"), "low+");
    EXPECT_EQ(ReadFile("m/new/n"), "n");
    // The upper of one mount is a lower of the next.
    ASSERT_OK(umount2("m", 0));
    dir_.Dir("u2");
    dir_.Dir("w2");
    ASSERT_OK(Mount("lowerdir=u:l,upperdir=u2,workdir=w2"));
    EXPECT_EQ(List("m"), (Names{"d", "new"}));
    EXPECT_EQ(List("m/d"), Names{"f"});
    EXPECT_EQ(ReadFile("m/d/f"), "low+");
  }));
}
TEST_F(Overlay, UpperIsSeenWhileMounted) {
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(MountDefault());
    EXPECT_FALSE(Exists("u/x"));
    dir_.File("m/x", "1");
    EXPECT_EQ(ReadFile("u/x"), "1");
    ASSERT_OK(rename("m/x", "m/y"));
    EXPECT_FALSE(Exists("u/x"));
    EXPECT_EQ(ReadFile("u/y"), "1");
    ASSERT_OK(unlink("m/y"));
    EXPECT_FALSE(Exists("u/y"));
  }));
}
TEST_F(Overlay, RenameOfFiles) {
  EXPECT_TRUE(Passes([&] {
    dir_.Dir("l/d");
    dir_.File("l/a", "a");
    dir_.File("l/b", "b");
    dir_.File("l/d/c", "c");
    ASSERT_OK(MountDefault());
    ASSERT_OK(rename("m/a", "m/d/a"));
    EXPECT_TRUE(IsWhiteout("u/a"));
    EXPECT_EQ(ReadFile("m/d/a"), "a");
    ASSERT_OK(rename("m/b", "m/d/c"));
    EXPECT_EQ(ReadFile("m/d/c"), "b");
    EXPECT_FALSE(Exists("m/b"));
    ASSERT_OK(rename("m/d/c", "m/b"));
    EXPECT_EQ(ReadFile("u/b"), "b");
    EXPECT_TRUE(IsWhiteout("u/d/c"));
    EXPECT_EQ(List("m/d"), Names{"a"});
    EXPECT_FAIL(renameat2(AT_FDCWD, "m/b", AT_FDCWD, "m/d/a", RENAME_NOREPLACE), EEXIST);
    ASSERT_OK(renameat2(AT_FDCWD, "m/b", AT_FDCWD, "m/d/a", RENAME_EXCHANGE));
    EXPECT_EQ(ReadFile("m/b"), "a");
    EXPECT_EQ(ReadFile("m/d/a"), "b");
    EXPECT_FAIL(renameat2(AT_FDCWD, "m/b", AT_FDCWD, "m/z", RENAME_WHITEOUT), EINVAL);
    EXPECT_EQ(Leftovers(), Names{});
  }));
}
TEST_F(Overlay, RenameOfDirectories) {
  EXPECT_TRUE(Passes([&] {
    dir_.Dir("l/low");
    dir_.Dir("l/empty");
    dir_.File("l/low/f", "f");
    ASSERT_OK(MountDefault());
    EXPECT_FAIL(rename("m/low", "m/moved"), EXDEV);
    ASSERT_OK(mkdir("m/up", 0755));
    dir_.File("m/up/x", "x");
    ASSERT_OK(rename("m/up", "m/up2"));
    EXPECT_EQ(ReadFile("m/up2/x"), "x");
    EXPECT_FAIL(rename("m/up2", "m/low"), ENOTEMPTY);
    // Over a directory of the lower: the one that comes is opaque from now on.
    ASSERT_OK(rename("m/up2", "m/empty"));
    EXPECT_EQ(List("m/empty"), Names{"x"});
    EXPECT_EQ(Xattr("u/empty", "trusted.overlay.opaque"), "y");
    // And to where a whiteout stands.
    ASSERT_OK(unlink("m/low/f"));
    ASSERT_OK(rmdir("m/low"));
    ASSERT_OK(rename("m/empty", "m/low"));
    EXPECT_EQ(List("m/low"), Names{"x"});
    EXPECT_TRUE(IsWhiteout("u/empty"));
    EXPECT_EQ(List("m"), Names{"low"});
    EXPECT_EQ(Leftovers(), Names{});
    ASSERT_OK(Again());
    EXPECT_EQ(List("m"), Names{"low"});
    EXPECT_EQ(List("m/low"), Names{"x"});
  }));
}
TEST_F(Overlay, RenameOverADirectoryOfWhiteouts) {
  EXPECT_TRUE(Passes([&] {
    dir_.Dir("l/d");
    dir_.File("l/d/f");
    ASSERT_OK(MountDefault());
    ASSERT_OK(unlink("m/d/f"));
    ASSERT_OK(mkdir("m/new", 0755));
    dir_.File("m/new/n");
    ASSERT_OK(rename("m/new", "m/d"));
    EXPECT_EQ(List("m/d"), Names{"n"});
    ASSERT_OK(Again());
    EXPECT_EQ(List("m/d"), Names{"n"});
  }));
}
TEST_F(Overlay, RedirectedDirectories) {
  EXPECT_TRUE(Passes([&] {
    for (const char* d : {"l/a", "l/a/b", "l/other"}) dir_.Dir(d);
    dir_.File("l/a/b/f", "f");
    ASSERT_OK(MountDefault(",redirect_dir=on"));
    ASSERT_OK(rename("m/a/b", "m/moved"));
    EXPECT_EQ(ReadFile("m/moved/f"), "f");
    EXPECT_EQ(Xattr("u/moved", "trusted.overlay.redirect"), "/a/b");
    EXPECT_FALSE(Exists("m/a/b"));
    ASSERT_OK(mkdir("m/a/b", 0755));
    EXPECT_TRUE(List("m/a/b").empty());
    ASSERT_OK(rename("m/moved", "m/other/again"));
    Append("m/other/again/f", "+");
    EXPECT_EQ(ReadFile("m/other/again/f"), "f+");
    ASSERT_OK(Again());  // follows them without being asked
    EXPECT_EQ(ReadFile("m/other/again/f"), "f+");
    EXPECT_EQ(List("m"), (Names{"a", "other"}));
    EXPECT_TRUE(List("m/a/b").empty());
    EXPECT_FAIL(rename("m/other/again", "m/x"), EXDEV);
    ASSERT_OK(Again(",redirect_dir=nofollow"));
    struct stat st;
    EXPECT_FAIL(stat("m/other/again", &st), EPERM);
  }));
}
TEST_F(Overlay, RelativeRedirectsAreFollowed) {
  EXPECT_TRUE(Passes([&] {
    for (const char* d : {"l/a", "u/b"}) dir_.Dir(d);
    dir_.File("l/a/f", "f");
    ASSERT_OK(setxattr("u/b", "trusted.overlay.redirect", "a", 1, 0));
    ASSERT_OK(MountDefault());
    EXPECT_EQ(ReadFile("m/b/f"), "f");
  }));
}
TEST_F(Overlay, OpenFileStaysReadable) {
  EXPECT_TRUE(Passes([&] {
    dir_.File("l/f", "low");
    ASSERT_OK(MountDefault());
    const ScopedFd fd(open("m/f", O_RDONLY));
    ASSERT_OK(fd.get());
    ASSERT_OK(unlink("m/f"));
    EXPECT_EQ(ReadAll(fd.get()), "low");
    dir_.File("m/f", "new");
    ASSERT_OK(lseek(fd.get(), 0, SEEK_SET));
    EXPECT_EQ(ReadAll(fd.get()), "low");
    EXPECT_EQ(ReadFile("m/f"), "new");
  }));
}
TEST_F(Overlay, MappingAndExecution) {
  EXPECT_TRUE(Passes([&] {
    dir_.File("l/f", std::string(8192, 'x'));
    dir_.File("l/script", "#!/bin/sh\nexit 7\n", 0755);
    ASSERT_OK(MountDefault());
    const ScopedFd fd(open("m/f", O_RDWR));
    char* p = static_cast<char*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0));
    ASSERT_NE(p, MAP_FAILED);
    p[5000] = 'y';
    EXPECT_EQ(ReadFile("u/f")[5000], 'y');
    munmap(p, 8192);
    EXPECT_EQ(system("m/script") >> 8, 7);
  }));
}
TEST_F(Overlay, HardLinksOfTheUpper) {
  EXPECT_TRUE(Passes([&] {
    dir_.File("l/f", "low");
    ASSERT_OK(MountDefault());
    ASSERT_OK(link("m/f", "m/g"));
    EXPECT_EQ(Stat("m/f").st_ino, Stat("m/g").st_ino);
    EXPECT_EQ(Stat("m/f").st_nlink, 2u);
    Append("m/f", "+");
    EXPECT_EQ(ReadFile("m/g"), "low+");
    ASSERT_OK(unlink("m/f"));
    EXPECT_EQ(ReadFile("m/g"), "low+");
    EXPECT_EQ(Stat("m/g").st_nlink, 1u);
  }));
}
TEST_F(Overlay, TemporaryFile) {
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(MountDefault());
    const ScopedFd fd(open("m", O_TMPFILE | O_RDWR, 0600));
    ASSERT_OK(fd.get());
    ASSERT_EQ(write(fd.get(), "tmp", 3), 3);
    ASSERT_OK(linkat(fd.get(), "", AT_FDCWD, "m/named", AT_EMPTY_PATH));
    EXPECT_EQ(ReadFile("u/named"), "tmp");
  }));
}
TEST_F(Overlay, InodeNumbersOfReaddir) {
  EXPECT_TRUE(Passes([&] {
    dir_.Dir("l/d");
    for (const char* f : {"l/a", "l/b", "u/c"}) dir_.File(f);
    ASSERT_OK(MountDefault());
    ASSERT_OK(chmod("m/b", 0600));
    DIR* d = opendir("m");
    ASSERT_NE(d, nullptr);
    int seen = 0;
    while (dirent* e = readdir(d)) {
      if (e->d_name[0] == '.') continue;
      EXPECT_EQ(e->d_ino, Stat(std::string("m/") + e->d_name).st_ino) << e->d_name;
      ++seen;
    }
    closedir(d);
    EXPECT_EQ(seen, 4);
    ASSERT_OK(chmod("m/d", 0700));
    EXPECT_EQ(Stat("m/d").st_ino, Stat("l/d").st_ino);
  }));
}
TEST_F(Overlay, NoWhiteoutsByHand) {
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(MountDefault());
    EXPECT_FAIL(mknod("m/x", S_IFCHR, 0), EPERM);
    EXPECT_OK(mknod("m/null", S_IFCHR | 0666, makedev(1, 3)));
  }));
}
TEST_F(Overlay, OwnXattrsAreEscaped) {
  EXPECT_TRUE(Passes([&] {
    dir_.Dir("l/d");
    ASSERT_OK(MountDefault());
    ASSERT_OK(setxattr("m/d", "trusted.overlay.opaque", "y", 1, 0));
    EXPECT_EQ(Xattr("m/d", "trusted.overlay.opaque"), "y");
    EXPECT_EQ(Xattr("u/d", "trusted.overlay.overlay.opaque"), "y");
    EXPECT_EQ(Xattr("u/d", "trusted.overlay.opaque"), "ENODATA");
    char names[256];
    const ssize_t n = listxattr("m/d", names, sizeof names);
    ASSERT_OK(n);
    EXPECT_EQ(std::string(names, n), std::string("trusted.overlay.opaque\0", 23));
  }));
}
TEST_F(Overlay, ReadOnlyWithoutAnUpper) {
  EXPECT_TRUE(Passes([&] {
    dir_.File("l/f", "low");
    ASSERT_OK(Mount("lowerdir=l:l2"));
    EXPECT_FAIL(open("m/f", O_WRONLY), EROFS);
    EXPECT_FAIL(mkdir("m/d", 0700), EROFS);
    EXPECT_FAIL(mount(nullptr, "m", nullptr, kRemount, nullptr), EROFS);
    ASSERT_OK(umount2("m", 0));
    ASSERT_OK(Mount("lowerdir=l,upperdir=u,workdir=w", kReadOnly));
    EXPECT_FAIL(mkdir("m/d", 0700), EROFS);
    ASSERT_OK(mount(nullptr, "m", nullptr, kRemount, "nonsense"));
    EXPECT_OK(mkdir("m/d", 0700));
  }));
}
TEST_F(Overlay, OptionErrors) {
  EXPECT_TRUE(Passes([&] {
    dir_.File("file");
    EXPECT_FAIL(Mount(""), EINVAL);
    EXPECT_FAIL(Mount("lowerdir="), EINVAL);
    EXPECT_FAIL(Mount("upperdir=u,workdir=w"), EINVAL);
    EXPECT_FAIL(Mount("lowerdir=l,upperdir=u"), EINVAL);
    EXPECT_OK(Mount("lowerdir=l:l2,workdir=w"));
    EXPECT_FAIL(Mount("lowerdir=l,nonsense"), EINVAL);
    EXPECT_FAIL(Mount("lowerdir=l,redirect_dir=maybe"), EINVAL);
    EXPECT_FAIL(Mount("lowerdir=missing"), ENOENT);
    EXPECT_FAIL(Mount("lowerdir=file"), EINVAL);
    EXPECT_FAIL(Mount("lowerdir=:l"), EINVAL);
    EXPECT_FAIL(Mount("lowerdir=l:"), EINVAL);
    EXPECT_FAIL(Mount("lowerdir=l:::l2"), EINVAL);
    EXPECT_FAIL(Mount("lowerdir=l,upperdir=u,workdir=file"), EINVAL);
    EXPECT_FAIL(Mount("lowerdir=l,upperdir=u,workdir=u"), EINVAL);
    dir_.Dir("u/in");
    EXPECT_FAIL(Mount("lowerdir=l,upperdir=u,workdir=u/in"), EINVAL);
    EXPECT_FAIL(Mount("lowerdir=l,upperdir=u/in,workdir=u"), EINVAL);
    EXPECT_FAIL(Mount("lowerdir=u,upperdir=u,workdir=w"), ELOOP);
    EXPECT_FAIL(Mount("lowerdir=l:l,upperdir=u,workdir=w"), ELOOP);
    dir_.Dir("l/in");
    EXPECT_FAIL(Mount("lowerdir=l:l/in,upperdir=u,workdir=w"), ELOOP);
    dir_.Dir("other");
    ASSERT_OK(mount("t", "other", "tmpfs", 0, nullptr));
    EXPECT_FAIL(Mount("lowerdir=l,upperdir=u,workdir=other"), EINVAL);
    ASSERT_OK(mount("u", "u", nullptr, kBind, nullptr));
    ASSERT_OK(mount(nullptr, "u", nullptr, kRemount | kBind | kReadOnly, nullptr));
    EXPECT_FAIL(Mount("lowerdir=l,upperdir=u,workdir=w"), EINVAL);
    EXPECT_FAIL(Mount("lowerdir=l,userxattr,redirect_dir=on"), EINVAL);
    EXPECT_FAIL(Mount("lowerdir=l,userxattr,metacopy=on"), EINVAL);
    EXPECT_FAIL(Mount("lowerdir=l,metacopy=on,redirect_dir=off"), EINVAL);
    std::string many = "lowerdir=l";
    for (int i = 0; i < 500; ++i) many += ":l2";
    EXPECT_FAIL(Mount(many), EINVAL);
  }));
}
TEST_F(Overlay, Escapes) {
  EXPECT_TRUE(Passes([&] {
    for (const char* d : {"l/a:b", "l/c,d", "l/e\\f", "u/up,per"}) dir_.Dir(d);
    dir_.File("l/a:b/1");
    dir_.File("l/c,d/2");
    dir_.File("l/e\\f/3");
    ASSERT_OK(Mount("lowerdir=l/a\\:b:l/c\\,d:l/e\\\\f,upperdir=u/up\\,per,workdir=w"));
    EXPECT_EQ(List("m"), (Names{"1", "2", "3"}));
    EXPECT_EQ(List("w"), Names{"work"});
  }));
}
TEST_F(Overlay, ShownOptions) {
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(Mount("lowerdir=l:l2,upperdir=u,workdir=w"));
    const std::string mounts = ReadFile("/proc/self/mountinfo");
    EXPECT_NE(mounts.find(" - overlay overlay rw,lowerdir=l:l2,upperdir=u,workdir=w"), mounts.npos) << mounts;
    struct statfs st;
    ASSERT_OK(statfs("m", &st));
    EXPECT_EQ(st.f_type, 0x794c7630);
  }));
}
TEST_F(Overlay, VolatileIsMarkedUntilRemoved) {
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(MountDefault(",volatile"));
    dir_.File("m/f");
    ASSERT_OK(umount2("m", 0));
    EXPECT_TRUE(Exists("w/work/incompat/volatile"));
    EXPECT_FAIL(MountDefault(), EINVAL);
    for (const char* d : {"volatile/dirty", "volatile", ""})
      ASSERT_OK(remove((std::string("w/work/incompat/") + d).c_str()));
    ASSERT_OK(MountDefault());
    EXPECT_TRUE(Exists("m/f"));
  }));
}
TEST_F(Overlay, OverlayOnOverlay) {
  EXPECT_TRUE(Passes([&] {
    dir_.File("l/f", "low");
    for (const char* d : {"u2", "w2", "m2", "m3"}) dir_.Dir(d);
    ASSERT_OK(MountDefault());
    ASSERT_OK(mount("overlay", "m2", "overlay", 0, "lowerdir=m,upperdir=u2,workdir=w2"));
    Append("m2/f", "+");
    EXPECT_EQ(ReadFile("m2/f"), "low+");
    EXPECT_EQ(ReadFile("m/f"), "low");
    ASSERT_OK(unlink("m2/f"));
    EXPECT_TRUE(IsWhiteout("u2/f"));
    dir_.Dir("m2/d");
    EXPECT_FAIL(mount("overlay", "m3", "overlay", 0, "lowerdir=m2:l2"), EINVAL) << "at most two deep";
    for (const char* d : {"m/u3", "m/w3"}) dir_.Dir(d);
    EXPECT_FAIL(mount("overlay", "m3", "overlay", 0, "lowerdir=l2,upperdir=m/u3,workdir=m/w3"), EINVAL);
  }));
}
TEST_F(Overlay, LayersStayWhenTheirMountGoes) {
  EXPECT_TRUE(Passes([&] {
    dir_.Dir("t");
    ASSERT_OK(mount("t", "t", "tmpfs", 0, nullptr));
    for (const char* d : {"t/u", "t/w"}) dir_.Dir(d);
    ASSERT_OK(Mount("lowerdir=l,upperdir=t/u,workdir=t/w"));
    ASSERT_OK(umount2("t", 2 /* MNT_DETACH */));
    dir_.File("m/f", "x");
    EXPECT_EQ(ReadFile("m/f"), "x");
  }));
}
TEST_F(Overlay, MountsInALayerAreNotSeen) {
  EXPECT_TRUE(Passes([&] {
    dir_.Dir("l/d");
    dir_.File("l/d/below");
    ASSERT_OK(mount("t", "l/d", "tmpfs", 0, nullptr));
    ASSERT_OK(MountDefault());
    EXPECT_EQ(List("m/d"), Names{"below"});
  }));
}
TEST_F(Overlay, PermissionsOfTheCallerCount) {
  EXPECT_TRUE(Passes([&] {
    dir_.File("l/secret", "s", 0600);
    dir_.File("l/mine", "m", 0600);
    ASSERT_OK(chown("l/mine", 1000, 1000));
    ASSERT_OK(chmod("u", 0777));
    ASSERT_OK(MountDefault());
    EXPECT_TRUE(PassesAsUser(1000, [] {
      EXPECT_FAIL(open("m/secret", O_RDONLY), EACCES);
      EXPECT_FAIL(chmod("m/secret", 0644), EPERM);
      Append("m/mine", "+");
      EXPECT_OK(mkdir("m/dir", 0700));
      EXPECT_OK(unlink("m/secret"));
    }));
    EXPECT_EQ(Stat("u/mine").st_uid, 1000u);
    EXPECT_EQ(Stat("u/dir").st_uid, 1000u);
    EXPECT_EQ(Stat("u/secret").st_uid, 0u);
    ASSERT_OK(chmod("m", 02775));
    ASSERT_OK(chown("m", 0, 55));
    ASSERT_OK(chmod("m", 02777));
    dir_.Dir("m/grp");
    EXPECT_EQ(Stat("u/grp").st_gid, 55u);
  }));
}
TEST_F(Overlay, InAUserNamespace) {
  EXPECT_TRUE(Passes(
      [&] {
        dir_.Dir("l/d");
        dir_.File("l/f", "low");
        ASSERT_OK(MountDefault(",userxattr"));
        Append("m/f", "+");
        ASSERT_OK(unlink("m/f"));
        EXPECT_TRUE(IsWhiteout("u/f"));
        ASSERT_OK(rmdir("m/d"));
        ASSERT_OK(mkdir("m/d", 0755));
        EXPECT_EQ(Xattr("u/d", "user.overlay.opaque"), "y");
        EXPECT_EQ(Xattr("m/d", "user.overlay.opaque"), "ENODATA");
      },
      CLONE_NEWNS | CLONE_NEWUSER));
}
TEST_F(Overlay, UserNamespaceWithoutUserxattr) {
  EXPECT_TRUE(Passes(
      [&] {
        dir_.Dir("l/d");
        ASSERT_OK(MountDefault());
        ASSERT_OK(rmdir("m/d"));
        EXPECT_FAIL(mkdir("m/d", 0755), EIO);
        dir_.File("m/d", "file");
        EXPECT_EQ(ReadFile("m/d"), "file");
      },
      CLONE_NEWNS | CLONE_NEWUSER));
}
TEST_F(Overlay, ByFsconfig) {
  EXPECT_TRUE(Passes([&] {
    dir_.File("l/a");
    dir_.File("l2/b");
    const ScopedFd fs(static_cast<int>(syscall(SYS_fsopen, "overlay", 0)));
    ASSERT_OK(fs.get());
    auto set = [&](const char* key, const char* value) {
      return syscall(SYS_fsconfig, fs.get(), FSCONFIG_SET_STRING, key, value, 0);
    };
    EXPECT_FAIL(set("upperdir", "missing"), ENOENT);
    EXPECT_FAIL(set("nonsense", "x"), EINVAL);
    if (set("lowerdir+", "l") != 0) GTEST_SKIP() << "no lowerdir+ before Linux 6.8";
    ASSERT_OK(set("lowerdir+", "l2"));
    ASSERT_OK(set("upperdir", "u"));
    ASSERT_OK(set("workdir", "w"));
    ASSERT_OK(syscall(SYS_fsconfig, fs.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0));
    const ScopedFd mnt(static_cast<int>(syscall(SYS_fsmount, fs.get(), 0, 0)));
    ASSERT_OK(mnt.get());
    ASSERT_OK(syscall(SYS_move_mount, mnt.get(), "", AT_FDCWD, "m", MOVE_MOUNT_F_EMPTY_PATH));
    EXPECT_EQ(List("m"), (Names{"a", "b"}));
    const std::string mounts = ReadFile("/proc/self/mountinfo");
    EXPECT_NE(mounts.find("rw,lowerdir+=l,lowerdir+=l2,upperdir=u,workdir=w"), mounts.npos) << mounts;
    dir_.File("m/c");
    EXPECT_TRUE(Exists("u/c"));
  }));
}
TEST_F(Overlay, LayersByDescriptor) {
  EXPECT_TRUE(Passes([&] {
    dir_.File("l/a");
    const ScopedFd fs(static_cast<int>(syscall(SYS_fsopen, "overlay", 0)));
    ASSERT_OK(fs.get());
    auto set = [&](const char* key, int fd) {
      return syscall(SYS_fsconfig, fs.get(), FSCONFIG_SET_FD, key, nullptr, fd);
    };
    const ScopedFd lower(open("l", O_PATH | O_DIRECTORY)), upper(open("u", O_RDONLY)), work(open("w", O_RDONLY));
    const ScopedFd file(open("l/a", O_RDONLY));
    EXPECT_FAIL(set("lowerdir+", 999), EBADF);
    EXPECT_FAIL(set("upperdir", -1), EINVAL);
    if (set("lowerdir+", lower.get()) != 0) GTEST_SKIP() << "no layers by descriptor before Linux 6.13";
    EXPECT_FAIL(set("lowerdir+", file.get()), EINVAL);
    EXPECT_FAIL(set("lowerdir", lower.get()), EINVAL);
    ASSERT_OK(set("upperdir", upper.get()));
    ASSERT_OK(set("workdir", work.get()));
    ASSERT_OK(syscall(SYS_fsconfig, fs.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0));
    const ScopedFd mnt(static_cast<int>(syscall(SYS_fsmount, fs.get(), 0, 0)));
    ASSERT_OK(mnt.get());
    ASSERT_OK(syscall(SYS_move_mount, mnt.get(), "", AT_FDCWD, "m", MOVE_MOUNT_F_EMPTY_PATH));
    EXPECT_EQ(List("m"), (Names{"a"}));
    const std::string path = std::filesystem::current_path();
    const std::string mounts = ReadFile("/proc/self/mountinfo");
    EXPECT_NE(mounts.find("lowerdir+=" + path + "/l,upperdir=" + path + "/u,"), mounts.npos) << mounts;
    dir_.File("m/c");
    EXPECT_TRUE(Exists("u/c"));
  }));
}

}  // namespace
}  // namespace moat::guest
