#include <sys/mman.h>

#include "fs/overlay/overlay_inode.h"
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

TEST(OverlayOverTmpfs, ExtendedAttributesCopyUp) {
  TmpfsLayers layers;
  RefPtr<FileSystem> lower_fs = layers.NewFs();
  VfsForTest lower(lower_fs);
  ASSERT_TRUE(lower.Write("/f", "x").ok());
  ASSERT_TRUE(vfs::SetXattr(lower.ctx(), lower.Resolve("/f").value(), "user.a", "lower", 0).ok());
  ASSERT_TRUE(vfs::SetXattr(lower.ctx(), lower.Resolve("/f").value(), "user.b", "kept", 0).ok());
  VfsForTest overlay(OverlayFs::Create(lower.ctx(), layers.NewFs(), {lower_fs}).value());
  VfsPath file = overlay.Resolve("/f").value();
  VfsContext ctx = overlay.ctx();
  EXPECT_EQ("lower", vfs::GetXattr(ctx, file, "user.a").value());
  // Nothing is copied for the removal of what is not there.
  EXPECT_EQ(kENODATA, vfs::RemoveXattr(ctx, file, "user.none").error());
  EXPECT_EQ(nullptr, static_cast<OverlayInode&>(*file.dentry->inode()).upper());
  ASSERT_TRUE(vfs::SetXattr(ctx, file, "user.a", "upper", 0).ok());
  EXPECT_EQ("upper", vfs::GetXattr(ctx, file, "user.a").value());
  EXPECT_EQ("kept", vfs::GetXattr(ctx, file, "user.b").value());
  EXPECT_EQ("lower", vfs::GetXattr(lower.ctx(), lower.Resolve("/f").value(), "user.a").value());
  ASSERT_TRUE(vfs::RemoveXattr(ctx, file, "user.b").ok());
  EXPECT_EQ(1u, vfs::ListXattr(ctx, file)->size());
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
