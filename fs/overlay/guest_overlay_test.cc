#include <sys/mman.h>

#include <thread>

#include "fs/overlay/guest_overlay_inode.h"
#include "fs/overlay/overlay_model.h"
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

// A growing stack of directories, as a container engine's: the upper of one overlay is a lower of the next.
class Stack {
 public:
  GuestOverlayOptions Options(VfsForTest& lower, bool new_upper) {
    if (new_upper || uppers_.empty()) {
      uppers_.push_back(std::make_unique<VfsForTest>(layers_.NewFs()));
      for (const char* d : {"/u", "/w"}) EXPECT_TRUE(uppers_.back()->Mkdir(d).ok());
    }
    GuestOverlayOptions o;
    o.redirect = GuestOverlayOptions::Redirect::kOn;
    for (size_t i = uppers_.size() - 1; i-- > 0;) o.lowers.push_back({"u", uppers_[i]->Resolve("/u").value()});
    o.lowers.push_back({"/", lower.Resolve("/").value()});
    o.upper = {"u", uppers_.back()->Resolve("/u").value()};
    o.work = {"w", uppers_.back()->Resolve("/w").value()};
    return o;
  }
  VfsForTest& upper() { return *uppers_.back(); }

 private:
  TmpfsLayers layers_;
  std::vector<std::unique_ptr<VfsForTest>> uppers_;
};

// Every other time the overlay is mounted again with the layers that it had, and else with one more.
TEST(GuestOverlay, AnswersAsAPlainDirectoryThroughRemounts) {
  uint64_t seed = std::random_device{}();
  printf("seed %lu\n", static_cast<unsigned long>(seed));
  TmpfsLayers layers;
  Stack stack;
  int count = 0;
  OverlayModel(seed, std::chrono::milliseconds(2000))
      .Run(
          layers,
          [&](VfsForTest& lower, RefPtr<FileSystem>) -> Result<RefPtr<FileSystem>> {
            GuestOverlayOptions options = stack.Options(lower, count++ % 2 == 0 && count < 100);
            return RefPtr<FileSystem>(TRY(GuestOverlayFs::Create(lower.ctx(), std::move(options))));
          },
          /*remake=*/true);
}

TEST(GuestOverlay, WorkDirectoryIsEmptyBetweenCalls) {
  TmpfsLayers layers;
  VfsForTest lower(layers.NewFs());
  ASSERT_TRUE(lower.Mkdir("/d").ok());
  ASSERT_TRUE(lower.Write("/d/f", "x").ok());
  Stack stack;
  VfsForTest overlay(GuestOverlayFs::Create(lower.ctx(), stack.Options(lower, true)).value());
  ASSERT_TRUE(overlay.Write("/d/f", "y").ok());
  ASSERT_TRUE(overlay.Unlink("/d/f").ok());
  ASSERT_TRUE(overlay.Rmdir("/d").ok());
  ASSERT_TRUE(overlay.Mkdir("/d").ok());
  EXPECT_EQ("", stack.upper().Names("/w/work"));
  EXPECT_EQ(kEINVAL, GuestOverlayFs::Create(lower.ctx(),
                                            [&] {
                                              GuestOverlayOptions o = stack.Options(lower, false);
                                              o.work = o.upper;
                                              return o;
                                            }())
                         .error());
}

// The name goes while its file is being copied up: the copy must not bring it back.
TEST(GuestOverlay, CopyUpAgainstUnlink) {
  TmpfsLayers layers;
  VfsForTest lower(layers.NewFs());
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(lower.Write("/" + std::to_string(i), "lower").ok());
  Stack stack;
  VfsForTest overlay(GuestOverlayFs::Create(lower.ctx(), stack.Options(lower, true)).value());
  std::thread writer([&] {
    for (int i = 0; i < 200; ++i) (void)overlay.Write("/" + std::to_string(i), "+", O_APPEND);
  });
  for (int i = 0; i < 200; ++i) EXPECT_TRUE(overlay.Unlink("/" + std::to_string(i)).ok());
  writer.join();
  EXPECT_EQ("", overlay.Names("/"));
  EXPECT_EQ("", stack.upper().Names("/w/work"));
}

// A long chain of lower directories ends without a deep recursion.
TEST(GuestOverlay, DeepTreesEnd) {
  TmpfsLayers layers;
  RefPtr<FileSystem> fs = layers.NewFs();
  VfsForTest lower(fs);
  VfsContext ctx = lower.ctx();
  VfsPath at = ctx.root;
  for (int i = 0; i < 15'000; ++i) {
    ASSERT_TRUE(vfs::Mkdir(ctx, at, "d", 0755).ok());
    at = vfs::Resolve(ctx, at, "d").value();
  }
  at = {};
  Stack stack;
  VfsForTest overlay(GuestOverlayFs::Create(lower.ctx(), stack.Options(lower, true)).value());
  VfsContext octx = overlay.ctx();
  at = octx.root;
  for (int i = 0; i < 15'000; ++i) at = vfs::Resolve(octx, at, "d").value();
  AttrChange change;
  change.mode = 0700;
  EXPECT_TRUE(vfs::SetAttr(octx, at, change).ok());
}

}  // namespace
}  // namespace moat
