// The gofer as it really runs: in a process of its own, without capabilities beyond its list, under its filter. Every
// operation must work there; what is not on the list must end it.
#include <sys/stat.h>
#include <sys/wait.h>

#include <cstring>

#include "runsc/gofer/gofer_for_test.h"

namespace moat {
namespace {

class LockedGofer {
 public:
  explicit LockedGofer(const std::string& root) {
    int ends[2];
    EXPECT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
    fflush(nullptr);
    pid_ = fork();
    if (pid_ == 0) {
      close(ends[0]);
      GoferConfig config;
      config.connections.emplace_back(ends[1]);
      config.mounts.push_back(MountOf(root));
      _exit(RunGofer(std::move(config)));
    }
    close(ends[1]);
    std::vector<ScopedFd> sockets;
    sockets.emplace_back(ends[0]);
    client = GoferClient::Create(std::move(sockets)).value();
  }
  // Its exit status once the client is gone.
  int Finish() {
    client.reset();
    int status = -1;
    EXPECT_EQ(pid_, waitpid(pid_, &status, 0));
    return status;
  }
  RefPtr<GoferClient> client;

 private:
  pid_t pid_;
};

TEST(LockedGofer, EveryOperationIsOnTheList) {
  TempTree tree;
  tree.Write("file", "contents");
  LockedGofer gofer(tree.path());
  GoferClient& c = *gofer.client;
  auto attached = c.Attach(0);
  ASSERT_TRUE(attached.ok()) << ErrnoName(attached.error());
  gofer::Handle root = attached->handle;
  GoferClient::NewOwner owner{0644, getuid(), getgid()};
  std::string_view name = "file";
  gofer::Handle file = c.Walk(root, std::span(&name, 1))->steps.at(0).handle;
  EXPECT_TRUE(c.GetAttr(file).ok());
  EXPECT_TRUE(c.Open(file, O_RDONLY).ok());
  EXPECT_TRUE(c.Open(file, O_RDWR).ok());
  gofer::Request change = {};
  change.mask =
      gofer::kSetMode | gofer::kSetUid | gofer::kSetGid | gofer::kSetSize | gofer::kSetAtime | gofer::kSetMtimeNow;
  change.mode = 0600;
  change.uid = getuid();
  change.gid = getgid();
  change.value = 4;
  EXPECT_TRUE(c.SetAttr(file, change).ok());
  if (getuid() == 0) {
    change.mask = gofer::kSetUid | gofer::kSetGid;
    change.uid = change.gid = 1234;
    EXPECT_EQ(1234u, c.SetAttr(file, change)->uid);
    EXPECT_TRUE(c.Open(file, O_RDWR).ok());  // CAP_DAC_OVERRIDE
    EXPECT_EQ(77u, c.Mkdir(root, "owned", {0755, 77, 78})->attr.uid);
  }
  auto made = c.Create(root, "new", owner);
  ASSERT_TRUE(made.ok());
  auto dir = c.Mkdir(root, "dir", {0755, getuid(), getgid()});
  ASSERT_TRUE(dir.ok());
  auto temporary = c.CreateTemporary(root, owner);
  EXPECT_TRUE(temporary.ok() || temporary.error() == kEOPNOTSUPP) << ErrnoName(temporary.error());
  EXPECT_TRUE(c.Mknod(root, "fifo", {S_IFIFO | 0644, getuid(), getgid()}).ok());
  EXPECT_TRUE(c.Mknod(root, "socket", {S_IFSOCK | 0644, getuid(), getgid()}).ok());
  auto link = c.Symlink(root, "link", "target", {0777, getuid(), getgid()});
  ASSERT_TRUE(link.ok());
  EXPECT_EQ("target", c.Readlink(link->handle).value());
  EXPECT_TRUE(c.Link(dir->handle, "hard", made->handle).ok());
  EXPECT_TRUE(c.Rename(root, "new", dir->handle, "moved", 0).ok());
  EXPECT_TRUE(c.Unlink(dir->handle, "hard", made->handle, false).ok());
  EXPECT_TRUE(c.Readdir(root, 0).ok());
  EXPECT_TRUE(c.StatFileSystem(root).ok());
  EXPECT_TRUE(c.Sync(made->handle, GoferClient::SyncKind::kFile).ok());
  EXPECT_TRUE(c.Sync(made->handle, GoferClient::SyncKind::kData).ok());
  EXPECT_TRUE(c.Sync(root, GoferClient::SyncKind::kFileSystem).ok());
  EXPECT_NE(kEIO, c.Allocate(made->handle, 0, 0, 4096).error());
  EXPECT_NE(kEIO, c.Seek(made->handle, 0, SEEK_DATA).error());
  EXPECT_NE(kEIO, c.SetXattr(made->handle, "user.a", "b", 0).error());
  EXPECT_NE(kEIO, c.GetXattr(made->handle, "user.a").error());
  EXPECT_NE(kEIO, c.ListXattr(made->handle).error());
  EXPECT_NE(kEIO, c.RemoveXattr(made->handle, "user.a").error());
  ScopedFd stdio(open((tree / "file").c_str(), O_RDWR | O_APPEND));
  auto added = c.StdioAdd(stdio.get());
  ASSERT_TRUE(added.ok());
  EXPECT_EQ(O_RDWR | O_APPEND, added->status_flags & (O_ACCMODE | O_APPEND));
  EXPECT_EQ(2, c.StdioSeek(added->handle, 2, SEEK_SET).value());
  EXPECT_EQ(2, lseek(stdio.get(), 0, SEEK_CUR));
  EXPECT_TRUE(c.StdioSync(added->handle, false).ok());
  EXPECT_TRUE(c.StdioTruncate(added->handle, 1).ok());
  EXPECT_EQ(1u, c.StdioGetAttr(added->handle)->size);
  EXPECT_EQ(kEBADF, c.Open(added->handle, O_RDONLY).error());
  EXPECT_EQ(kEBADF, c.StdioSeek(file, 0, SEEK_CUR).error());
  c.Forget(file);
  c.FlushForgotten();
  // Enough of them that the table and the heap grow under the filter.
  for (int i = 0; i < 3000; ++i) ASSERT_TRUE(c.Walk(root, std::span(&name, 1)).ok());
  EXPECT_FALSE(c.dead());
  int status = gofer.Finish();
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

}  // namespace
}  // namespace moat
