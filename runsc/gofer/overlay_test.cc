// fs/overlay over host directories: the suites of fs/overlay with the layer that a sandbox has below, and real gofers.
#include "fs/overlay/overlay.h"

#include <sys/mman.h>

#include "fs/hostfs/host_filesystem.h"
#include "fs/overlay/overlay_model.h"
#include "fs/overlay/overlay_suite.h"
#include "fs/tmpfs/tmpfs.h"
#include "platform/memory/safe_copy.h"
#include "runsc/gofer/gofer_for_test.h"

namespace moat {
namespace {

class HostLayers {
 public:
  RefPtr<FileSystem> NewFs() {
    auto layer = std::make_unique<Layer>();
    std::vector<GoferMount> mounts;
    mounts.push_back(MountOf(layer->tree.path()));
    layer->gofer = std::make_unique<GoferForTest>(std::move(mounts));
    RefPtr<FileSystem> fs = HostFs::Create(layer->gofer->client_ref(), 0, {}).value();
    layers_.push_back(std::move(layer));
    return fs;
  }

 private:
  struct Layer {
    TempTree tree;
    std::unique_ptr<GoferForTest> gofer;
  };
  std::vector<std::unique_ptr<Layer>> layers_;
};

INSTANTIATE_TYPED_TEST_SUITE_P(Host, OverlaySuite, HostLayers);

TEST(OverlayOverHost, AnswersAsAPlainDirectory) {
  uint64_t seed = std::random_device{}();
  printf("seed %lu\n", static_cast<unsigned long>(seed));
  OverlayModel(seed, std::chrono::milliseconds(4000)).Run<HostLayers>();
}

// What a sandbox's root is: the host below, read-only, a tmpfs above.
TEST(PrivateOverlay, TheHostStaysAsItIs) {
  InstallSafeCopyHandlers();
  ScopedFd memfd(memfd_create("overlay-test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  static MemoryFile* memory = MemoryFile::Create(std::move(memfd), 0).value().release();
  RegisterTmpfs(*memory);
  TempTree tree;
  std::filesystem::create_directories(tree / "etc/conf.d");
  tree.Write("etc/passwd", "root\n");
  tree.Write("etc/conf.d/a", "a");
  std::filesystem::create_symlink("passwd", tree / "etc/link");
  std::vector<GoferMount> mounts;
  mounts.push_back(MountOf(tree.path(), /*read_only=*/true));
  GoferForTest gofer(std::move(mounts));
  HostFs::Options options;
  options.read_only = true;
  RefPtr<FileSystem> host = HostFs::Create(gofer.client_ref(), 0, options).value();
  VfsForTest vfs(MakePrivateOverlay(std::move(host)).value());

  EXPECT_EQ("root\n", vfs.Read("/etc/link").value());
  EXPECT_EQ("a", vfs.Read("/etc/conf.d/a").value());
  EXPECT_EQ("conf.d link passwd", vfs.Names("/etc"));
  EXPECT_EQ(kENOENT, vfs.Stat("/etc/none").error());
  // The second look asks nobody: attributes, missing names, listings, reading an open file.
  RefPtr<File> open = vfs.Open("/etc/passwd", O_RDONLY).value();
  uint64_t before = gofer.client().round_trips();
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(vfs.Stat("/etc/passwd").ok());
    EXPECT_EQ(kENOENT, vfs.Stat("/etc/none").error());
    EXPECT_EQ("root\n", vfs.ReadFrom(*open).value());
    EXPECT_EQ("root\n", vfs.Read("/etc/passwd").value());
    EXPECT_EQ("conf.d link passwd", vfs.Names("/etc"));
    EXPECT_EQ("passwd", vfs.Readlink("/etc/link").value());
  }
  EXPECT_EQ(0u, gofer.client().round_trips() - before);

  ASSERT_TRUE(vfs.Write("/etc/passwd", "guest\n", O_APPEND).ok());
  ASSERT_TRUE(vfs.Write("/etc/new", "new").ok());
  ASSERT_TRUE(vfs.Rename("/etc/conf.d", "/conf").ok());
  ASSERT_TRUE(vfs.Unlink("/etc/link").ok());
  EXPECT_EQ("root\nguest\n", vfs.Read("/etc/passwd").value());
  EXPECT_EQ("root\nguest\n", vfs.ReadFrom(*open).value());
  EXPECT_EQ("a", vfs.Read("/conf/a").value());
  EXPECT_EQ("new passwd", vfs.Names("/etc"));
  EXPECT_EQ("root\n", tree.Read("etc/passwd"));
  EXPECT_TRUE(std::filesystem::exists(tree / "etc/conf.d/a"));
  EXPECT_TRUE(std::filesystem::is_symlink(tree / "etc/link"));
  EXPECT_FALSE(std::filesystem::exists(tree / "etc/new"));
}

}  // namespace
}  // namespace moat
