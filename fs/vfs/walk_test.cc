#include <gtest/gtest.h>
#include <linux/openat2.h>

#include "fs/vfs/dentry_lru.h"
#include "fs/vfs/test_world.h"

namespace moat {
namespace {

constexpr Errno kOk = Errno::kOK;

AttrChange ModeChange(uint32_t mode) {
  AttrChange c;
  c.mode = mode;
  return c;
}

TEST(Walk, PlainPaths) {
  TestWorld w;
  ASSERT_EQ(w.Mkdir("a"), kOk);
  ASSERT_EQ(w.Mkdir("/a/b/"), kOk);
  ASSERT_EQ(w.Make("a/b/f", "x"), kOk);
  EXPECT_EQ(w.Contents("/a//b/./../b/f"), "x");
  EXPECT_EQ(w.Stat("").error(), kENOENT);
  EXPECT_EQ(w.Stat("a/none/f").error(), kENOENT);
  EXPECT_EQ(w.Stat("a/b/f/").error(), kENOTDIR);
  EXPECT_EQ(w.Stat("a/b/f/..").error(), kENOTDIR);
  EXPECT_EQ(w.Stat(std::string(256, 'n')).error(), kENAMETOOLONG);
  EXPECT_EQ(w.Stat(std::string(255, 'n')).error(), kENOENT);
  EXPECT_EQ(w.Stat("/../../a/b/f").value().size, 1u);
}

TEST(Walk, Symlinks) {
  TestWorld w;
  ASSERT_EQ(w.Mkdir("d"), kOk);
  ASSERT_EQ(w.Make("d/f", "hi"), kOk);
  ASSERT_EQ(w.Symlink("d", "l"), kOk);
  ASSERT_EQ(w.Symlink("/l/f", "d/abs"), kOk);
  ASSERT_EQ(w.Symlink("../l/../d/abs", "d/rel"), kOk);
  ASSERT_EQ(w.Symlink("loop", "loop"), kOk);
  ASSERT_EQ(w.Symlink("f/", "d/slash"), kOk);
  EXPECT_EQ(w.Contents("d/rel"), "hi");
  EXPECT_EQ(w.Contents("l/abs"), "hi");
  EXPECT_EQ(w.Stat("loop").error(), kELOOP);
  EXPECT_EQ(w.Stat("loop", false).value().mode & S_IFMT, unsigned{S_IFLNK});
  EXPECT_EQ(w.Stat("d/slash").error(), kENOTDIR);
  EXPECT_TRUE(S_ISDIR(w.Stat("l/", false).value().mode));
  EXPECT_EQ(w.Open("d/abs", O_RDONLY | O_NOFOLLOW).error(), kELOOP);
}

TEST(Walk, FortyLinksAreTheLimit) {
  TestWorld w;
  ASSERT_EQ(w.Make("f0", "end"), kOk);
  for (int i = 1; i <= 41; ++i) {
    ASSERT_EQ(w.Symlink("f" + std::to_string(i - 1), "f" + std::to_string(i)), kOk);
  }
  EXPECT_EQ(w.Contents("f40"), "end");
  EXPECT_EQ(w.Stat("f41").error(), kELOOP);
}

TEST(Walk, ResolveFlags) {
  TestWorld w;
  ASSERT_EQ(w.Mkdir("jail"), kOk);
  ASSERT_EQ(w.Mkdir("jail/sub"), kOk);
  ASSERT_EQ(w.Make("out", "out"), kOk);
  ASSERT_EQ(w.Make("jail/out", "in"), kOk);
  ASSERT_EQ(w.Symlink("/out", "jail/abs"), kOk);
  ASSERT_EQ(w.Symlink("../out", "jail/up"), kOk);
  w.cwd = w.Resolve("jail").value();
  EXPECT_EQ(w.Resolve("../out", true, RESOLVE_BENEATH).error(), kEXDEV);
  EXPECT_EQ(w.Resolve("abs", true, RESOLVE_BENEATH).error(), kEXDEV);
  EXPECT_EQ(w.Resolve("/out", true, RESOLVE_BENEATH).error(), kEXDEV);
  EXPECT_TRUE(w.Resolve("sub/../out", true, RESOLVE_BENEATH).ok());
  EXPECT_EQ(w.Resolve("abs", true, RESOLVE_NO_SYMLINKS).error(), kELOOP);
  EXPECT_TRUE(w.Resolve("abs", false, RESOLVE_NO_SYMLINKS).ok());
  for (const char* path : {"abs", "up", "/out", "../../out"}) {
    auto p = w.Resolve(path, true, RESOLVE_IN_ROOT);
    ASSERT_TRUE(p.ok()) << path;
    EXPECT_EQ(*p, w.Resolve("out").value()) << path;
  }
}

TEST(Walk, MountsAreCrossedBothWays) {
  TestWorld w;
  ASSERT_EQ(w.Mkdir("m"), kOk);
  ASSERT_EQ(w.Make("m/hidden"), kOk);
  auto inner = TmpfsFs::Create(TestMemory(), {}).value();
  ASSERT_TRUE(w.mounts->MountAt(w.Resolve("m").value(), inner, "inner", 0).ok());
  EXPECT_EQ(w.Stat("m/hidden").error(), kENOENT);
  ASSERT_EQ(w.Make("m/f", "x"), kOk);
  EXPECT_TRUE(w.Stat("m/../m/f").ok());
  EXPECT_EQ(w.Resolve("m/f", true, RESOLVE_NO_XDEV).error(), kEXDEV);
  EXPECT_EQ(w.Rename("m/f", "f"), kEXDEV);
  EXPECT_EQ(w.Rmdir("m"), kEBUSY);
  EXPECT_EQ(w.mounts->PathName(w.Resolve("m/f").value(), w.root), "/m/f");
  VfsPath top = w.Resolve("m").value();
  ASSERT_TRUE(w.mounts->Unmount(top, 0).ok());
  EXPECT_TRUE(w.Stat("m/hidden").ok());
}

TEST(Walk, SearchPermissionIsNeeded) {
  TestWorld w;
  ASSERT_EQ(w.Mkdir("d", 0700), kOk);
  ASSERT_EQ(w.Make("d/f", "x"), kOk);
  w.Become(1000, 1000);
  EXPECT_EQ(w.Stat("d/f").error(), kEACCES);
  EXPECT_TRUE(w.Stat("d").ok());
  EXPECT_EQ(w.Make("f"), kEACCES);
}

TEST(Walk, EvictionKeepsTheTreeUsable) {
  TestWorld w;
  DentryLru::Get().SetLimit(16);
  for (int i = 0; i < 200; ++i) ASSERT_EQ(w.Make("f" + std::to_string(i), std::to_string(i)), kOk);
  for (int i = 0; i < 200; ++i) EXPECT_EQ(w.Contents("f" + std::to_string(i)), std::to_string(i));
  for (int i = 0; i < 200; ++i) EXPECT_EQ(w.Stat("none" + std::to_string(i)).error(), kENOENT);
  EXPECT_LT(DentryLru::Get().size(), 400u);
  DentryLru::Get().SetLimit(DentryLru::kDefaultLimit);
}

TEST(Open, FlagsOfOpen) {
  TestWorld w;
  EXPECT_EQ(w.Open("f", O_RDONLY).error(), kENOENT);
  ASSERT_TRUE(w.Open("f", O_CREAT | O_EXCL | O_RDWR).ok());
  EXPECT_EQ(w.Open("f", O_CREAT | O_EXCL | O_RDWR).error(), kEEXIST);
  ASSERT_EQ(w.Mkdir("d"), kOk);
  EXPECT_EQ(w.Open("d", O_CREAT | O_RDWR).error(), kEISDIR);
  EXPECT_EQ(w.Open("d", O_RDWR).error(), kEISDIR);
  EXPECT_EQ(w.Open("f", O_RDONLY | O_DIRECTORY).error(), kENOTDIR);
  EXPECT_EQ(w.Open("new/", O_CREAT | O_RDWR).error(), kEISDIR);
  EXPECT_EQ(w.Open("d/..", O_CREAT | O_RDWR).error(), kEISDIR);
  ASSERT_EQ(w.Symlink("target", "dangling"), kOk);
  ASSERT_TRUE(w.Open("dangling", O_CREAT | O_RDWR).ok());
  EXPECT_TRUE(w.Stat("target").ok());
  EXPECT_EQ(w.Open("dangling", O_CREAT | O_EXCL | O_RDWR).error(), kEEXIST);
  EXPECT_TRUE(w.Open("dangling", O_PATH | O_NOFOLLOW).ok());
}

TEST(Open, CreatedFileMayBeReadOnlyToItsCreator) {
  TestWorld w;
  ASSERT_EQ(w.Mkdir("d", 0777), kOk);
  vfs::SetAttr(w.Ctx(), w.Resolve("d").value(), ModeChange(0777)).value();
  w.Become(1000, 1000);
  EXPECT_TRUE(w.Open("d/f", O_CREAT | O_RDWR, 0444).ok());
  EXPECT_EQ(w.Open("d/f", O_RDWR).error(), kEACCES);
}

TEST(Open, TextBusy) {
  TestWorld w;
  ASSERT_EQ(w.Make("f"), kOk);
  RefPtr<Inode> inode = w.Resolve("f").value().dentry->inode();
  ASSERT_TRUE(inode->DenyWriteAccess().ok());
  EXPECT_EQ(w.Open("f", O_WRONLY).error(), kETXTBSY);
  inode->AllowWriteAccess();
  auto f = w.Open("f", O_WRONLY);
  ASSERT_TRUE(f.ok());
  EXPECT_EQ(inode->DenyWriteAccess().error(), kETXTBSY);
  f = kENOENT;
  EXPECT_TRUE(inode->DenyWriteAccess().ok());
}

TEST(Open, StickyDirectoryRules) {
  TestWorld w;
  ASSERT_EQ(w.Mkdir("tmp"), kOk);
  vfs::SetAttr(w.Ctx(), w.Resolve("tmp").value(), ModeChange(01777)).value();
  w.Become(1000, 1000);
  ASSERT_EQ(w.Make("tmp/f"), kOk);
  ASSERT_EQ(w.Symlink("f", "tmp/l"), kOk);
  w.Become(1001, 1001);
  EXPECT_EQ(w.Unlink("tmp/f"), kEPERM);
  EXPECT_EQ(w.Rename("tmp/f", "tmp/g"), kEPERM);
  EXPECT_EQ(w.Stat("tmp/l").error(), kEACCES);
  EXPECT_EQ(w.Link("tmp/f", "tmp/g"), kEPERM);
}

}  // namespace
}  // namespace moat
