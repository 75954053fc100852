// fs/hostfs through the VFS and a gofer: what a program of the sandbox sees of a host directory.
#include <sys/stat.h>
#include <sys/time.h>

#include "fs/hostfs/host_filesystem.h"
#include "fs/hostfs/host_inode.h"
#include "fs/overlay/vfs_for_test.h"
#include "runsc/gofer/gofer_for_test.h"

namespace moat {
namespace {

class DerivedThing final : public RefCounted {};

class HostFsTest : public testing::TestWithParam<HostCache> {
 protected:
  HostFsTest() : gofer_(Mounts(tree_)) {
    HostFs::Options options;
    options.cache = GetParam();
    fs_ = HostFs::Create(gofer_.client_ref(), 0, options).value();
    vfs_ = std::make_unique<VfsForTest>(fs_);
  }
  ~HostFsTest() override {
    vfs_.reset();
    fs_.reset();
  }
  static std::vector<GoferMount> Mounts(const TempTree& tree) {
    std::vector<GoferMount> mounts;
    mounts.push_back(MountOf(tree.path()));
    return mounts;
  }
  VfsForTest& vfs() { return *vfs_; }

  TempTree tree_;
  GoferForTest gofer_;
  RefPtr<HostFs> fs_;
  std::unique_ptr<VfsForTest> vfs_;
};

INSTANTIATE_TEST_SUITE_P(Caches, HostFsTest, testing::Values(HostCache::kExclusive, HostCache::kShared),
                         [](const auto& info) { return info.param == HostCache::kShared ? "Shared" : "Exclusive"; });

TEST_P(HostFsTest, ReadsWhatTheHostHas) {
  std::filesystem::create_directories(tree_ / "dir/sub");
  tree_.Write("dir/sub/file", "hello");
  std::filesystem::create_symlink("sub/file", tree_ / "dir/link");
  EXPECT_EQ("hello", vfs().Read("/dir/sub/file").value());
  EXPECT_EQ("hello", vfs().Read("/dir/link").value());
  EXPECT_EQ("sub/file", vfs().Readlink("/dir/link").value());
  EXPECT_EQ("link sub", vfs().Names("/dir"));
  EXPECT_EQ(kENOENT, vfs().Stat("/dir/none").error());
  EXPECT_EQ(kENOTDIR, vfs().Stat("/dir/sub/file/x").error());
  Kstat st = vfs().Stat("/dir/sub/file").value();
  EXPECT_EQ(S_IFREG | 0644u, st.mode);
  EXPECT_EQ(5u, st.size);
  EXPECT_EQ(getuid(), st.uid);
}

TEST_P(HostFsTest, WritesReachTheHost) {
  ASSERT_TRUE(vfs().Write("/new", "contents").ok());
  EXPECT_EQ("contents", tree_.Read("new"));
  ASSERT_TRUE(vfs().Write("/new", "more", O_APPEND).ok());
  EXPECT_EQ("contentsmore", tree_.Read("new"));
  EXPECT_EQ(12u, vfs().Stat("/new")->size);
  ASSERT_TRUE(vfs().Truncate("/new", 3).ok());
  EXPECT_EQ("con", tree_.Read("new"));
  EXPECT_EQ(3u, vfs().Stat("/new")->size);
  ASSERT_TRUE(vfs().Chmod("/new", 04711).ok());
  EXPECT_EQ(S_IFREG | 04711u, vfs().Stat("/new")->mode);
}

TEST_P(HostFsTest, AppendsMoveTheOffsetToTheEnd) {
  tree_.Write("log", "0123456789");
  RefPtr<File> file = vfs().Open("/log", O_RDWR | O_APPEND).value();
  BufferIoSource source("abc", 3);
  EXPECT_EQ(3u, file->Write(vfs().ctx(), source).value());
  EXPECT_EQ(13, file->Seek(vfs().ctx(), 0, SEEK_CUR).value());
  EXPECT_EQ("0123456789abc", tree_.Read("log"));
  // Reading goes on from there.
  EXPECT_EQ(0, file->Seek(vfs().ctx(), 0, SEEK_SET).value());
  char buffer[20];
  BufferIoDest dest(buffer, sizeof buffer);
  EXPECT_EQ(13u, file->Read(vfs().ctx(), dest).value());
  EXPECT_EQ(13, file->Seek(vfs().ctx(), 0, SEEK_CUR).value());
}

TEST_P(HostFsTest, TheFileSizeLimitHolds) {
  RefPtr<File> file = vfs().Open("/limited", O_RDWR | O_CREAT).value();
  VfsContext ctx = vfs().ctx();
  ctx.file_size_limit = 10;
  BufferIoSource source("0123456789abcdef", 16);
  EXPECT_EQ(10u, file->Write(ctx, source).value());
  BufferIoSource more("x", 1);
  EXPECT_EQ(kEFBIG, file->Write(ctx, more).error());
}

TEST_P(HostFsTest, NamesComeAndGo) {
  ASSERT_TRUE(vfs().Mkdir("/d").ok());
  ASSERT_TRUE(vfs().Write("/d/f", "1").ok());
  EXPECT_EQ(kEEXIST, vfs().Mkdir("/d").error());
  EXPECT_EQ(kENOTEMPTY, vfs().Rmdir("/d").error());
  ASSERT_TRUE(vfs().Link("/d/f", "/d/g").ok());
  EXPECT_EQ(2u, vfs().Stat("/d/f")->nlink);
  EXPECT_EQ(vfs().Stat("/d/f")->ino, vfs().Stat("/d/g")->ino);
  ASSERT_TRUE(vfs().Rename("/d/f", "/h").ok());
  EXPECT_EQ(kENOENT, vfs().Stat("/d/f").error());
  EXPECT_EQ("1", vfs().Read("/h").value());
  ASSERT_TRUE(vfs().Unlink("/h").ok());
  EXPECT_EQ(1u, vfs().Stat("/d/g")->nlink);
  ASSERT_TRUE(vfs().Symlink("g", "/d/s").ok());
  EXPECT_EQ("1", vfs().Read("/d/s").value());
  EXPECT_EQ("g s", vfs().Names("/d"));
  ASSERT_TRUE(vfs().Unlink("/d/s").ok());
  ASSERT_TRUE(vfs().Unlink("/d/g").ok());
  EXPECT_EQ("", vfs().Names("/d"));
  ASSERT_TRUE(vfs().Rmdir("/d").ok());
  EXPECT_EQ("", vfs().Names("/"));
}

TEST_P(HostFsTest, ARenameWithinADirectoryDoesNotWriteToWhatMoves) {
  ASSERT_TRUE(vfs().Chmod("/", 0755).ok());
  ASSERT_TRUE(vfs().Mkdir("/open", 0777).ok());
  ASSERT_TRUE(vfs().Mkdir("/other", 0777).ok());
  ASSERT_TRUE(vfs().Mkdir("/open/private", 0700).ok());
  vfs().Become(getuid() + 1000, getgid() + 1000);
  EXPECT_TRUE(vfs().Rename("/open/private", "/open/moved").ok());
  EXPECT_EQ(kEACCES, vfs().Rename("/open/moved", "/other/moved").error());
}

TEST_P(HostFsTest, AnOpenFileOutlivesItsName) {
  tree_.Write("file", "still here");
  RefPtr<File> file = vfs().Open("/file", O_RDWR).value();
  ASSERT_TRUE(vfs().Unlink("/file").ok());
  EXPECT_EQ("still here", vfs().ReadFrom(*file).value());
  EXPECT_TRUE(vfs().WriteTo(*file, "STILL").ok());
  EXPECT_EQ(0u, file->GetAttr()->nlink);
  EXPECT_EQ(10u, file->GetAttr()->size);
}

TEST_P(HostFsTest, ListingsAreWholeWhileNamesAreRemoved) {
  for (int i = 0; i < 500; ++i) tree_.Write("n" + std::to_string(i), "");
  struct Sink final : DirEntrySink {
    bool Add(std::string_view name, uint64_t, uint8_t, int64_t) override {
      if (names.size() == room) return false;
      names.emplace_back(name);
      return true;
    }
    std::vector<std::string> names;
    size_t room = 0;
  } sink;
  RefPtr<File> dir = vfs().Open("/", O_RDONLY | O_DIRECTORY).value();
  size_t before;
  do {
    before = sink.names.size();
    sink.room = before + 37;
    ASSERT_TRUE(dir->ReadDir(vfs().ctx(), sink).ok());
    for (size_t i = before; i < sink.names.size(); ++i) {
      if (sink.names[i][0] == 'n') {
        ASSERT_TRUE(vfs().Unlink("/" + sink.names[i]).ok());
      }
    }
  } while (sink.names.size() != before);
  EXPECT_EQ(502u, sink.names.size());
  EXPECT_EQ("", vfs().Names("/"));
}

TEST_P(HostFsTest, ADirectoryEntryHasTheNumberOfItsInode) {
  tree_.Write("a", "");
  std::filesystem::create_directory(tree_ / "b");
  std::vector<VfsForTest::Listed> entries = vfs().List("/").value();
  for (const auto& e : entries) EXPECT_EQ(vfs().Stat("/" + e.name)->ino, e.ino) << e.name;
}

TEST_P(HostFsTest, MappingsTranslateToTheDonatedDescriptor) {
  tree_.Write("file", std::string(5000, 'x'));
  RefPtr<File> file = vfs().Open("/file", O_RDWR).value();
  RefPtr<Mappable> m = file->GetMappable().value();
  EXPECT_EQ(m.get(), vfs().Open("/file", O_RDONLY).value()->GetMappable().value().get());
  HostPages pages = m->Translate(0, 1 << 20, true).value();
  EXPECT_EQ(8192u, pages.range.length());
  EXPECT_TRUE(pages.writable);
  EXPECT_FALSE(pages.in_memory_file);
  char c;
  EXPECT_EQ(1, pread(pages.fd, &c, 1, 4999));
  EXPECT_EQ(kENXIO, m->Translate(8192, 4096, false).error());
}

TEST_P(HostFsTest, AMappingOutlivesTheMount) {
  tree_.Write("file", "mapped");
  RefPtr<Mappable> m = vfs().Open("/file", O_RDONLY).value()->GetMappable().value();
  vfs_.reset();
  fs_.reset();
  EXPECT_TRUE(m->Translate(0, 4096, false).ok());
}

TEST_P(HostFsTest, WhatIsDerivedFromBytesGoesWithTheFirstChance) {
  const auto make = [] { return RefPtr<RefCounted>(MakeRef<DerivedThing>()); };
  const auto derived = [&](const char* path) {
    return vfs().Open(path, O_RDONLY).value()->GetMappable().value()->Derived(make);
  };
  for (const char* name : {"written", "cut"}) tree_.Write(name, "bytes");
  const bool exclusive = GetParam() == HostCache::kExclusive;
  for (const char* path : {"/written", "/cut"}) {
    const RefPtr<RefCounted> first = derived(path);
    EXPECT_EQ(exclusive, first.get() != nullptr) << path;
    EXPECT_EQ(first.get(), derived(path).get()) << path;
  }
  // Whoever can write need not have done it yet.
  RefPtr<File> writer = vfs().Open("/written", O_RDWR).value();
  EXPECT_EQ(nullptr, derived("/written").get());
  writer = nullptr;
  EXPECT_EQ(nullptr, derived("/written").get());
  ASSERT_TRUE(vfs().Truncate("/cut", 2).ok());
  EXPECT_EQ(nullptr, derived("/cut").get());
  ASSERT_TRUE(vfs().Write("/new", "x").ok());
  EXPECT_EQ(nullptr, derived("/new").get());
}

TEST_P(HostFsTest, FifosAndDevicesAreNotOpenedOnTheHost) {
  ASSERT_EQ(0, mkfifo((tree_ / "fifo").c_str(), 0644));
  RefPtr<Inode> fifo = vfs().Resolve("/fifo")->dentry->inode();
  EXPECT_EQ(static_cast<uint32_t>(S_IFIFO), fifo->type());
  EXPECT_EQ(kENXIO, fifo->Open(vfs().ctx(), VfsPath(), OpenFlags{O_RDONLY}).error());
}

TEST_P(HostFsTest, AChangeOnTheHostShowsOnASharedMount) {
  tree_.Write("file", "one");
  EXPECT_EQ(3u, vfs().Stat("/file")->size);
  EXPECT_EQ(kENOENT, vfs().Stat("/later").error());
  tree_.Write("file", "three");
  tree_.Write("later", "");
  bool shared = GetParam() == HostCache::kShared;
  EXPECT_EQ(shared ? 5u : 3u, vfs().Stat("/file")->size);
  EXPECT_EQ(shared, vfs().Stat("/later").ok());
}

TEST_P(HostFsTest, APathIsLookedUpAtOnce) {
  std::filesystem::create_directories(tree_ / "a/b/c");
  tree_.Write("a/b/c/file", "deep");
  std::filesystem::create_symlink("b/c", tree_ / "a/link");
  uint64_t before = gofer_.client().round_trips();
  EXPECT_TRUE(vfs().Resolve("/a/b/c/file").ok());
  EXPECT_EQ(1u, gofer_.client().round_trips() - before);
  EXPECT_EQ("deep", vfs().Read("/a/link/file").value());
  EXPECT_EQ(kENOENT, vfs().Resolve("/a/b/x/y").error());
  EXPECT_EQ(kENOTDIR, vfs().Resolve("/a/b/c/file/z").error());
  // Attributes of what is known cost nothing on an exclusive mount, and neither does a missing name.
  if (GetParam() == HostCache::kExclusive) {
    before = gofer_.client().round_trips();
    EXPECT_TRUE(vfs().Stat("/a/b/c/file").ok());
    EXPECT_EQ(kENOENT, vfs().Stat("/a/b/x").error());
    EXPECT_EQ(0u, gofer_.client().round_trips() - before);
  }
}

TEST_P(HostFsTest, MissingExtendedAttributesAreRemembered) {
  tree_.Write("file", "");
  RefPtr<Inode> file = vfs().Resolve("/file")->dentry->inode();
  VfsContext ctx = vfs().ctx();
  if (!file->SetXattr(ctx, "user.probe", "1", 0).ok()) GTEST_SKIP() << "no user xattrs on /tmp";
  ASSERT_TRUE(file->RemoveXattr(ctx, "user.probe").ok());
  EXPECT_EQ(kENODATA, file->GetXattr(ctx, "user.none").error());
  EXPECT_TRUE(file->ListXattr(ctx)->empty());
  uint64_t before = gofer_.client().round_trips();
  EXPECT_EQ(kENODATA, file->GetXattr(ctx, "user.none").error());
  EXPECT_TRUE(file->ListXattr(ctx)->empty());
  EXPECT_EQ(GetParam() == HostCache::kExclusive ? 0u : 2u, gofer_.client().round_trips() - before);
  ASSERT_TRUE(file->SetXattr(ctx, "user.none", "there", 0).ok());
  EXPECT_EQ("there", file->GetXattr(ctx, "user.none").value());
  EXPECT_EQ(1u, file->ListXattr(ctx)->size());
  ASSERT_TRUE(file->RemoveXattr(ctx, "user.none").ok());
  EXPECT_EQ(kENODATA, file->GetXattr(ctx, "user.none").error());
}

TEST_P(HostFsTest, IdleDescriptorsAreBounded) {
  size_t files = HostFs::kMaxIdleFiles + 100;
  for (size_t i = 0; i < files; ++i) tree_.Write("f" + std::to_string(i), "x");
  auto open_descriptors = [] {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {}));
  };
  std::vector<VfsPath> keep;
  for (size_t i = 0; i < files; ++i) keep.push_back(vfs().Resolve("/f" + std::to_string(i)).value());
  size_t before = open_descriptors();
  RefPtr<File> held = vfs().Open("/f0", O_RDONLY).value();
  for (size_t i = 1; i < files; ++i) EXPECT_EQ("x", vfs().Read("/f" + std::to_string(i)).value());
  gofer_.client().FlushForgotten();  // the gofer's descriptors are this process's too
  EXPECT_LE(open_descriptors() - before, HostFs::kMaxIdleFiles + 50);
  EXPECT_EQ("x", vfs().ReadFrom(*held).value());
  EXPECT_EQ("x", vfs().Read("/f1").value());  // its descriptor was closed: it is asked for again
}

TEST_P(HostFsTest, ADeadGoferAnswersEio) {
  RefPtr<GoferClient> client;
  {
    int ends[2];
    ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
    std::vector<ScopedFd> sockets;
    sockets.emplace_back(ends[0]);
    close(ends[1]);
    client = GoferClient::Create(std::move(sockets)).value();
  }
  EXPECT_EQ(kEIO, HostFs::Create(client, 0, {}).error());
  EXPECT_TRUE(client->dead());
}

}  // namespace
}  // namespace moat
