// inotify(7).
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

struct Event {
  int wd;
  uint32_t mask;
  uint32_t cookie;
  std::string name;
};

class Inotify : public testing::Test {
 protected:
  void SetUp() override {
    fd_.Reset(inotify_init1(IN_NONBLOCK | IN_CLOEXEC));
    ASSERT_OK(fd_.get());
  }
  int Watch(const std::string& path, uint32_t mask) {
    const int wd = inotify_add_watch(fd_.get(), path.c_str(), mask);
    EXPECT_OK(wd);
    return wd;
  }
  int WatchDir(uint32_t mask = IN_ALL_EVENTS) { return Watch(dir_.path(), mask); }
  std::vector<Event> Take() {
    std::vector<Event> events;
    alignas(inotify_event) char b[8192];
    const ssize_t n = read(fd_.get(), b, sizeof b);
    for (ssize_t at = 0; at < n;) {
      auto* e = reinterpret_cast<inotify_event*>(b + at);
      events.push_back({e->wd, e->mask, e->cookie, e->len > 0 ? e->name : ""});
      at += static_cast<ssize_t>(sizeof *e + e->len);
    }
    return events;
  }
  // "MASK name" of every event, in hex.
  static std::string Text(const std::vector<Event>& events) {
    std::string text;
    char b[32];
    for (const Event& e : events) {
      snprintf(b, sizeof b, "%x:", e.mask);
      text += b + e.name + " ";
    }
    return text;
  }
  static std::string Text(std::initializer_list<std::pair<uint32_t, const char*>> events) {
    std::vector<Event> list;
    for (auto [mask, name] : events) list.push_back({0, mask, 0, name});
    return Text(list);
  }
  TempDir dir_;
  ScopedFd fd_;
};

TEST_F(Inotify, CreateWriteCloseDelete) {
  WatchDir();
  {
    const ScopedFd f(open(dir_.Join("f").c_str(), O_CREAT | O_WRONLY, 0600));
    ASSERT_EQ(write(f.get(), "x", 1), 1);
  }
  ASSERT_OK(unlink(dir_.Join("f").c_str()));
  EXPECT_EQ(Text(Take()),
            Text({{IN_CREATE, "f"}, {IN_OPEN, "f"}, {IN_MODIFY, "f"}, {IN_CLOSE_WRITE, "f"}, {IN_DELETE, "f"}}));
}
TEST_F(Inotify, ReadAndCloseNowrite) {
  const std::string path = dir_.File("f", "abc");
  WatchDir();
  EXPECT_EQ(ReadFile(path), "abc");
  EXPECT_EQ(Text(Take()), Text({{IN_OPEN, "f"}, {IN_ACCESS, "f"}, {IN_CLOSE_NOWRITE, "f"}}));
}
TEST_F(Inotify, MkdirAndRmdirSayIsdir) {
  WatchDir(IN_CREATE | IN_DELETE);
  dir_.Dir("d");
  ASSERT_OK(rmdir(dir_.Join("d").c_str()));
  EXPECT_EQ(Text(Take()), Text({{IN_CREATE | IN_ISDIR, "d"}, {IN_DELETE | IN_ISDIR, "d"}}));
}
TEST_F(Inotify, RenameWithinADirectoryHasOneCookie) {
  dir_.File("a");
  WatchDir(IN_MOVE);
  ASSERT_OK(rename(dir_.Join("a").c_str(), dir_.Join("b").c_str()));
  const auto events = Take();
  ASSERT_EQ(Text(events), Text({{IN_MOVED_FROM, "a"}, {IN_MOVED_TO, "b"}}));
  EXPECT_EQ(events[0].cookie, events[1].cookie);
  EXPECT_NE(events[0].cookie, 0u);
}
TEST_F(Inotify, RenameOutOfTheDirectory) {
  dir_.Dir("other");
  dir_.File("a");
  WatchDir(IN_MOVE);
  ASSERT_OK(rename(dir_.Join("a").c_str(), dir_.Join("other/a").c_str()));
  EXPECT_EQ(Text(Take()), Text({{IN_MOVED_FROM, "a"}}));
}
TEST_F(Inotify, Attributes) {
  const std::string path = dir_.File("f");
  WatchDir(IN_ATTRIB);
  ASSERT_OK(chmod(path.c_str(), 0600));
  ASSERT_OK(utimensat(AT_FDCWD, path.c_str(), nullptr, 0));
  EXPECT_GE(Take().size(), 1u);  // equal neighbours merge
}
TEST_F(Inotify, FileWatchHasNoName) {
  const std::string path = dir_.File("f");
  Watch(path, IN_MODIFY);
  ASSERT_OK(truncate(path.c_str(), 10));
  EXPECT_EQ(Text(Take()), Text({{IN_MODIFY, ""}}));
}
TEST_F(Inotify, DeleteSelfThenIgnored) {
  const std::string path = dir_.File("f");
  const int wd = Watch(path, IN_DELETE_SELF);
  ASSERT_OK(unlink(path.c_str()));
  const auto events = Take();
  EXPECT_EQ(Text(events), Text({{IN_DELETE_SELF, ""}, {IN_IGNORED, ""}}));
  EXPECT_EQ(events[0].wd, wd);
}
TEST_F(Inotify, MoveSelf) {
  const std::string path = dir_.File("f");
  Watch(path, IN_MOVE_SELF);
  ASSERT_OK(rename(path.c_str(), dir_.Join("g").c_str()));
  EXPECT_EQ(Text(Take()), Text({{IN_MOVE_SELF, ""}}));
}
TEST_F(Inotify, EqualNeighboursMerge) {
  const std::string path = dir_.File("f");
  Watch(path, IN_MODIFY);
  const ScopedFd f(open(path.c_str(), O_WRONLY));
  ASSERT_EQ(write(f.get(), "a", 1), 1);
  ASSERT_EQ(write(f.get(), "b", 1), 1);
  EXPECT_EQ(Take().size(), 1u);
}
TEST_F(Inotify, SameFileSameWatch) {
  const int wd = WatchDir(IN_CREATE);
  EXPECT_EQ(Watch(dir_.path() + "/.", IN_DELETE), wd);
  dir_.File("f");  // the mask was replaced
  EXPECT_TRUE(Take().empty());
}
TEST_F(Inotify, MaskAdd) {
  const int wd = WatchDir(IN_CREATE);
  EXPECT_EQ(WatchDir(IN_DELETE | IN_MASK_ADD), wd);
  dir_.File("f");
  EXPECT_EQ(Text(Take()), Text({{IN_CREATE, "f"}}));
}
TEST_F(Inotify, MaskCreateRefusesExisting) {
  WatchDir(IN_CREATE);
  EXPECT_FAIL(inotify_add_watch(fd_.get(), dir_.path().c_str(), IN_CREATE | IN_MASK_CREATE), EEXIST);
}
TEST_F(Inotify, OneShot) {
  WatchDir(IN_CREATE | IN_ONESHOT);
  dir_.File("a");
  dir_.File("b");
  EXPECT_EQ(Text(Take()), Text({{IN_CREATE, "a"}, {IN_IGNORED, ""}}));
}
TEST_F(Inotify, RemoveWatch) {
  const int wd = WatchDir(IN_CREATE);
  ASSERT_OK(inotify_rm_watch(fd_.get(), wd));
  dir_.File("f");
  EXPECT_EQ(Text(Take()), Text({{IN_IGNORED, ""}}));
  EXPECT_FAIL(inotify_rm_watch(fd_.get(), wd), EINVAL);
}
TEST_F(Inotify, OnlyDirAndDontFollow) {
  const std::string path = dir_.File("f");
  ASSERT_OK(symlink("f", dir_.Join("l").c_str()));
  EXPECT_FAIL(inotify_add_watch(fd_.get(), path.c_str(), IN_CREATE | IN_ONLYDIR), ENOTDIR);
  Watch(dir_.Join("l"), IN_DELETE_SELF | IN_DONT_FOLLOW);
  ASSERT_OK(unlink(dir_.Join("l").c_str()));
  EXPECT_EQ(Take().size(), 2u);
}
TEST_F(Inotify, UnlinkedChildrenAreStillHeardOf) {
  const ScopedFd f(open(dir_.Join("f").c_str(), O_CREAT | O_RDWR, 0600));
  ASSERT_OK(f.get());
  WatchDir();
  ASSERT_OK(unlink(dir_.Join("f").c_str()));
  ASSERT_EQ(write(f.get(), "x", 1), 1);
  char c;
  ASSERT_EQ(pread(f.get(), &c, 1, 0), 1);
  ASSERT_OK(fchmod(f.get(), 0400));
  EXPECT_EQ(Text(Take()), Text({{IN_DELETE, "f"}, {IN_MODIFY, "f"}, {IN_ACCESS, "f"}, {IN_ATTRIB, "f"}}));
}
TEST_F(Inotify, ExclUnlinkEndsReadsAndWritesOnly) {
  const ScopedFd f(open(dir_.Join("f").c_str(), O_CREAT | O_RDWR, 0600));
  const int own = Watch(dir_.Join("f"), IN_MODIFY | IN_ATTRIB | IN_EXCL_UNLINK);
  const int dir = WatchDir(IN_ALL_EVENTS | IN_EXCL_UNLINK);
  ASSERT_EQ(write(f.get(), "x", 1), 1);
  ASSERT_OK(unlink(dir_.Join("f").c_str()));
  ASSERT_EQ(write(f.get(), "y", 1), 1);
  ASSERT_OK(fchmod(f.get(), 0400));
  std::vector<std::pair<int, uint32_t>> seen;
  for (const Event& e : Take()) seen.emplace_back(e.wd, e.mask);
  std::sort(seen.begin(), seen.end());
  std::vector<std::pair<int, uint32_t>> want = {{own, IN_MODIFY}, {own, IN_ATTRIB}, {own, IN_ATTRIB},
                                                {dir, IN_MODIFY}, {dir, IN_DELETE}, {dir, IN_ATTRIB}};
  std::sort(want.begin(), want.end());
  EXPECT_EQ(seen, want);
}
TEST_F(Inotify, ExclUnlinkStopsAfterUnlink) {
  const std::string path = dir_.File("f");
  const ScopedFd f(open(path.c_str(), O_WRONLY));
  WatchDir(IN_MODIFY | IN_EXCL_UNLINK);
  ASSERT_OK(unlink(path.c_str()));
  ASSERT_EQ(write(f.get(), "x", 1), 1);
  EXPECT_TRUE(Take().empty());
}
TEST_F(Inotify, LinkCountChangeIsAttrib) {
  const std::string path = dir_.File("f");
  Watch(path, IN_ATTRIB);
  ASSERT_OK(link(path.c_str(), dir_.Join("g").c_str()));
  EXPECT_EQ(Text(Take()), Text({{IN_ATTRIB, ""}}));
}
TEST_F(Inotify, Errors) {
  EXPECT_FAIL(inotify_init1(0x1), EINVAL);
  EXPECT_FAIL(inotify_add_watch(fd_.get(), dir_.Join("no").c_str(), IN_CREATE), ENOENT);
  EXPECT_FAIL(inotify_add_watch(fd_.get(), dir_.path().c_str(), 0), EINVAL);
  EXPECT_FAIL(inotify_add_watch(-1, dir_.path().c_str(), IN_CREATE), EBADF);
  const ScopedFd null(open("/dev/null", O_RDWR));
  EXPECT_FAIL(inotify_add_watch(null.get(), dir_.path().c_str(), IN_CREATE), EINVAL);
  EXPECT_FAIL(inotify_add_watch(fd_.get(), BadPointer(), IN_CREATE), EFAULT);
}
TEST_F(Inotify, NeedsReadPermission) {
  ASSERT_OK(chmod(dir_.path().c_str(), 0711));
  EXPECT_TRUE(
      PassesAsUser(1000, [&] { EXPECT_FAIL(inotify_add_watch(fd_.get(), dir_.path().c_str(), IN_CREATE), EACCES); }));
}
TEST_F(Inotify, BufferTooSmall) {
  WatchDir(IN_CREATE);
  dir_.File("f");
  char b[8];
  EXPECT_FAIL(read(fd_.get(), b, sizeof b), EINVAL);
  EXPECT_EQ(Take().size(), 1u);
}
TEST_F(Inotify, PollAndFionread) {
  WatchDir(IN_CREATE);
  pollfd p = {fd_.get(), POLLIN, 0};
  EXPECT_EQ(poll(&p, 1, 0), 0);
  dir_.File("f");
  EXPECT_EQ(poll(&p, 1, 0), 1);
  int n = 0;
  ASSERT_OK(ioctl(fd_.get(), FIONREAD, &n));
  EXPECT_EQ(n, static_cast<int>(sizeof(inotify_event) + 16));
}
TEST_F(Inotify, EventFromAnotherProcess) {
  WatchDir(IN_CREATE);
  EXPECT_TRUE(PassesInChild([&] { dir_.File("child"); }));
  EXPECT_EQ(Text(Take()), Text({{IN_CREATE, "child"}}));
}
TEST_F(Inotify, EmptyRead) {
  char b[64];
  EXPECT_FAIL(read(fd_.get(), b, sizeof b), EAGAIN);
}

int changes_signalled;
int changed_fd;
void OnDirectoryChange(int, siginfo_t* info, void*) {
  ++changes_signalled;
  changed_fd = info->si_fd;
}
TEST_F(Inotify, FcntlNotifySignalsChangesOfADirectory) {
  struct sigaction action = {};
  action.sa_sigaction = OnDirectoryChange;
  action.sa_flags = SA_SIGINFO;
  ASSERT_OK(sigaction(SIGRTMIN + 2, &action, nullptr));
  const ScopedFd dir(open(dir_.path().c_str(), O_RDONLY | O_DIRECTORY));
  ASSERT_OK(fcntl(dir.get(), F_SETSIG, SIGRTMIN + 2));
  ASSERT_OK(fcntl(dir.get(), F_NOTIFY, DN_MULTISHOT));  // nothing to be told of
  changes_signalled = 0;
  dir_.File("a", "");
  EXPECT_EQ(changes_signalled, 0);
  ASSERT_OK(fcntl(dir.get(), F_NOTIFY, DN_CREATE));
  dir_.File("b", "");
  EXPECT_EQ(changes_signalled, 1);
  EXPECT_EQ(changed_fd, dir.get());
  dir_.File("c", "");
  EXPECT_EQ(changes_signalled, 1) << "one event only";
  ASSERT_OK(fcntl(dir.get(), F_NOTIFY, DN_DELETE | DN_MULTISHOT));
  ASSERT_OK(unlink(dir_.Join("b").c_str()));
  ASSERT_OK(unlink(dir_.Join("c").c_str()));
  EXPECT_EQ(changes_signalled, 3);
  ASSERT_OK(close(dup(dir.get())));  // any close by the process ends it
  ASSERT_OK(unlink(dir_.Join("a").c_str()));
  EXPECT_EQ(changes_signalled, 3);
  const ScopedFd file(open(dir_.File("d", "").c_str(), O_RDONLY));
  EXPECT_EQ(fcntl(file.get(), F_NOTIFY, DN_CREATE), -1);
  EXPECT_EQ(errno, ENOTDIR);
}
TEST_F(Inotify, FcntlNotifyOfRenamesIsWithinTheDirectory) {
  struct sigaction action = {};
  action.sa_sigaction = OnDirectoryChange;
  action.sa_flags = SA_SIGINFO;
  ASSERT_OK(sigaction(SIGRTMIN + 2, &action, nullptr));
  dir_.Dir("sub");
  dir_.File("a", "");
  const ScopedFd dir(open(dir_.path().c_str(), O_RDONLY | O_DIRECTORY));
  ASSERT_OK(fcntl(dir.get(), F_SETSIG, SIGRTMIN + 2));
  ASSERT_OK(fcntl(dir.get(), F_NOTIFY, DN_RENAME | DN_MULTISHOT));
  changes_signalled = 0;
  ASSERT_OK(rename(dir_.Join("a").c_str(), dir_.Join("sub/a").c_str()));
  EXPECT_EQ(changes_signalled, 0);
  ASSERT_OK(rename(dir_.Join("sub").c_str(), dir_.Join("moved").c_str()));
  EXPECT_EQ(changes_signalled, 1);
}

}  // namespace
}  // namespace moat::guest
