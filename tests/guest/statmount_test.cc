// listmount(2), statmount(2), fspick(2).
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>

#include "tests/guest/support/child.h"
#include "tests/guest/support/temp_dir.h"

// <sys/mount.h> cannot be included beside <linux/mount.h>.
extern "C" int mount(const char*, const char*, const char*, unsigned long, const void*) noexcept;
extern "C" int umount2(const char*, int) noexcept;

namespace moat::guest {
namespace {

constexpr int kStatmount = 457, kListmount = 458;
constexpr uint64_t kSbBasic = 1, kMntBasic = 2, kPropagateFrom = 4, kMntRoot = 8, kMntPoint = 16, kFsType = 32,
                   kMntNsId = 64, kMntOpts = 128, kSbSource = 512, kOptArray = 1024, kSupportedMask = 4096;
constexpr uint64_t kRoot = ~uint64_t{0};
constexpr uint64_t kFirstId = uint64_t{1} << 31;
constexpr unsigned long kNoSuid = 2, kBind = 4096, kPrivateTree = 16384 | (1 << 18), kShared = 1 << 20,
                        kSlave = 1 << 19;

struct MountIdRequest {  // struct mnt_id_req
  uint32_t size = sizeof(MountIdRequest), fd = 0;
  uint64_t id = 0, param = 0, ns_id = 0;
};
struct MountStat {  // struct statmount
  uint32_t size, mnt_opts;
  uint64_t mask;
  uint32_t sb_dev_major, sb_dev_minor;
  uint64_t sb_magic;
  uint32_t sb_flags, fs_type;
  uint64_t mnt_id, mnt_parent_id;
  uint32_t mnt_id_old, mnt_parent_id_old;
  uint64_t mnt_attr, mnt_propagation, mnt_peer_group, mnt_master, propagate_from;
  uint32_t mnt_root, mnt_point;
  uint64_t mnt_ns_id;
  uint32_t fs_subtype, sb_source, opt_num, opt_array, opt_sec_num, opt_sec_array;
  uint64_t supported_mask;
  uint32_t uid_map_num, uid_map, gid_map_num, gid_map;
  uint64_t spare[43];
  char text[4096 - 512];
  const char* Text(uint32_t offset) const { return text + offset; }
};
static_assert(offsetof(MountStat, text) == 512);

long StatMount(uint64_t id, uint64_t mask, MountStat* out, size_t size = sizeof(MountStat)) {
  MountIdRequest req;
  req.id = id;
  req.param = mask;
  return syscall(kStatmount, &req, out, size, 0);
}
std::vector<uint64_t> ListMounts(uint64_t id, uint64_t last = 0, size_t room = 512, unsigned flags = 0) {
  MountIdRequest req;
  req.id = id;
  req.param = last;
  std::vector<uint64_t> ids(room);
  const long n = syscall(kListmount, &req, ids.data(), room, flags);
  EXPECT_OK(n);
  ids.resize(n < 0 ? 0 : n);
  return ids;
}
uint64_t UniqueId(const std::string& path) {
  struct statx st = {};
  EXPECT_OK(statx(AT_FDCWD, path.c_str(), 0, 0x4000 /* STATX_MNT_ID_UNIQUE */, &st)) << path;
  uint64_t id;
  memcpy(&id, reinterpret_cast<char*>(&st) + 0x90, sizeof id);  // stx_mnt_id, which older headers do not name
  return id;
}

class Statmount : public testing::Test {
 protected:
  void SetUp() override {
    if (syscall(kListmount, nullptr, nullptr, 0, 0) < 0 && errno == ENOSYS) GTEST_SKIP() << "Linux 6.8 has the call";
  }
  testing::AssertionResult Passes(const std::function<void()>& body) {
    return PassesInChild([&] {
      ASSERT_OK(unshare(CLONE_NEWNS));
      ASSERT_OK(mount(nullptr, "/", nullptr, kPrivateTree, nullptr));
      ASSERT_OK(mount("source", dir_.path().c_str(), "tmpfs", kNoSuid, "size=64k,mode=750"));
      ASSERT_OK(chdir(dir_.path().c_str()));
      body();
      ASSERT_OK(chdir("/"));
    });
  }
  TempDir dir_;
};

TEST_F(Statmount, SaysWhatTheMountIs) {
  EXPECT_TRUE(Passes([&] {
    const uint64_t id = UniqueId(".");
    EXPECT_GT(id, kFirstId);
    MountStat m = {};
    constexpr uint64_t kAll = kSbBasic | kMntBasic | kPropagateFrom | kMntRoot | kMntPoint | kFsType;
    ASSERT_OK(StatMount(id, kAll, &m));
    EXPECT_EQ(m.mask, kAll);
    struct stat st;
    ASSERT_OK(stat(".", &st));
    EXPECT_EQ(makedev(m.sb_dev_major, m.sb_dev_minor), st.st_dev);
    EXPECT_EQ(m.sb_magic, 0x01021994u);
    EXPECT_EQ(m.sb_flags, 0u);
    EXPECT_EQ(m.mnt_id, id);
    EXPECT_EQ(m.mnt_parent_id, UniqueId(".."));
    EXPECT_EQ(m.mnt_attr, MOUNT_ATTR_NOSUID);
    EXPECT_EQ(m.mnt_propagation, 1u << 18);  // MS_PRIVATE
    EXPECT_EQ(m.mnt_peer_group, 0u);
    EXPECT_STREQ(m.Text(m.mnt_root), "/");
    EXPECT_EQ(m.Text(m.mnt_point), dir_.path());
    EXPECT_STREQ(m.Text(m.fs_type), "tmpfs");
    EXPECT_GT(m.size, 512u);
    EXPECT_LE(m.size, sizeof m);
    const std::string line = std::to_string(m.mnt_id_old) + " " + std::to_string(m.mnt_parent_id_old) + " ";
    EXPECT_NE(ReadFile("/proc/self/mountinfo").find(line), std::string::npos);
  }));
}
TEST_F(Statmount, OptionsAndSource) {
  EXPECT_TRUE(Passes([&] {
    MountStat m = {};
    ASSERT_OK(StatMount(UniqueId("."), kMntOpts | kSbSource | kMntNsId | kSupportedMask | kOptArray, &m));
    if ((m.mask & kOptArray) == 0) GTEST_SKIP() << "Linux 6.13 has them";
    const std::string options = std::string(",") + m.Text(m.mnt_opts) + ",";
    EXPECT_NE(options.find(",size=64k,"), std::string::npos) << options;
    EXPECT_NE(options.find(",mode=750,"), std::string::npos) << options;
    EXPECT_STREQ(m.Text(m.sb_source), "source");
    EXPECT_EQ(static_cast<size_t>(m.opt_num) + 1, static_cast<size_t>(std::count(options.begin(), options.end(), ',')));
    EXPECT_EQ(std::string(",") + m.Text(m.opt_array), options.substr(0, options.find(',', 1)));
    EXPECT_NE(m.mnt_ns_id, 0u);
    if (m.mask & kSupportedMask) EXPECT_EQ(m.supported_mask & 0x1ff, 0x1ffu);
  }));
}
TEST_F(Statmount, NothingAskedNothingSaid) {
  EXPECT_TRUE(Passes([&] {
    MountStat m;
    memset(&m, 0xff, sizeof m);
    ASSERT_OK(StatMount(UniqueId("."), 0, &m, 512));
    EXPECT_EQ(m.mask, 0u);
    EXPECT_EQ(m.size, 512u);
    EXPECT_EQ(m.mnt_id, 0u);
    // As much as there is room for.
    memset(&m, 0xff, sizeof m);
    ASSERT_OK(StatMount(UniqueId("."), kMntBasic, &m, 48));
    EXPECT_EQ(m.mnt_id, UniqueId("."));
    EXPECT_EQ(m.mnt_parent_id, kRoot);
  }));
}
TEST_F(Statmount, BindsAndPropagation) {
  EXPECT_TRUE(Passes([&] {
    for (const char* d : {"a", "a/sub", "b", "c"}) dir_.Dir(d);
    ASSERT_OK(mount("a/sub", "b", nullptr, kBind, nullptr));
    MountStat m = {};
    ASSERT_OK(StatMount(UniqueId("b"), kMntRoot | kMntPoint, &m));
    EXPECT_STREQ(m.Text(m.mnt_root), "/a/sub");
    EXPECT_EQ(m.Text(m.mnt_point), dir_.path() + "/b");
    ASSERT_OK(mount(nullptr, "b", nullptr, kShared, nullptr));
    ASSERT_OK(mount("b", "c", nullptr, kBind, nullptr));
    ASSERT_OK(StatMount(UniqueId("b"), kMntBasic, &m));
    EXPECT_EQ(m.mnt_propagation, kShared);
    const uint64_t group = m.mnt_peer_group;
    EXPECT_NE(group, 0u);
    ASSERT_OK(mount(nullptr, "c", nullptr, kSlave, nullptr));
    ASSERT_OK(StatMount(UniqueId("c"), kMntBasic | kPropagateFrom, &m));
    EXPECT_EQ(m.mnt_propagation, kSlave);
    EXPECT_EQ(m.mnt_master, group);
    EXPECT_EQ(m.propagate_from, group);
    EXPECT_EQ(m.mnt_peer_group, 0u);
  }));
}
TEST_F(Statmount, Errors) {
  EXPECT_TRUE(Passes([&] {
    MountStat m;
    const uint64_t id = UniqueId(".");
    EXPECT_FAIL(StatMount(id + 1'000'000, kMntBasic, &m), ENOENT);
    EXPECT_FAIL(StatMount(kFirstId, kMntBasic, &m), EINVAL);
    EXPECT_FAIL(StatMount(id, kFsType, &m, 512), EOVERFLOW);
    EXPECT_FAIL(StatMount(id, kFsType, &m, 515), EOVERFLOW);
    EXPECT_FAIL(StatMount(id, kMntBasic, reinterpret_cast<MountStat*>(8)), EFAULT);
    MountIdRequest req;
    req.id = id;
    EXPECT_FAIL(syscall(kStatmount, &req, &m, sizeof m, 0x80), EINVAL);
    req.size = 20;
    EXPECT_FAIL(syscall(kStatmount, &req, &m, sizeof m, 0), EINVAL);
    req.size = 5000;
    EXPECT_FAIL(syscall(kStatmount, &req, &m, sizeof m, 0), E2BIG);
    req.size = 24;
    EXPECT_OK(syscall(kStatmount, &req, &m, sizeof m, 0));
    EXPECT_FAIL(syscall(kStatmount, nullptr, &m, sizeof m, 0), EFAULT);
    ASSERT_OK(umount2(dir_.path().c_str(), 2 /* MNT_DETACH */));
    EXPECT_FAIL(StatMount(id, kMntBasic, &m), ENOENT);
  }));
}
TEST_F(Statmount, OtherRootsAreForThePrivileged) {
  EXPECT_TRUE(Passes([&] {
    dir_.Dir("root");
    ASSERT_OK(chmod(".", 0755));
    ASSERT_OK(mount("t", "root", "tmpfs", 0, nullptr));
    const uint64_t outer = UniqueId("."), inner = UniqueId("root");
    ASSERT_OK(chroot("root"));
    ASSERT_OK(chdir("/"));
    MountStat m = {};
    ASSERT_OK(StatMount(inner, kMntPoint, &m));
    EXPECT_STREQ(m.Text(m.mnt_point), "/");
    EXPECT_OK(StatMount(outer, kMntBasic, &m));
    EXPECT_TRUE(PassesAsUser(1000, [&] {
      EXPECT_OK(StatMount(inner, kMntBasic, &m));
      EXPECT_FAIL(StatMount(outer, kMntBasic, &m), EPERM);
    }));
    const std::vector<uint64_t> all = ListMounts(kRoot);
    EXPECT_EQ(all, std::vector<uint64_t>{inner});
  }));
}

using Listmount = Statmount;
TEST_F(Listmount, AllBelowInOrder) {
  EXPECT_TRUE(Passes([&] {
    dir_.Dir("a");
    ASSERT_OK(mount("t", "a", "tmpfs", 0, nullptr));
    dir_.Dir("a/b");
    dir_.Dir("c");
    ASSERT_OK(mount("t", "a/b", "tmpfs", 0, nullptr));
    ASSERT_OK(mount("t", "c", "tmpfs", 0, nullptr));
    const uint64_t here = UniqueId("."), a = UniqueId("a"), b = UniqueId("a/b"), c = UniqueId("c");
    EXPECT_EQ(ListMounts(here), (std::vector<uint64_t>{a, b, c}));
    EXPECT_EQ(ListMounts(a), std::vector<uint64_t>{b});
    EXPECT_EQ(ListMounts(here, a), (std::vector<uint64_t>{b, c}));
    EXPECT_EQ(ListMounts(here, 0, 1), std::vector<uint64_t>{a});
    EXPECT_TRUE(ListMounts(here, c).empty());
    const std::vector<uint64_t> all = ListMounts(kRoot);
    EXPECT_TRUE(std::is_sorted(all.begin(), all.end()));
    for (uint64_t id : {here, a, b, c, UniqueId("/")}) EXPECT_EQ(std::count(all.begin(), all.end(), id), 1) << id;
    const std::string info = ReadFile("/proc/self/mountinfo");
    EXPECT_EQ(static_cast<long>(all.size()), std::count(info.begin(), info.end(), '\n'));
  }));
}
TEST_F(Listmount, Backwards) {
  EXPECT_TRUE(Passes([&] {
    MountIdRequest req;
    req.id = kRoot;
    uint64_t one;
    if (syscall(kListmount, &req, &one, 1, 1) < 0) GTEST_SKIP() << "Linux 6.12 has it";
    std::vector<uint64_t> all = ListMounts(kRoot), back = ListMounts(kRoot, 0, 512, 1);
    std::reverse(back.begin(), back.end());
    EXPECT_EQ(all, back);
    back = ListMounts(kRoot, all.back(), 512, 1);
    EXPECT_EQ(back.size() + 1, all.size());
  }));
}
TEST_F(Listmount, Errors) {
  EXPECT_TRUE(Passes([&] {
    MountIdRequest req;
    req.id = kRoot;
    uint64_t ids[4];
    EXPECT_FAIL(syscall(kListmount, &req, ids, 4, 0x80), EINVAL);
    EXPECT_FAIL(syscall(kListmount, nullptr, ids, 4, 0), EFAULT);
    EXPECT_FAIL(syscall(kListmount, &req, reinterpret_cast<uint64_t*>(8), 4, 0), EFAULT);
    EXPECT_FAIL(syscall(kListmount, &req, ids, 2'000'000, 0), EOVERFLOW);
    EXPECT_EQ(syscall(kListmount, &req, ids, 0, 0), 0);
    req.param = 7;
    EXPECT_FAIL(syscall(kListmount, &req, ids, 4, 0), EINVAL);
    req.param = 0;
    req.id = kFirstId + 1'000'000'000;
    EXPECT_FAIL(syscall(kListmount, &req, ids, 4, 0), ENOENT);
  }));
}

class Fspick : public Statmount {
 protected:
  static int Pick(const char* path, unsigned flags = 0) {
    return static_cast<int>(syscall(SYS_fspick, AT_FDCWD, path, flags));
  }
  static long Config(int fd, unsigned command, const char* key = nullptr, const char* value = nullptr) {
    return syscall(SYS_fsconfig, fd, command, key, value, 0);
  }
};
TEST_F(Fspick, ReconfiguresTheFileSystem) {
  EXPECT_TRUE(Passes([&] {
    const ScopedFd fs(Pick("."));
    ASSERT_OK(fs.get());
    ASSERT_OK(Config(fs.get(), FSCONFIG_SET_FLAG, "ro"));
    ASSERT_OK(Config(fs.get(), FSCONFIG_CMD_RECONFIGURE));
    EXPECT_FAIL(mkdir("d", 0700), EROFS);
    ASSERT_OK(Config(fs.get(), FSCONFIG_SET_FLAG, "rw"));
    ASSERT_OK(Config(fs.get(), FSCONFIG_SET_STRING, "size", "128k"));
    ASSERT_OK(Config(fs.get(), FSCONFIG_CMD_RECONFIGURE));
    EXPECT_OK(mkdir("d", 0700));
    EXPECT_NE(ReadFile("/proc/self/mountinfo").find("size=128k"), std::string::npos);
    EXPECT_FAIL(Config(fs.get(), FSCONFIG_SET_STRING, "nonsense", "1"), EINVAL);
    EXPECT_FAIL(Config(fs.get(), FSCONFIG_CMD_CREATE), EBUSY);
    EXPECT_FAIL(syscall(SYS_fsmount, fs.get(), 0, 0), EBUSY);
  }));
}
TEST_F(Fspick, AfterFsmount) {
  EXPECT_TRUE(Passes([&] {
    dir_.Dir("m");
    const ScopedFd fs(static_cast<int>(syscall(SYS_fsopen, "tmpfs", 0)));
    EXPECT_FAIL(Config(fs.get(), FSCONFIG_CMD_RECONFIGURE), EBUSY);
    ASSERT_OK(Config(fs.get(), FSCONFIG_CMD_CREATE));
    EXPECT_FAIL(Config(fs.get(), FSCONFIG_SET_FLAG, "ro"), EBUSY);
    const ScopedFd mnt(static_cast<int>(syscall(SYS_fsmount, fs.get(), 0, 0)));
    ASSERT_OK(mnt.get());
    ASSERT_OK(syscall(SYS_move_mount, mnt.get(), "", AT_FDCWD, "m", MOVE_MOUNT_F_EMPTY_PATH));
    ASSERT_OK(Config(fs.get(), FSCONFIG_SET_FLAG, "ro"));
    ASSERT_OK(Config(fs.get(), FSCONFIG_CMD_RECONFIGURE));
    EXPECT_FAIL(mkdir("m/d", 0700), EROFS);
  }));
}
TEST_F(Fspick, Errors) {
  EXPECT_TRUE(Passes([&] {
    dir_.Dir("d");
    EXPECT_FAIL(Pick("d"), EINVAL);
    EXPECT_FAIL(Pick("missing"), ENOENT);
    EXPECT_FAIL(Pick(".", 0x80), EINVAL);
    EXPECT_FAIL(syscall(SYS_fspick, -1, "d", 0), EBADF);
    const ScopedFd here(open(".", O_PATH));
    const ScopedFd fs(static_cast<int>(syscall(SYS_fspick, here.get(), "", 8 /* FSPICK_EMPTY_PATH */)));
    EXPECT_OK(fs.get());
    ASSERT_OK(chmod(".", 0755));
    EXPECT_TRUE(PassesAsUser(1000, [&] { EXPECT_FAIL(Pick("."), EPERM); }));
  }));
}

}  // namespace
}  // namespace moat::guest
