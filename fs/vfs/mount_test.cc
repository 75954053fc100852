#include <gtest/gtest.h>
#include <sys/mount.h>

#include "fs/vfs/mount_ops.h"
#include "fs/vfs/test_world.h"

namespace moat {
namespace {

constexpr Errno kOk = Errno::kOK;

class MountTest : public testing::Test, public TestWorld {
 protected:
  Errno MountTmpfs(std::string_view at, uint64_t flags = 0) {
    MountArguments a;
    a.type = "tmpfs";
    a.source = "none";
    a.has_type = a.has_source = true;
    a.flags = flags;
    return vfs::Mount(Ctx(), Resolve(at).value(), a).error();
  }
  Errno Call(std::string_view at, uint64_t flags, std::string_view source = {}) {
    MountArguments a;
    a.source = source;
    a.has_source = !source.empty();
    a.flags = flags;
    return vfs::Mount(Ctx(), Resolve(at).value(), a).error();
  }
  Errno Umount(std::string_view at, int flags = 0) { return vfs::Umount(Ctx(), Resolve(at).value(), flags).error(); }
};

TEST_F(MountTest, BindShowsTheSameFiles) {
  ASSERT_EQ(Mkdir("a"), kOk);
  ASSERT_EQ(Mkdir("b"), kOk);
  ASSERT_EQ(Make("a/f", "x"), kOk);
  ASSERT_EQ(Call("b", MS_BIND, "a"), kOk);
  EXPECT_EQ(Contents("b/f"), "x");
  EXPECT_EQ(Call("b", MS_REMOUNT | MS_BIND | MS_RDONLY), kOk);
  EXPECT_EQ(Make("b/g"), kEROFS);
  EXPECT_EQ(Make("a/g"), kOk);
  EXPECT_EQ(mounts->PathName(Resolve("b/f").value(), root), "/b/f");
  EXPECT_EQ(Umount("b"), kOk);
  EXPECT_EQ(Stat("b/f").error(), kENOENT);
}

TEST_F(MountTest, BusyMountsStay) {
  ASSERT_EQ(Mkdir("m"), kOk);
  ASSERT_EQ(MountTmpfs("m"), kOk);
  ASSERT_EQ(Make("m/f"), kOk);
  auto f = Open("m/f", O_RDONLY).value();
  EXPECT_EQ(Umount("m"), kEBUSY);
  EXPECT_EQ(Umount("m", MNT_DETACH), kOk);
  EXPECT_EQ(Stat("m/f").error(), kENOENT);
  EXPECT_EQ(f->GetAttr()->nlink, 1u);
}

TEST_F(MountTest, PropagationReachesPeersAndSlaves) {
  for (const char* d : {"a", "peer", "slave", "private"}) ASSERT_EQ(Mkdir(d), kOk);
  ASSERT_EQ(MountTmpfs("a"), kOk);
  ASSERT_EQ(Mkdir("a/x"), kOk);
  ASSERT_EQ(Call("a", MS_SHARED), kOk);
  for (const char* d : {"peer", "slave", "private"}) ASSERT_EQ(Call(d, MS_BIND, "a"), kOk);
  ASSERT_EQ(Call("slave", MS_SLAVE), kOk);
  ASSERT_EQ(Call("private", MS_PRIVATE), kOk);
  ASSERT_EQ(MountTmpfs("a/x"), kOk);
  ASSERT_EQ(Make("a/x/f"), kOk);
  EXPECT_TRUE(Stat("peer/x/f").ok());
  EXPECT_TRUE(Stat("slave/x/f").ok());
  EXPECT_FALSE(Stat("private/x/f").ok());
  ASSERT_EQ(Umount("peer/x"), kOk);
  EXPECT_FALSE(Stat("a/x/f").ok());
  EXPECT_FALSE(Stat("slave/x/f").ok());
  ASSERT_EQ(MountTmpfs("slave/x"), kOk);
  ASSERT_EQ(Make("slave/x/g"), kOk);
  EXPECT_FALSE(Stat("a/x/g").ok());
}

TEST_F(MountTest, NamespaceCopiesAreIndependent) {
  ASSERT_EQ(Mkdir("m"), kOk);
  VfsPath moved = root;
  RefPtr<MountNamespace> copy = mounts->Clone(user_ns, {&moved}).value();
  ASSERT_EQ(MountTmpfs("m"), kOk);
  ASSERT_EQ(Make("m/f"), kOk);
  VfsContext other{.cred = *cred, .mounts = *copy, .root = moved, .cwd = moved};
  EXPECT_EQ(vfs::Resolve(other, moved, "m/f").error(), kENOENT);
  EXPECT_TRUE(Stat("m/f").ok());
}

TEST_F(MountTest, PivotRootThenDetachTheOld) {
  ASSERT_EQ(Mkdir("new"), kOk);
  ASSERT_EQ(Make("old"), kOk);
  ASSERT_EQ(MountTmpfs("new"), kOk);
  ASSERT_EQ(Make("new/f"), kOk);
  VfsPath to = Resolve("new").value();
  ASSERT_TRUE(vfs::PivotRoot(Ctx(), to, to).ok());  // pivot_root(".", ".")
  root = cwd = to;
  to = VfsPath();
  EXPECT_EQ(Umount(".", MNT_DETACH), kOk);
  EXPECT_TRUE(Stat("/f").ok());
  EXPECT_EQ(Stat("/old").error(), kENOENT);
  EXPECT_EQ(mounts->Snapshot(root).size(), 1u);
}

TEST_F(MountTest, OnlyTheOwnerOfTheNamespaceMayMount) {
  ASSERT_EQ(Mkdir("m"), kOk);
  Become(1000, 1000);
  EXPECT_EQ(MountTmpfs("m"), kEPERM);
}

}  // namespace
}  // namespace moat
