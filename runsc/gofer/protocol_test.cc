// The protocol from end to end: a gofer thread, a client, a directory of the host.
#include <dirent.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <map>

#include "runsc/gofer/gofer_for_test.h"

namespace moat {
namespace {

class ProtocolTest : public testing::Test {
 protected:
  ProtocolTest() : gofer_(Mounts(tree_)) { root_ = client().Attach(0).value().handle; }
  static std::vector<GoferMount> Mounts(const TempTree& tree) {
    std::vector<GoferMount> mounts;
    mounts.push_back(MountOf(tree.path()));
    mounts.push_back(MountOf(tree.path(), /*read_only=*/true));
    return mounts;
  }
  GoferClient& client() { return gofer_.client(); }
  Result<GoferClient::Walked> Walk(gofer::Handle dir, std::vector<std::string_view> names) {
    return client().Walk(dir, names);
  }
  GoferClient::NewOwner Owner(uint32_t mode) { return {mode, getuid(), getgid()}; }

  TempTree tree_;
  GoferForTest gofer_;
  gofer::Handle root_ = 0;
};

TEST_F(ProtocolTest, AttachesToKnownMountsOnly) {
  EXPECT_TRUE(client().Attach(1).ok());
  EXPECT_EQ(kENOENT, client().Attach(2).error());
}

TEST_F(ProtocolTest, WalksSeveralComponentsInOneRequest) {
  std::filesystem::create_directories(tree_ / "a/b");
  tree_.Write("a/b/c", "contents");
  auto walked = Walk(root_, {"a", "b", "c"});
  ASSERT_TRUE(walked.ok());
  EXPECT_EQ(Errno::kOK, walked->error);
  ASSERT_EQ(3u, walked->steps.size());
  EXPECT_TRUE(S_ISDIR(walked->steps[1].attr.mode));
  EXPECT_EQ(8u, walked->steps[2].attr.size);
}

TEST_F(ProtocolTest, AMissingNameEndsAWalkWithWhatExists) {
  std::filesystem::create_directories(tree_ / "a");
  auto walked = Walk(root_, {"a", "missing", "c"});
  ASSERT_TRUE(walked.ok());
  EXPECT_EQ(kENOENT, walked->error);
  EXPECT_EQ(1u, walked->steps.size());
}

TEST_F(ProtocolTest, SymlinksAreNeverFollowed) {
  std::filesystem::create_symlink("/etc", tree_ / "link");
  auto walked = Walk(root_, {"link"});
  ASSERT_TRUE(walked.ok());
  ASSERT_EQ(1u, walked->steps.size());
  EXPECT_TRUE(S_ISLNK(walked->steps[0].attr.mode));
  EXPECT_EQ(kELOOP, Walk(root_, {"link", "passwd"})->error);
  EXPECT_EQ("/etc", client().Readlink(walked->steps[0].handle).value());
}

TEST_F(ProtocolTest, ALookUpLeavesASymlinksAccessTime) {
  std::filesystem::create_symlink("there", tree_ / "link");
  const timespec times[2] = {{1'900'000'000, 0}, {1'900'000'001, 0}};
  ASSERT_EQ(0, utimensat(AT_FDCWD, (tree_ / "link").c_str(), times, AT_SYMLINK_NOFOLLOW));
  auto walked = Walk(root_, {"link"});
  ASSERT_EQ(1u, walked->steps.size());
  EXPECT_EQ("", walked->target);
  EXPECT_EQ(int64_t{1'900'000'000} * 1'000'000'000, client().GetAttr(walked->steps[0].handle)->atime);
  EXPECT_EQ("there", client().Readlink(walked->steps[0].handle).value());
}

TEST_F(ProtocolTest, NamesThatLeadElsewhereAreRefused) {
  std::string with_nul("a\0b", 3);
  for (std::string_view name : {std::string_view(".."), std::string_view("."), std::string_view("a/b"),
                                std::string_view("/etc"), std::string_view(""), std::string_view(with_nul)}) {
    EXPECT_EQ(kEINVAL, Walk(root_, {name})->error) << name;
    EXPECT_EQ(kEINVAL, client().Mkdir(root_, name, Owner(0755)).error()) << name;
    EXPECT_EQ(kEINVAL, client().Create(root_, name, Owner(0644)).error()) << name;
    EXPECT_EQ(kEINVAL, client().Unlink(root_, name, 0, false).error()) << name;
  }
  EXPECT_EQ(kENAMETOOLONG, client().Mkdir(root_, std::string(256, 'x'), Owner(0755)).error());
}

TEST_F(ProtocolTest, CreateHandsOverAnOpenFile) {
  auto made = client().Create(root_, "new", Owner(04755));
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(4, pwrite(made->fd.get(), "data", 4, 0));
  EXPECT_EQ("data", tree_.Read("new"));
  EXPECT_EQ(S_IFREG | 04755u, made->attr.mode);
  EXPECT_EQ(kEEXIST, client().Create(root_, "new", Owner(0644)).error());
}

TEST_F(ProtocolTest, OpensRegularFilesOnly) {
  tree_.Write("file", "hello");
  ASSERT_EQ(0, mkfifo((tree_ / "fifo").c_str(), 0644));
  auto walked = Walk(root_, {"file"});
  auto opened = client().Open(walked->steps[0].handle, O_RDONLY);
  ASSERT_TRUE(opened.ok());
  char buffer[8];
  EXPECT_EQ(5, pread(opened->fd.get(), buffer, sizeof buffer, 0));
  EXPECT_EQ(-1, pwrite(opened->fd.get(), "x", 1, 0));
  EXPECT_EQ(kEISDIR, client().Open(root_, O_RDONLY).error());
  EXPECT_EQ(kENXIO, client().Open(Walk(root_, {"fifo"})->steps[0].handle, O_RDONLY).error());
  EXPECT_EQ(kEINVAL, client().Open(walked->steps[0].handle, O_RDWR | O_TRUNC).error());
}

TEST_F(ProtocolTest, AReadOnlyMountIsReadOnlyInTheGoferToo) {
  tree_.Write("file", "hello");
  gofer::Handle root = client().Attach(1)->handle;
  gofer::Handle file = Walk(root, {"file"})->steps[0].handle;
  EXPECT_TRUE(client().Open(file, O_RDONLY).ok());
  EXPECT_EQ(kEROFS, client().Open(file, O_RDWR).error());
  EXPECT_EQ(kEROFS, client().Create(root, "new", Owner(0644)).error());
  EXPECT_EQ(kEROFS, client().Mkdir(root, "new", Owner(0755)).error());
  EXPECT_EQ(kEROFS, client().Symlink(root, "new", "x", Owner(0777)).error());
  EXPECT_EQ(kEROFS, client().Unlink(root, "file", file, false).error());
  EXPECT_EQ(kEROFS, client().Rename(root, "file", root, "other", 0).error());
  EXPECT_EQ(kEROFS, client().Link(root, "other", file).error());
  gofer::Request change = {};
  change.mask = gofer::kSetMode;
  EXPECT_EQ(kEROFS, client().SetAttr(file, change).error());
  EXPECT_EQ(kEROFS, client().Allocate(file, 0, 0, 10).error());
  EXPECT_EQ(kEROFS, client().SetXattr(file, "user.x", "y", 0).error());
}

TEST_F(ProtocolTest, SetAttrChangesWhatTheMaskSays) {
  tree_.Write("file", "hello");
  gofer::Handle file = Walk(root_, {"file"})->steps[0].handle;
  gofer::Request change = {};
  change.mask = gofer::kSetMode | gofer::kSetSize | gofer::kSetMtime;
  change.mode = 0600;
  change.value = 3;
  change.mtime = 1'000'000'000'000'000'001;
  auto after = client().SetAttr(file, change);
  ASSERT_TRUE(after.ok());
  EXPECT_EQ(S_IFREG | 0600u, after->mode);
  EXPECT_EQ(3u, after->size);
  EXPECT_EQ(1'000'000'000'000'000'001, after->mtime);
  change.mask = 1u << 20;
  EXPECT_EQ(kEINVAL, client().SetAttr(file, change).error());
}

TEST_F(ProtocolTest, NamesAreMadeMovedAndRemoved) {
  auto dir = client().Mkdir(root_, "dir", Owner(0750));
  ASSERT_TRUE(dir.ok());
  auto link = client().Symlink(dir->handle, "link", "target", Owner(0777));
  ASSERT_TRUE(link.ok());
  auto fifo = client().Mknod(dir->handle, "fifo", Owner(S_IFIFO | 0644));
  ASSERT_TRUE(fifo.ok());
  EXPECT_EQ(S_IFIFO | 0644u, fifo->attr.mode);
  EXPECT_EQ(kEPERM, client().Mknod(dir->handle, "device", Owner(S_IFCHR | 0644)).error());
  auto file = client().Create(dir->handle, "file", Owner(0644));
  ASSERT_TRUE(file.ok());
  EXPECT_EQ(2u, client().Link(root_, "second", file->handle)->nlink);
  EXPECT_TRUE(client().Rename(root_, "second", dir->handle, "third", 0).ok());
  EXPECT_EQ(1u, client().Unlink(dir->handle, "third", file->handle, false)->nlink);
  EXPECT_EQ(kENOTEMPTY, client().Unlink(root_, "dir", dir->handle, true).error());
  EXPECT_EQ(kEINVAL, client().Rename(root_, "dir", root_, "d2", RENAME_WHITEOUT).error());
}

TEST(ProtocolOnHostRoot, TheKernelsOwnFileSystemsAreEmpty) {
  std::vector<GoferMount> mounts;
  mounts.push_back(MountOf("/", true));
  mounts.push_back(MountOf("/proc", true));
  GoferForTest gofer(std::move(mounts));
  GoferClient& c = gofer.client();
  std::string_view names[2] = {"proc", "self"};
  gofer::Handle root = c.Attach(0)->handle;
  auto walked = c.Walk(root, names);
  ASSERT_TRUE(walked.ok());
  ASSERT_EQ(1u, walked->steps.size());
  EXPECT_EQ(kENOENT, walked->error);
  auto listing = c.Readdir(walked->steps[0].handle, 0);
  ASSERT_TRUE(listing.ok());
  EXPECT_TRUE(listing->entries.empty() && listing->at_end);
  // Asked for by its own name, it is served.
  EXPECT_TRUE(c.Walk(c.Attach(1)->handle, std::span(names + 1, 1))->steps.size() == 1);
}

TEST_F(ProtocolTest, AnUnlinkedFileKeepsWorkingThroughItsHandle) {
  auto file = client().Create(root_, "file", Owner(0644));
  ASSERT_TRUE(client().Unlink(root_, "file", file->handle, false).ok());
  EXPECT_EQ(0u, client().GetAttr(file->handle)->nlink);
  EXPECT_TRUE(client().Open(file->handle, O_RDWR).ok());
}

TEST_F(ProtocolTest, ListsLargeDirectoriesInPieces) {
  for (int i = 0; i < 3000; ++i) tree_.Write("name-" + std::to_string(i), "");
  std::map<std::string, int> seen;
  int64_t cookie = 0;
  int rounds = 0;
  for (bool end = false; !end; ++rounds) {
    auto part = client().Readdir(root_, cookie);
    ASSERT_TRUE(part.ok());
    for (auto& e : part->entries) ++seen[e.name];
    if (!part->entries.empty()) cookie = part->entries.back().next;
    end = part->at_end;
  }
  EXPECT_EQ(3002u, seen.size());
  for (auto& [name, count] : seen) EXPECT_EQ(1, count) << name;
  EXPECT_GT(rounds, 1);
}

TEST_F(ProtocolTest, ExtendedAttributes) {
  tree_.Write("file", "");
  gofer::Handle file = Walk(root_, {"file"})->steps[0].handle;
  if (setxattr((tree_ / "file").c_str(), "user.probe", "1", 1, 0) != 0) GTEST_SKIP() << "no user xattrs on /tmp";
  EXPECT_TRUE(client().SetXattr(file, "user.name", "value", XATTR_CREATE).ok());
  EXPECT_EQ(kEEXIST, client().SetXattr(file, "user.name", "value", XATTR_CREATE).error());
  EXPECT_EQ("value", client().GetXattr(file, "user.name").value());
  EXPECT_EQ(2u, client().ListXattr(file)->size());
  EXPECT_TRUE(client().RemoveXattr(file, "user.name").ok());
  EXPECT_EQ(kENODATA, client().GetXattr(file, "user.name").error());
}

TEST_F(ProtocolTest, SyncAllocateSeekStatFs) {
  auto file = client().Create(root_, "file", Owner(0644));
  EXPECT_EQ(8192u, client().Allocate(file->handle, 0, 0, 8192)->size);
  EXPECT_TRUE(client().Sync(file->handle, GoferClient::SyncKind::kFile).ok());
  EXPECT_TRUE(client().Sync(file->handle, GoferClient::SyncKind::kData).ok());
  EXPECT_TRUE(client().Sync(root_, GoferClient::SyncKind::kFileSystem).ok());
  EXPECT_EQ(kENXIO, client().Seek(file->handle, 10000, SEEK_DATA).error());
  EXPECT_EQ(5, pwrite(file->fd.get(), "bytes", 5, 0));
  EXPECT_EQ(0, client().Seek(file->handle, 0, SEEK_DATA).value_or(-1));
  EXPECT_NE(0u, client().StatFileSystem(root_)->blocks);
}

TEST_F(ProtocolTest, AForgottenHandleIsGone) {
  tree_.Write("file", "");
  gofer::Handle file = Walk(root_, {"file"})->steps[0].handle;
  client().Forget(file);
  client().FlushForgotten();
  EXPECT_EQ(kEBADF, client().GetAttr(file).error());
  EXPECT_EQ(kEBADF, client().GetAttr(12345).error());
}

TEST_F(ProtocolTest, ThreadsShareTheConnections) {
  tree_.Write("file", "x");
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 500; ++i) {
        auto walked = Walk(root_, {"file"});
        if (walked.ok() && walked->steps.size() == 1) {
          ++good;
          client().Forget(walked->steps[0].handle);
        }
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(2000, good);
}

}  // namespace
}  // namespace moat
