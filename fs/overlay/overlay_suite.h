// The tests of fs/overlay, for any kind of layer: instantiated over tmpfs here and over host directories in
// runsc/gofer. `Layers::NewFs()` gives an empty writable file system.
#ifndef MOAT_FS_OVERLAY_OVERLAY_SUITE_H_
#define MOAT_FS_OVERLAY_OVERLAY_SUITE_H_

#include <gtest/gtest.h>
#include <linux/fs.h>

#include <atomic>
#include <thread>

#include "fs/overlay/overlay_fs.h"
#include "fs/overlay/vfs_for_test.h"

namespace moat {

template <typename Layers>
class OverlaySuite : public testing::Test {
 protected:
  OverlaySuite() : lower_fs_(layers_.NewFs()), lower_(std::make_unique<VfsForTest>(lower_fs_)) {}
  ~OverlaySuite() override {
    overlay_.reset();
    lower_.reset();
    lower_fs_.reset();
  }
  VfsForTest& lower() { return *lower_; }
  // Made on first use: the lower does not change after that.
  VfsForTest& overlay() {
    if (!overlay_) {
      upper_fs_ = layers_.NewFs();
      auto fs = OverlayFs::Create(lower_->ctx(), upper_fs_, {lower_fs_});
      EXPECT_TRUE(fs.ok()) << ErrnoName(fs.error());
      upper_fs_.reset();
      overlay_ = std::make_unique<VfsForTest>(std::move(fs).value());
    }
    return *overlay_;
  }

  Layers layers_;
  RefPtr<FileSystem> lower_fs_, upper_fs_;
  std::unique_ptr<VfsForTest> lower_, overlay_;
};

TYPED_TEST_SUITE_P(OverlaySuite);

// Accesses to members of a dependent base.
#define LOWER this->lower()
#define OVERLAY this->overlay()

TYPED_TEST_P(OverlaySuite, ShowsTheLower) {
  ASSERT_TRUE(LOWER.Mkdir("/d").ok());
  ASSERT_TRUE(LOWER.Write("/d/f", "lower").ok());
  ASSERT_TRUE(LOWER.Symlink("d/f", "/s").ok());
  EXPECT_EQ("lower", OVERLAY.Read("/d/f").value());
  EXPECT_EQ("lower", OVERLAY.Read("/s").value());
  EXPECT_EQ("d s", OVERLAY.Names("/"));
  EXPECT_EQ(kENOENT, OVERLAY.Stat("/d/none").error());
}

TYPED_TEST_P(OverlaySuite, WritingChangesTheCopyOnly) {
  ASSERT_TRUE(LOWER.Write("/f", "lower").ok());
  ASSERT_TRUE(LOWER.Chmod("/f", 04750).ok());
  Kstat before = OVERLAY.Stat("/f").value();
  RefPtr<File> file = OVERLAY.Open("/f", O_RDWR).value();
  Kstat copied = OVERLAY.Stat("/f").value();
  EXPECT_EQ(before.ino, copied.ino);
  EXPECT_EQ(before.mode, copied.mode);
  EXPECT_EQ(before.mtime, copied.mtime);
  EXPECT_EQ(before.size, copied.size);
  ASSERT_TRUE(OVERLAY.WriteTo(*file, "UP").ok());
  EXPECT_EQ("UPwer", OVERLAY.Read("/f").value());
  EXPECT_EQ("lower", LOWER.Read("/f").value());
  EXPECT_EQ("f", OVERLAY.Names("/"));
}

TYPED_TEST_P(OverlaySuite, AnOpenDescriptionFollowsTheCopy) {
  ASSERT_TRUE(LOWER.Write("/f", "lower").ok());
  RefPtr<File> reader = OVERLAY.Open("/f", O_RDONLY).value();
  EXPECT_EQ("lower", OVERLAY.ReadFrom(*reader).value());
  ASSERT_TRUE(OVERLAY.Write("/f", "upper", O_TRUNC).ok());
  EXPECT_EQ("upper", OVERLAY.ReadFrom(*reader).value());
  EXPECT_EQ("lower", LOWER.Read("/f").value());
}

TYPED_TEST_P(OverlaySuite, RemovedNamesStayRemoved) {
  ASSERT_TRUE(LOWER.Write("/f", "lower").ok());
  ASSERT_TRUE(LOWER.Write("/g", "lower").ok());
  ASSERT_TRUE(OVERLAY.Unlink("/f").ok());
  EXPECT_EQ(kENOENT, OVERLAY.Stat("/f").error());
  EXPECT_EQ("g", OVERLAY.Names("/"));
  ASSERT_TRUE(OVERLAY.Write("/f", "upper").ok());
  EXPECT_EQ("upper", OVERLAY.Read("/f").value());
  EXPECT_EQ("f g", OVERLAY.Names("/"));
  ASSERT_TRUE(OVERLAY.Unlink("/f").ok());
  EXPECT_EQ(kENOENT, OVERLAY.Stat("/f").error());
  // Removed after a copy-up too.
  ASSERT_TRUE(OVERLAY.Write("/g", "upper", O_TRUNC).ok());
  ASSERT_TRUE(OVERLAY.Unlink("/g").ok());
  EXPECT_EQ("", OVERLAY.Names("/"));
  EXPECT_EQ("f g", LOWER.Names("/"));
}

TYPED_TEST_P(OverlaySuite, DirectoriesMerge) {
  ASSERT_TRUE(LOWER.Mkdir("/d").ok());
  ASSERT_TRUE(LOWER.Write("/d/low", "").ok());
  ASSERT_TRUE(LOWER.Write("/d/both", "lower").ok());
  ASSERT_TRUE(OVERLAY.Write("/d/up", "").ok());
  ASSERT_TRUE(OVERLAY.Write("/d/both", "upper").ok());
  EXPECT_EQ("both low up", OVERLAY.Names("/d"));
  EXPECT_EQ("upper", OVERLAY.Read("/d/both").value());
  EXPECT_EQ(1u, OVERLAY.Stat("/d")->nlink);
}

TYPED_TEST_P(OverlaySuite, ANewDirectoryHidesWhatWasThere) {
  ASSERT_TRUE(LOWER.Mkdir("/d").ok());
  ASSERT_TRUE(LOWER.Write("/d/f", "lower").ok());
  EXPECT_EQ(kENOTEMPTY, OVERLAY.Rmdir("/d").error());
  ASSERT_TRUE(OVERLAY.Unlink("/d/f").ok());
  ASSERT_TRUE(OVERLAY.Rmdir("/d").ok());
  EXPECT_EQ("", OVERLAY.Names("/"));
  ASSERT_TRUE(OVERLAY.Mkdir("/d").ok());
  EXPECT_EQ("", OVERLAY.Names("/d"));
  EXPECT_EQ(kENOENT, OVERLAY.Stat("/d/f").error());
  ASSERT_TRUE(OVERLAY.Write("/d/f", "upper").ok());
  EXPECT_EQ("upper", OVERLAY.Read("/d/f").value());
}

TYPED_TEST_P(OverlaySuite, HardLinksStayOneFile) {
  ASSERT_TRUE(LOWER.Write("/a", "lower").ok());
  ASSERT_TRUE(LOWER.Link("/a", "/b").ok());
  EXPECT_EQ(OVERLAY.Stat("/a")->ino, OVERLAY.Stat("/b")->ino);
  ASSERT_TRUE(OVERLAY.Write("/a", "upper", O_TRUNC).ok());
  EXPECT_EQ("upper", OVERLAY.Read("/b").value());
  EXPECT_EQ(OVERLAY.Stat("/a")->ino, OVERLAY.Stat("/b")->ino);
  EXPECT_EQ(2u, OVERLAY.Stat("/b")->nlink);
  ASSERT_TRUE(OVERLAY.Link("/b", "/c").ok());
  EXPECT_EQ(3u, OVERLAY.Stat("/a")->nlink);
  ASSERT_TRUE(OVERLAY.Unlink("/a").ok());
  ASSERT_TRUE(OVERLAY.Rename("/b", "/e").ok());
  EXPECT_EQ("upper", OVERLAY.Read("/c").value());
  EXPECT_EQ("upper", OVERLAY.Read("/e").value());
  EXPECT_EQ(2u, OVERLAY.Stat("/c")->nlink);
  EXPECT_EQ("c e", OVERLAY.Names("/"));
}

TYPED_TEST_P(OverlaySuite, FilesAreRenamed) {
  ASSERT_TRUE(LOWER.Write("/a", "a").ok());
  ASSERT_TRUE(LOWER.Write("/b", "b").ok());
  ASSERT_TRUE(LOWER.Mkdir("/d").ok());
  uint64_t ino = OVERLAY.Stat("/a")->ino;
  ASSERT_TRUE(OVERLAY.Rename("/a", "/d/x").ok());
  EXPECT_EQ("b d", OVERLAY.Names("/"));
  EXPECT_EQ("a", OVERLAY.Read("/d/x").value());
  EXPECT_EQ(ino, OVERLAY.Stat("/d/x")->ino);
  ASSERT_TRUE(OVERLAY.Rename("/d/x", "/b").ok());
  EXPECT_EQ("a", OVERLAY.Read("/b").value());
  EXPECT_EQ("", OVERLAY.Names("/d"));
  ASSERT_TRUE(OVERLAY.Unlink("/b").ok());
  EXPECT_EQ("d", OVERLAY.Names("/"));
  EXPECT_EQ(kENOENT, OVERLAY.Stat("/b").error());
}

TYPED_TEST_P(OverlaySuite, LowerDirectoriesAreRenamed) {
  ASSERT_TRUE(LOWER.Mkdir("/d").ok());
  ASSERT_TRUE(LOWER.Mkdir("/d/sub").ok());
  ASSERT_TRUE(LOWER.Write("/d/sub/f", "lower").ok());
  ASSERT_TRUE(LOWER.Write("/d/g", "lower").ok());
  ASSERT_TRUE(OVERLAY.Unlink("/d/g").ok());
  ASSERT_TRUE(OVERLAY.Rename("/d", "/e").ok());
  EXPECT_EQ("e", OVERLAY.Names("/"));
  EXPECT_EQ("sub", OVERLAY.Names("/e"));
  EXPECT_EQ("lower", OVERLAY.Read("/e/sub/f").value());
  ASSERT_TRUE(OVERLAY.Rename("/e/sub", "/sub").ok());
  EXPECT_EQ("", OVERLAY.Names("/e"));
  EXPECT_EQ("lower", OVERLAY.Read("/sub/f").value());
  ASSERT_TRUE(OVERLAY.Rename("/sub", "/e").ok());  // over the empty one
  EXPECT_EQ("e", OVERLAY.Names("/"));
  EXPECT_EQ("f", OVERLAY.Names("/e"));
  ASSERT_TRUE(OVERLAY.Mkdir("/d").ok());
  EXPECT_EQ("", OVERLAY.Names("/d"));
}

TYPED_TEST_P(OverlaySuite, NamesAreExchanged) {
  ASSERT_TRUE(LOWER.Write("/f", "file").ok());
  ASSERT_TRUE(LOWER.Mkdir("/d").ok());
  ASSERT_TRUE(LOWER.Write("/d/x", "inside").ok());
  ASSERT_TRUE(OVERLAY.Rename("/f", "/d", RENAME_EXCHANGE).ok());
  EXPECT_EQ("file", OVERLAY.Read("/d").value());
  EXPECT_EQ("inside", OVERLAY.Read("/f/x").value());
  EXPECT_EQ("d f", OVERLAY.Names("/"));
}

TYPED_TEST_P(OverlaySuite, AttributesCopyUp) {
  ASSERT_TRUE(LOWER.Write("/f", "data").ok());
  ASSERT_TRUE(LOWER.Symlink("target", "/s").ok());
  ASSERT_TRUE(LOWER.Mkdir("/d", 0700).ok());
  ASSERT_TRUE(OVERLAY.Chmod("/f", 0600).ok());
  EXPECT_EQ(S_IFREG | 0600u, OVERLAY.Stat("/f")->mode);
  EXPECT_EQ("data", OVERLAY.Read("/f").value());
  AttrChange times;
  times.mtime = 1'000'000'000;
  ASSERT_TRUE(OVERLAY.SetAttr("/s", times).ok());
  EXPECT_EQ(1'000'000'000, OVERLAY.Stat("/s")->mtime);
  EXPECT_EQ("target", OVERLAY.Readlink("/s").value());
  ASSERT_TRUE(OVERLAY.Chmod("/d", 0711).ok());
  EXPECT_EQ(S_IFDIR | 0711u, OVERLAY.Stat("/d")->mode);
  EXPECT_EQ(S_IFDIR | 0700u, LOWER.Stat("/d")->mode);
  ASSERT_TRUE(OVERLAY.Truncate("/f", 2).ok());
  EXPECT_EQ("da", OVERLAY.Read("/f").value());
  EXPECT_EQ("data", LOWER.Read("/f").value());
}

TYPED_TEST_P(OverlaySuite, HolesStayHoles) {
  RefPtr<File> file = LOWER.Open("/sparse", O_RDWR | O_CREAT).value();
  ASSERT_TRUE(LOWER.WriteTo(*file, "start", 0).ok());
  ASSERT_TRUE(LOWER.WriteTo(*file, "middle", 4 << 20).ok());
  ASSERT_TRUE(LOWER.Truncate("/sparse", 16 << 20).ok());
  ASSERT_TRUE(OVERLAY.Chmod("/sparse", 0600).ok());
  Kstat st = OVERLAY.Stat("/sparse").value();
  EXPECT_EQ(16u << 20, st.size);
  EXPECT_LT(st.blocks * 512, 1u << 20);
  RefPtr<File> copy = OVERLAY.Open("/sparse", O_RDONLY).value();
  EXPECT_EQ("start", OVERLAY.ReadFrom(*copy, 0, 5).value());
  EXPECT_EQ("middle", OVERLAY.ReadFrom(*copy, 4 << 20, 6).value());
  EXPECT_EQ(std::string(3, '\0'), OVERLAY.ReadFrom(*copy, (16 << 20) - 3, 10).value());
}

TYPED_TEST_P(OverlaySuite, EntriesHaveTheNumbersOfTheirInodes) {
  ASSERT_TRUE(LOWER.Write("/low", "").ok());
  ASSERT_TRUE(LOWER.Write("/copied", "").ok());
  ASSERT_TRUE(LOWER.Write("/moved", "").ok());
  ASSERT_TRUE(OVERLAY.Write("/up", "").ok());
  ASSERT_TRUE(OVERLAY.Write("/copied", "x").ok());
  ASSERT_TRUE(OVERLAY.Rename("/moved", "/away").ok());
  std::vector<VfsForTest::Listed> entries = OVERLAY.List("/").value();
  ASSERT_EQ(4u, entries.size());
  for (const auto& e : entries) EXPECT_EQ(OVERLAY.Stat("/" + e.name)->ino, e.ino) << e.name;
}

// Counts what is taken away from it.
class SpaceForTest final : public MappingSpace {
 public:
  void InvalidateMapping(GuestAddr start, GuestAddr end) override { invalidated += end - start; }
  uint64_t invalidated = 0;
};

TYPED_TEST_P(OverlaySuite, MappingsMoveToTheCopy) {
  ASSERT_TRUE(LOWER.Write("/f", std::string(5000, 'l')).ok());
  RefPtr<File> file = OVERLAY.Open("/f", O_RDONLY).value();
  RefPtr<Mappable> m = file->GetMappable().value();
  SpaceForTest space;
  ASSERT_TRUE(m->AddMapping(space, 0x10000, 0x12000, 0, false).ok());
  HostPages before = m->Translate(0, 4096, false).value();
  ASSERT_TRUE(OVERLAY.Write("/f", "upper", 0).ok());
  EXPECT_GE(space.invalidated, 0x2000u);
  HostPages after = m->Translate(0, 4096, false).value();
  EXPECT_TRUE(before.fd != after.fd || before.range.start != after.range.start);
  m->RemoveMapping(space, 0x10000, 0x12000, 0, false);
}

TYPED_TEST_P(OverlaySuite, ManyThreadsCopyOneFileOnce) {
  std::string data(300'000, 'd');
  ASSERT_TRUE(LOWER.Write("/f", data).ok());
  std::vector<std::thread> threads;
  std::atomic<int> good{0};
  VfsForTest& overlay = OVERLAY;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      auto file = overlay.Open("/f", O_RDWR);
      if (file.ok() && overlay.WriteTo(**file, std::string(1, static_cast<char>('0' + t)), t * 1000).ok()) ++good;
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(4, good);
  for (int t = 0; t < 4; ++t) data[t * 1000] = static_cast<char>('0' + t);
  EXPECT_EQ(data, OVERLAY.Read("/f").value());
}

TYPED_TEST_P(OverlaySuite, SeveralLowersStack) {
  RefPtr<FileSystem> bottom_fs = this->layers_.NewFs();
  {
    VfsForTest bottom(bottom_fs);
    ASSERT_TRUE(bottom.Mkdir("/d").ok());
    ASSERT_TRUE(bottom.Write("/d/bottom", "bottom").ok());
    ASSERT_TRUE(bottom.Write("/d/both", "bottom").ok());
    ASSERT_TRUE(bottom.Write("/file", "bottom").ok());
  }
  ASSERT_TRUE(LOWER.Mkdir("/d").ok());
  ASSERT_TRUE(LOWER.Write("/d/both", "top").ok());
  ASSERT_TRUE(LOWER.Mkdir("/file").ok());
  auto fs = OverlayFs::Create(LOWER.ctx(), this->layers_.NewFs(), {this->lower_fs_, bottom_fs});
  ASSERT_TRUE(fs.ok());
  VfsForTest merged(std::move(fs).value());
  EXPECT_EQ("both bottom", merged.Names("/d"));
  EXPECT_EQ("top", merged.Read("/d/both").value());
  EXPECT_EQ("bottom", merged.Read("/d/bottom").value());
  EXPECT_EQ("", merged.Names("/file"));
  ASSERT_TRUE(merged.Unlink("/d/both").ok());
  EXPECT_EQ("bottom", merged.Names("/d"));
}

TYPED_TEST_P(OverlaySuite, WithoutAnUpperNothingChanges) {
  ASSERT_TRUE(LOWER.Write("/f", "lower").ok());
  auto fs = OverlayFs::Create(LOWER.ctx(), nullptr, {this->lower_fs_});
  ASSERT_TRUE(fs.ok());
  VfsForTest merged(std::move(fs).value());
  EXPECT_EQ("lower", merged.Read("/f").value());
  EXPECT_EQ(kEROFS, merged.Open("/f", O_RDWR).error());
  EXPECT_EQ(kEROFS, merged.Unlink("/f").error());
  EXPECT_EQ(kEROFS, merged.Mkdir("/d").error());
}

#undef LOWER
#undef OVERLAY

REGISTER_TYPED_TEST_SUITE_P(OverlaySuite, ShowsTheLower, WritingChangesTheCopyOnly, AnOpenDescriptionFollowsTheCopy,
                            RemovedNamesStayRemoved, DirectoriesMerge, ANewDirectoryHidesWhatWasThere,
                            HardLinksStayOneFile, FilesAreRenamed, LowerDirectoriesAreRenamed, NamesAreExchanged,
                            AttributesCopyUp, HolesStayHoles, EntriesHaveTheNumbersOfTheirInodes, MappingsMoveToTheCopy,
                            ManyThreadsCopyOneFileOnce, SeveralLowersStack, WithoutAnUpperNothingChanges);

}  // namespace moat

#endif  // MOAT_FS_OVERLAY_OVERLAY_SUITE_H_
