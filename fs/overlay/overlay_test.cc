#include <sys/mman.h>

#include "fs/overlay/overlay_model.h"
#include "fs/overlay/overlay_suite.h"
#include "fs/tmpfs/tmpfs.h"
#include "platform/memory/safe_copy.h"

namespace moat {
namespace {

MemoryFile& Memory() {
  static MemoryFile* memory = [] {
    InstallSafeCopyHandlers();
    ScopedFd fd(memfd_create("overlay-test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    return MemoryFile::Create(std::move(fd), 0).value().release();
  }();
  return *memory;
}

class TmpfsLayers {
 public:
  RefPtr<FileSystem> NewFs() { return TmpfsFs::Create(Memory(), TmpfsFs::Options{}).value(); }
};

INSTANTIATE_TYPED_TEST_SUITE_P(Tmpfs, OverlaySuite, TmpfsLayers);

TEST(OverlayOverTmpfs, AnswersAsAPlainDirectory) {
  uint64_t seed = std::random_device{}();
  printf("seed %lu\n", static_cast<unsigned long>(seed));
  OverlayModel(seed, std::chrono::milliseconds(4000)).Run<TmpfsLayers>();
}

TEST(OverlayOverTmpfs, NothingIsLeftInTheWorkDirectory) {
  TmpfsLayers layers;
  RefPtr<FileSystem> lower_fs = layers.NewFs(), upper_fs = layers.NewFs();
  VfsForTest lower(lower_fs), upper(upper_fs);
  ASSERT_TRUE(lower.Mkdir("/d").ok());
  ASSERT_TRUE(lower.Write("/d/f", "x").ok());
  {
    VfsForTest overlay(OverlayFs::Create(lower.ctx(), upper_fs, {lower_fs}).value());
    ASSERT_TRUE(overlay.Write("/d/f", "y").ok());
    ASSERT_TRUE(overlay.Chmod("/d", 0700).ok());
    EXPECT_EQ(2u, upper.List("/work")->size());
    ASSERT_TRUE(overlay.Unlink("/d/f").ok());
    ASSERT_TRUE(overlay.Rmdir("/d").ok());
    EXPECT_EQ("", upper.Names("/work"));
  }
}

}  // namespace
}  // namespace moat
