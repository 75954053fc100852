// Namespaces: user, pid, mount, uts, ipc; unshare(2), setns(2), clone(2). Mounts, binds and propagation.
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

std::string Link(const std::string& path) {
  char b[128];
  const ssize_t n = readlink(path.c_str(), b, sizeof b);
  EXPECT_OK(n) << path;
  return std::string(b, n > 0 ? n : 0);
}
std::string Ns(const char* kind) { return Link(std::string("/proc/self/ns/") + kind); }
void Write(const std::string& path, const std::string& text) {
  const ScopedFd fd(open(path.c_str(), O_WRONLY));
  ASSERT_OK(fd.get()) << path;
  ASSERT_EQ(write(fd.get(), text.data(), text.size()), static_cast<ssize_t>(text.size())) << path << ErrnoName(errno);
}
// Runs `body` as the child of one that called unshare(flags).
testing::AssertionResult PassesUnshared(int flags, const std::function<void()>& body) {
  return PassesInChild([&] {
    ASSERT_OK(unshare(flags));
    body();
  });
}

TEST(Namespace, LinksNameKindAndInode) {
  for (const char* kind : {"user", "pid", "mnt", "uts", "ipc", "net", "cgroup"}) {
    const std::string link = Ns(kind);
    EXPECT_EQ(link.substr(0, std::string(kind).size() + 2), std::string(kind) + ":[");
  }
}
TEST(Namespace, ForkKeepsThem) {
  const std::string mnt = Ns("mnt"), user = Ns("user");
  EXPECT_TRUE(PassesInChild([&] {
    EXPECT_EQ(Ns("mnt"), mnt);
    EXPECT_EQ(Ns("user"), user);
  }));
}
TEST(Namespace, UnshareErrors) {
  EXPECT_FAIL(unshare(0x1), EINVAL);
  EXPECT_TRUE(PassesAsUser(1000, [] { EXPECT_FAIL(unshare(CLONE_NEWUTS), EPERM); }));
}
TEST(Namespace, UnshareFsAndFiles) {
  EXPECT_TRUE(PassesUnshared(CLONE_FS | CLONE_FILES | CLONE_SYSVSEM, [] {}));
}
TEST(Namespace, UtsIsPrivate) {
  utsname before;
  ASSERT_OK(uname(&before));
  const std::string ns = Ns("uts");
  EXPECT_TRUE(PassesUnshared(CLONE_NEWUTS, [&] {
    EXPECT_NE(Ns("uts"), ns);
    ASSERT_OK(sethostname("inside", 6));
    ASSERT_OK(setdomainname("domain", 6));
    utsname now;
    ASSERT_OK(uname(&now));
    EXPECT_STREQ(now.nodename, "inside");
    EXPECT_STREQ(now.domainname, "domain");
    EXPECT_EQ(ReadFile("/proc/sys/kernel/hostname"), "inside\n");
    EXPECT_FAIL(sethostname(std::string(65, 'x').c_str(), 65), EINVAL);
  }));
  utsname after;
  ASSERT_OK(uname(&after));
  EXPECT_STREQ(after.nodename, before.nodename);
}
TEST(Namespace, IpcIsPrivate) {
  const int id = msgget(0x4d4f4154, IPC_CREAT | 0600);
  ASSERT_OK(id);
  EXPECT_TRUE(PassesUnshared(CLONE_NEWIPC, [] { EXPECT_FAIL(msgget(0x4d4f4154, 0600), ENOENT); }));
  EXPECT_OK(msgctl(id, IPC_RMID, nullptr));
}
TEST(Namespace, SetnsGoesBack) {
  EXPECT_TRUE(PassesInChild([] {
    const std::string before = Ns("uts");
    const ScopedFd old(open("/proc/self/ns/uts", O_RDONLY));
    ASSERT_OK(unshare(CLONE_NEWUTS));
    EXPECT_NE(Ns("uts"), before);
    EXPECT_FAIL(setns(old.get(), CLONE_NEWIPC), EINVAL);
    ASSERT_OK(setns(old.get(), CLONE_NEWUTS));
    EXPECT_EQ(Ns("uts"), before);
  }));
}
TEST(Namespace, SetnsErrors) {
  EXPECT_FAIL(setns(-1, 0), EBADF);
  const ScopedFd null(open("/dev/null", O_RDONLY));
  EXPECT_FAIL(setns(null.get(), 0), EINVAL);
}
TEST(Namespace, SetnsByPidfd) {
  const pid_t child = Spawn([] {
    ASSERT_OK(unshare(CLONE_NEWUTS));
    ASSERT_OK(sethostname("joined", 6));
    for (;;) pause();
  });
  const std::string self = Ns("uts");
  ASSERT_TRUE(Eventually([&] { return Link("/proc/" + std::to_string(child) + "/ns/uts") != self; }));
  EXPECT_TRUE(PassesInChild([&] {
    const ScopedFd fd(PidfdOpen(child));
    ASSERT_OK(setns(fd.get(), CLONE_NEWUTS));
    EXPECT_TRUE(Eventually([] {
      utsname now;
      uname(&now);
      return std::string(now.nodename) == "joined";
    }));
  }));
  kill(child, SIGKILL);
  WaitStatus(child);
}

TEST(PidNamespace, FirstChildIsPidOne) {
  EXPECT_TRUE(PassesUnshared(CLONE_NEWPID, [] {
    EXPECT_TRUE(PassesInChild([] {
      EXPECT_EQ(getpid(), 1);
      EXPECT_EQ(getppid(), 0);
      const pid_t grandchild = Spawn([] { EXPECT_EQ(getppid(), 1); });
      EXPECT_EQ(grandchild, 2);
      EXPECT_EQ(WaitStatus(grandchild), 0);
    }));
  }));
}
TEST(PidNamespace, ParentSeesItsOwnNumbers) {
  clone_args args = {};
  args.flags = CLONE_NEWPID;
  args.exit_signal = SIGCHLD;
  const pid_t pid = Clone3(&args);
  if (pid == 0) _exit(getpid() == 1 ? 0 : 1);
  ASSERT_OK(pid);
  EXPECT_GT(pid, 1);
  EXPECT_EQ(WaitStatus(pid), 0);
}
TEST(PidNamespace, InitDeathKillsAll) {
  int p[2];
  ASSERT_OK(pipe(p));
  const ScopedFd r(p[0]);
  ScopedFd w(p[1]);
  clone_args args = {};
  args.flags = CLONE_NEWPID;
  args.exit_signal = SIGCHLD;
  const pid_t pid = Clone3(&args);
  if (pid == 0) {
    for (int i = 0; i < 3; ++i) {
      if (fork() == 0) {
        for (;;) pause();
      }
    }
    _exit(0);
  }
  w.Reset();
  EXPECT_EQ(WaitStatus(pid), 0);
  char b;
  EXPECT_EQ(read(r.get(), &b, 1), 0);  // no process of the namespace is left to hold the writer
}
TEST(PidNamespace, InitIgnoresSignalsItDoesNotHandle) {
  clone_args args = {};
  args.flags = CLONE_NEWPID;
  args.exit_signal = SIGCHLD;
  const pid_t pid = Clone3(&args);
  if (pid == 0) {
    kill(1, SIGKILL);
    kill(1, SIGTERM);
    _exit(5);
  }
  const int status = WaitStatus(pid);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 5);
}
TEST(PidNamespace, OrphansGoToInit) {
  clone_args args = {};
  args.flags = CLONE_NEWPID;
  args.exit_signal = SIGCHLD;
  const pid_t pid = Clone3(&args);
  if (pid == 0) {
    const pid_t middle = fork();
    if (middle == 0) {
      if (fork() == 0) {
        while (getppid() != 1) usleep(500);
        _exit(9);
      }
      _exit(0);
    }
    int status, code = 0;
    for (pid_t reaped; (reaped = wait(&status)) > 0;) {
      if (reaped != middle) code = WEXITSTATUS(status);
    }
    _exit(code);
  }
  EXPECT_EQ(WEXITSTATUS(WaitStatus(pid)), 9);
}

TEST(UserNamespace, UserGetsCapabilitiesInside) {
  EXPECT_TRUE(PassesAsUser(1000, [] {
    ASSERT_OK(unshare(CLONE_NEWUSER));
    EXPECT_EQ(getuid(), 65534u);
    Write("/proc/self/setgroups", "deny");
    Write("/proc/self/uid_map", "0 1000 1");
    Write("/proc/self/gid_map", "0 1000 1");
    EXPECT_EQ(getuid(), 0u);
    EXPECT_EQ(getgid(), 0u);
    ASSERT_OK(unshare(CLONE_NEWUTS));
    EXPECT_OK(sethostname("mine", 4));
    EXPECT_FAIL(setgroups(0, nullptr), EPERM);
  }));
}
TEST(UserNamespace, MapIsWrittenOnce) {
  EXPECT_TRUE(PassesAsUser(1000, [] {
    ASSERT_OK(unshare(CLONE_NEWUSER));
    Write("/proc/self/uid_map", "0 1000 1");
    const ScopedFd fd(open("/proc/self/uid_map", O_WRONLY));
    EXPECT_FAIL(write(fd.get(), "0 1000 1", 8), EPERM);
    EXPECT_EQ(ReadFile("/proc/self/uid_map"), "         0       1000          1\n");
  }));
}
TEST(UserNamespace, UserMayMapOnlyItself) {
  EXPECT_TRUE(PassesAsUser(1000, [] {
    ASSERT_OK(unshare(CLONE_NEWUSER));
    const ScopedFd fd(open("/proc/self/uid_map", O_WRONLY));
    EXPECT_FAIL(write(fd.get(), "0 0 10", 6), EPERM);
    EXPECT_FAIL(write(fd.get(), "garbage", 7), EINVAL);
    const ScopedFd gid(open("/proc/self/gid_map", O_WRONLY));
    EXPECT_FAIL(write(gid.get(), "0 1000 1", 8), EPERM);  // setgroups is still allowed
  }));
}
TEST(UserNamespace, FileOwnersAreMapped) {
  const TempDir dir;
  ASSERT_OK(chmod(dir.path().c_str(), 0777));
  const std::string root_file = dir.File("root");
  EXPECT_TRUE(PassesAsUser(1000, [&] {
    ASSERT_OK(unshare(CLONE_NEWUSER));
    Write("/proc/self/uid_map", "0 1000 1");
    const ScopedFd made(open(dir.Join("made").c_str(), O_CREAT | O_WRONLY, 0600));
    ASSERT_OK(made.get());
    struct stat st;
    ASSERT_OK(fstat(made.get(), &st));
    EXPECT_EQ(st.st_uid, 0u);
    ASSERT_OK(stat(root_file.c_str(), &st));
    EXPECT_EQ(st.st_uid, 65534u);
    EXPECT_FAIL(chmod(root_file.c_str(), 0666), EPERM);
  }));
  struct stat st;
  ASSERT_OK(stat(dir.Join("made").c_str(), &st));
  EXPECT_EQ(st.st_uid, 1000u);
}
TEST(UserNamespace, ThreadsCannotLeave) {
  EXPECT_TRUE(PassesInChild([] {
    ASSERT_OK(unshare(CLONE_NEWUSER));
    const ScopedFd own(open("/proc/self/ns/user", O_RDONLY));
    EXPECT_FAIL(setns(own.get(), CLONE_NEWUSER), EINVAL);
  }));
}

class Mount : public testing::Test {
 protected:
  // Runs `body` in a mount namespace of its own that shares no events with ours.
  testing::AssertionResult Passes(const std::function<void()>& body) {
    return PassesUnshared(CLONE_NEWNS, [&] {
      ASSERT_OK(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr));
      body();
    });
  }
  std::string At(std::string_view name) const { return dir_.Join(name); }
  static int Tmpfs(const std::string& at, unsigned long flags = 0, const char* options = nullptr) {
    return mount("tmpfs", at.c_str(), "tmpfs", flags, options);
  }
  static int Bind(const std::string& from, const std::string& to, unsigned long flags = 0) {
    return mount(from.c_str(), to.c_str(), nullptr, MS_BIND | flags, nullptr);
  }
  TempDir dir_;
};
TEST_F(Mount, TmpfsHidesAndUnmountShows) {
  dir_.Dir("m");
  dir_.File("m/below");
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(Tmpfs(At("m")));
    EXPECT_TRUE(List(At("m")).empty());
    dir_.File("m/above");
    ASSERT_OK(umount(At("m").c_str()));
    EXPECT_EQ(List(At("m")), std::vector<std::string>{"below"});
  }));
}
TEST_F(Mount, OnlyInThisNamespace) {
  dir_.Dir("m");
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(Tmpfs(At("m")));
    dir_.File("m/x");
  }));
  EXPECT_TRUE(List(At("m")).empty());
}
TEST_F(Mount, BindDirectoryAndFile) {
  dir_.Dir("a");
  dir_.File("a/f", "content");
  dir_.Dir("b");
  dir_.File("g");
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(Bind(At("a"), At("b")));
    EXPECT_EQ(ReadFile(At("b/f")), "content");
    dir_.File("b/new");
    EXPECT_TRUE(Exists(At("a/new")));
    ASSERT_OK(Bind(At("a/f"), At("g")));
    EXPECT_EQ(ReadFile(At("g")), "content");
    EXPECT_FAIL(Bind(At("a"), At("g")), ENOTDIR);
  }));
}
TEST_F(Mount, BoundNamespaceFileIsShownByItsPlace) {
  dir_.File("ns");
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(Bind("/proc/self/ns/uts", At("ns")));
    int fd = open(At("ns").c_str(), O_RDONLY);
    ASSERT_OK(fd);
    EXPECT_EQ(Link("/proc/self/fd/" + std::to_string(fd)), At("ns"));
    int unbound = open("/proc/self/ns/uts", O_RDONLY);
    ASSERT_OK(unbound);
    EXPECT_EQ(Link("/proc/self/fd/" + std::to_string(unbound)).substr(0, 5), "uts:[");
  }));
}
TEST_F(Mount, RecursiveBindTakesSubmounts) {
  dir_.Dir("a");
  dir_.Dir("a/m");
  dir_.Dir("b");
  dir_.Dir("c");
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(Tmpfs(At("a/m")));
    dir_.File("a/m/inner");
    ASSERT_OK(Bind(At("a"), At("b")));
    EXPECT_FALSE(Exists(At("b/m/inner")));
    ASSERT_OK(Bind(At("a"), At("c"), MS_REC));
    EXPECT_TRUE(Exists(At("c/m/inner")));
  }));
}
TEST_F(Mount, ReadOnlyRemount) {
  dir_.Dir("m");
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(Tmpfs(At("m")));
    dir_.File("m/f", "x");
    ASSERT_OK(mount(nullptr, At("m").c_str(), nullptr, MS_REMOUNT | MS_RDONLY, nullptr));
    EXPECT_FAIL(open(At("m/new").c_str(), O_CREAT | O_WRONLY, 0600), EROFS);
    EXPECT_FAIL(open(At("m/f").c_str(), O_WRONLY), EROFS);
    EXPECT_FAIL(unlink(At("m/f").c_str()), EROFS);
    EXPECT_FAIL(mkdir(At("m/d").c_str(), 0700), EROFS);
    EXPECT_FAIL(chmod(At("m/f").c_str(), 0600), EROFS);
    EXPECT_FAIL(access(At("m/f").c_str(), W_OK), EROFS);
    EXPECT_EQ(ReadFile(At("m/f")), "x");
    ASSERT_OK(mount(nullptr, At("m").c_str(), nullptr, MS_REMOUNT, nullptr));
    EXPECT_OK(unlink(At("m/f").c_str()));
  }));
}
TEST_F(Mount, ReadOnlyBind) {
  dir_.Dir("a");
  dir_.Dir("b");
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(Bind(At("a"), At("b")));
    ASSERT_OK(mount(nullptr, At("b").c_str(), nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr));
    EXPECT_FAIL(open(At("b/new").c_str(), O_CREAT | O_WRONLY, 0600), EROFS);
    const ScopedFd fd(open(At("a/new").c_str(), O_CREAT | O_WRONLY, 0600));
    EXPECT_OK(fd.get());
  }));
}
TEST_F(Mount, NoexecAndNodev) {
  dir_.Dir("m");
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(Tmpfs(At("m"), MS_NOEXEC));
    const std::string script = dir_.File("m/s", "#!/bin/true\n", 0755);
    char* argv[] = {const_cast<char*>(script.c_str()), nullptr};
    EXPECT_FAIL(execv(script.c_str(), argv), EACCES);
    EXPECT_FAIL(access(script.c_str(), X_OK), EACCES);
  }));
}
TEST_F(Mount, TmpfsOptions) {
  dir_.Dir("m");
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(Tmpfs(At("m"), 0, "size=64k,mode=0710,uid=5,gid=6"));
    struct stat st;
    ASSERT_OK(stat(At("m").c_str(), &st));
    EXPECT_EQ(st.st_mode & 07777, 0710u);
    EXPECT_EQ(st.st_uid, 5u);
    EXPECT_EQ(st.st_gid, 6u);
    const ScopedFd fd(open(At("m/f").c_str(), O_CREAT | O_WRONLY, 0600));
    const std::string block(65536, 'x');
    EXPECT_EQ(write(fd.get(), block.data(), block.size()), 65536);
    EXPECT_FAIL(write(fd.get(), "x", 1), ENOSPC);
    EXPECT_FAIL(Tmpfs(At("m"), 0, "nonsense=1"), EINVAL);
  }));
}
TEST_F(Mount, BusyUnlessLazy) {
  dir_.Dir("m");
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(Tmpfs(At("m")));
    dir_.File("m/f", "kept");
    const ScopedFd fd(open(At("m/f").c_str(), O_RDONLY));
    EXPECT_FAIL(umount(At("m").c_str()), EBUSY);
    ASSERT_OK(umount2(At("m").c_str(), MNT_DETACH));
    EXPECT_TRUE(List(At("m")).empty());
    EXPECT_EQ(ReadAll(fd.get()), "kept");
  }));
}
TEST_F(Mount, PropagationSharedAndSlave) {
  dir_.Dir("a");
  dir_.Dir("b");
  dir_.Dir("s");
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(Tmpfs(At("a")));
    dir_.Dir("a/m");
    ASSERT_OK(mount(nullptr, At("a").c_str(), nullptr, MS_SHARED, nullptr));
    ASSERT_OK(Bind(At("a"), At("b")));
    ASSERT_OK(Bind(At("a"), At("s")));
    ASSERT_OK(mount(nullptr, At("s").c_str(), nullptr, MS_SLAVE, nullptr));
    ASSERT_OK(Tmpfs(At("a/m")));
    dir_.File("a/m/x");
    EXPECT_TRUE(Exists(At("b/m/x")));
    EXPECT_TRUE(Exists(At("s/m/x")));
    ASSERT_OK(umount(At("a/m").c_str()));
    EXPECT_FALSE(Exists(At("b/m/x")));
    ASSERT_OK(Tmpfs(At("s/m")));
    dir_.File("s/m/y");
    EXPECT_FALSE(Exists(At("a/m/y")));  // a slave sends nothing back
  }));
}
TEST_F(Mount, MoveMount) {
  dir_.Dir("a");
  dir_.Dir("b");
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(Tmpfs(At("a")));
    dir_.File("a/x");
    ASSERT_OK(mount(At("a").c_str(), At("b").c_str(), nullptr, MS_MOVE, nullptr));
    EXPECT_TRUE(Exists(At("b/x")));
    EXPECT_FALSE(Exists(At("a/x")));
  }));
}
TEST_F(Mount, Mountinfo) {
  dir_.Dir("m");
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(Tmpfs(At("m"), MS_NOSUID));
    const std::string info = ReadFile("/proc/self/mountinfo");
    EXPECT_NE(info.find(" " + At("m") + " "), std::string::npos);
    EXPECT_NE(ReadFile("/proc/self/mounts").find("tmpfs " + At("m") + " tmpfs rw,nosuid"), std::string::npos);
  }));
}
TEST_F(Mount, RemovingAMountPointIsBusy) {
  dir_.Dir("m");
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(Tmpfs(At("m")));
    EXPECT_FAIL(rmdir(At("m").c_str()), EBUSY);
    EXPECT_FAIL(rename(At("m").c_str(), At("n").c_str()), EBUSY);
  }));
}
TEST_F(Mount, Errors) {
  dir_.Dir("m");
  dir_.File("f");
  EXPECT_TRUE(Passes([&] {
    EXPECT_FAIL(mount("x", At("m").c_str(), "no-such-fs", 0, nullptr), ENODEV);
    EXPECT_FAIL(Tmpfs(At("no")), ENOENT);
    EXPECT_FAIL(Tmpfs(At("f")), ENOTDIR);
    EXPECT_FAIL(umount(At("m").c_str()), EINVAL);
    EXPECT_FAIL(umount2(At("m").c_str(), 0x100), EINVAL);
    EXPECT_FAIL(Bind(At("no"), At("m")), ENOENT);
  }));
  EXPECT_TRUE(PassesAsUser(1000, [&] {
    EXPECT_FAIL(mount("tmpfs", "/tmp", "tmpfs", 0, nullptr), EPERM);
    EXPECT_FAIL(umount("/tmp"), EPERM);
  }));
}
TEST_F(Mount, PivotRoot) {
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(Tmpfs(dir_.path()));
    dir_.Dir("old");
    dir_.File("marker");
    ASSERT_OK(chdir(dir_.path().c_str()));
    ASSERT_OK(syscall(SYS_pivot_root, ".", "old"));
    ASSERT_OK(chdir("/"));
    EXPECT_TRUE(Exists("/marker"));
    EXPECT_TRUE(Exists("/old/proc"));
    ASSERT_OK(umount2("/old", MNT_DETACH));
    EXPECT_TRUE(List("/old").empty());
  }));
}
TEST_F(Mount, PivotRootErrors) {
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(Tmpfs(dir_.path()));
    ASSERT_OK(chroot(dir_.path().c_str()));
    ASSERT_OK(chdir("/"));
    ASSERT_OK(mkdir("/plain", 0755));
    ASSERT_OK(mkdir("/plain/old", 0755));
    ASSERT_OK(mkdir("/new", 0755));
    // Both on the current root's mount, and the old root's place on it.
    EXPECT_FAIL(syscall(SYS_pivot_root, "/plain", "/plain/old"), EBUSY);
    ASSERT_OK(Tmpfs("/new"));
    ASSERT_OK(mkdir("/new/old", 0755));
    EXPECT_FAIL(syscall(SYS_pivot_root, "/new", "/plain/old"), EBUSY);
    ASSERT_OK(mkdir("/new/dir", 0755));
    EXPECT_FAIL(syscall(SYS_pivot_root, "/new/dir", "/new/old"), EINVAL);
    ASSERT_OK(syscall(SYS_pivot_root, "/new", "/new/old"));
  }));
}
TEST_F(Mount, UserNamespaceMayMountTmpfs) {
  dir_.Dir("m");
  ASSERT_OK(chmod(dir_.path().c_str(), 0755));
  EXPECT_TRUE(PassesAsUser(1000, [&] {
    ASSERT_OK(unshare(CLONE_NEWUSER | CLONE_NEWNS));
    Write("/proc/self/setgroups", "deny");
    Write("/proc/self/uid_map", "0 1000 1");
    Write("/proc/self/gid_map", "0 1000 1");
    ASSERT_OK(Tmpfs(At("m")));
    const ScopedFd fd(open(At("m/f").c_str(), O_CREAT | O_WRONLY, 0600));
    EXPECT_OK(fd.get());
  }));
}
TEST_F(Mount, OverlayOfTmpfs) {
  EXPECT_TRUE(Passes([&] {
    ASSERT_OK(Tmpfs(dir_.path()));
    for (const char* name : {"lower", "upper", "work", "merged"}) dir_.Dir(name);
    dir_.File("lower/f", "low");
    dir_.File("lower/gone", "x");
    const std::string options = "lowerdir=" + At("lower") + ",upperdir=" + At("upper") + ",workdir=" + At("work");
    ASSERT_OK(mount("overlay", At("merged").c_str(), "overlay", 0, options.c_str()));
    EXPECT_EQ(ReadFile(At("merged/f")), "low");
    const ScopedFd fd(open(At("merged/f").c_str(), O_WRONLY | O_APPEND));
    ASSERT_EQ(write(fd.get(), "+up", 3), 3);
    EXPECT_EQ(ReadFile(At("merged/f")), "low+up");
    EXPECT_EQ(ReadFile(At("lower/f")), "low");
    ASSERT_OK(unlink(At("merged/gone").c_str()));
    EXPECT_FALSE(Exists(At("merged/gone")));
    EXPECT_TRUE(Exists(At("lower/gone")));
    EXPECT_EQ(List(At("merged")), std::vector<std::string>{"f"});
  }));
}

}  // namespace
}  // namespace moat::guest
