// User and group ids, supplementary groups, capabilities.
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <array>
#include <set>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

using Ids = std::array<uid_t, 3>;
Ids Uids() {
  Ids ids;
  EXPECT_OK(getresuid(&ids[0], &ids[1], &ids[2]));
  return ids;
}
Ids Gids() {
  Ids ids;
  EXPECT_OK(getresgid(&ids[0], &ids[1], &ids[2]));
  return ids;
}
struct Caps {
  uint64_t effective, permitted, inheritable;
};
Caps GetCaps(pid_t pid = 0) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, pid};
  __user_cap_data_struct data[2] = {};
  EXPECT_OK(syscall(SYS_capget, &header, data));
  const auto join = [](uint32_t low, uint32_t high) { return low | static_cast<uint64_t>(high) << 32; };
  return {join(data[0].effective, data[1].effective), join(data[0].permitted, data[1].permitted),
          join(data[0].inheritable, data[1].inheritable)};
}
int SetCaps(Caps caps) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  const auto low = [](uint64_t v) { return static_cast<uint32_t>(v); };
  const auto high = [](uint64_t v) { return static_cast<uint32_t>(v >> 32); };
  __user_cap_data_struct data[2] = {{low(caps.effective), low(caps.permitted), low(caps.inheritable)},
                                    {high(caps.effective), high(caps.permitted), high(caps.inheritable)}};
  return static_cast<int>(syscall(SYS_capset, &header, data));
}
constexpr uint64_t Bit(int cap) { return 1ull << cap; }

TEST(Uid, SetuidByRootSetsAllThree) {
  EXPECT_TRUE(PassesInChild([] {
    ASSERT_OK(setuid(1000));
    EXPECT_EQ(Uids(), (Ids{1000, 1000, 1000}));
    EXPECT_FAIL(setuid(0), EPERM);
  }));
}
TEST(Uid, SeteuidAndBack) {
  EXPECT_TRUE(PassesInChild([] {
    ASSERT_OK(seteuid(1000));
    EXPECT_EQ(Uids(), (Ids{0, 1000, 0}));
    EXPECT_FAIL(seteuid(1001), EPERM);
    EXPECT_OK(seteuid(0));
  }));
}
TEST(Uid, SetresuidKeepsWithMinusOne) {
  EXPECT_TRUE(PassesInChild([] {
    ASSERT_OK(setresuid(1, 2, 3));
    EXPECT_EQ(Uids(), (Ids{1, 2, 3}));
    ASSERT_OK(setresuid(-1, 3, -1));
    EXPECT_EQ(Uids(), (Ids{1, 3, 3}));
    EXPECT_OK(setresuid(3, 1, 1));
    EXPECT_FAIL(setresuid(-1, 0, -1), EPERM);
  }));
}
TEST(Uid, SetreuidSetsTheSavedId) {
  EXPECT_TRUE(PassesInChild([] {
    ASSERT_OK(setreuid(1000, 2000));
    EXPECT_EQ(Uids(), (Ids{1000, 2000, 2000}));
    EXPECT_OK(setreuid(2000, 1000));
    EXPECT_EQ(Uids(), (Ids{2000, 1000, 1000}));
    EXPECT_FAIL(setreuid(-1, 5), EPERM);
  }));
}
TEST(Uid, FsuidFollowsEuid) {
  EXPECT_TRUE(PassesInChild([] {
    EXPECT_EQ(setfsuid(-1), 0);
    EXPECT_EQ(setfsuid(77), 0);
    EXPECT_EQ(setfsuid(-1), 77);
    ASSERT_OK(seteuid(1000));
    EXPECT_EQ(setfsuid(-1), 1000);
    setfsuid(78);
    EXPECT_EQ(setfsuid(-1), 1000);  // not one of its own ids: nothing happens
  }));
}
TEST(Uid, MinusOneIsInvalid) { EXPECT_FAIL(setuid(-1), EINVAL); }
TEST(Gid, Family) {
  EXPECT_TRUE(PassesInChild([] {
    ASSERT_OK(setresgid(1, 2, 3));
    EXPECT_EQ(Gids(), (Ids{1, 2, 3}));
    ASSERT_OK(setgid(9));
    EXPECT_EQ(Gids(), (Ids{9, 9, 9}));
    ASSERT_OK(setregid(10, 11));
    EXPECT_EQ(Gids(), (Ids{10, 11, 11}));
    setfsgid(12);
    EXPECT_EQ(setfsgid(-1), 12);
  }));
}
TEST(Gid, UserIsLimitedToItsOwn) {
  EXPECT_TRUE(PassesAsUser(1000, [] {
    EXPECT_FAIL(setgid(0), EPERM);
    EXPECT_FAIL(setresgid(0, 0, 0), EPERM);
    EXPECT_OK(setgid(1000));
  }));
}
TEST(Groups, SetAndGet) {
  EXPECT_TRUE(PassesInChild([] {
    const gid_t wanted[] = {5, 3, 9};
    ASSERT_OK(setgroups(3, wanted));
    gid_t got[8];
    ASSERT_EQ(getgroups(8, got), 3);
    EXPECT_EQ(getgroups(0, nullptr), 3);
    EXPECT_EQ((std::set<gid_t>(got, got + 3)), (std::set<gid_t>{3, 5, 9}));
    EXPECT_FAIL(getgroups(2, got), EINVAL);
    EXPECT_FAIL(getgroups(-1, got), EINVAL);
    EXPECT_EQ(ProcField("/proc/self/status", "Groups"), "3 5 9");
  }));
}
TEST(Groups, Errors) {
  EXPECT_FAIL(setgroups(65'537, nullptr), EINVAL);
  EXPECT_TRUE(PassesAsUser(1000, [] { EXPECT_FAIL(setgroups(0, nullptr), EPERM); }));
}
TEST(Uid, StatusFile) {
  EXPECT_TRUE(PassesInChild([] {
    ASSERT_OK(setresuid(1, 2, 3));
    EXPECT_EQ(ProcField("/proc/self/status", "Uid"), "1\t2\t3\t2");
  }));
}

TEST(Capability, RootHasThemAndStatusAgrees) {
  const Caps caps = GetCaps();
  EXPECT_EQ(caps.effective, caps.permitted);
  EXPECT_TRUE(caps.effective & Bit(CAP_CHOWN));
  EXPECT_EQ(std::stoull(ProcField("/proc/self/status", "CapEff"), nullptr, 16), caps.effective);
}
TEST(Capability, LostBySetuid) {
  EXPECT_TRUE(PassesAsUser(1000, [] {
    const Caps caps = GetCaps();
    EXPECT_EQ(caps.effective, 0u);
    EXPECT_EQ(caps.permitted, 0u);
  }));
}
TEST(Capability, KeepcapsKeepsPermitted) {
  EXPECT_TRUE(PassesInChild([] {
    const Caps before = GetCaps();
    ASSERT_OK(prctl(PR_SET_KEEPCAPS, 1));
    ASSERT_OK(setresuid(1000, 1000, 1000));
    const Caps caps = GetCaps();
    EXPECT_EQ(caps.effective, 0u);
    EXPECT_EQ(caps.permitted, before.permitted);
    ASSERT_OK(SetCaps({Bit(CAP_CHOWN), caps.permitted, 0}));
    EXPECT_EQ(GetCaps().effective, Bit(CAP_CHOWN));
  }));
}
TEST(Capability, SeteuidTogglesEffective) {
  EXPECT_TRUE(PassesInChild([] {
    const Caps before = GetCaps();
    ASSERT_OK(seteuid(1000));
    EXPECT_EQ(GetCaps().effective, 0u);
    EXPECT_EQ(GetCaps().permitted, before.permitted);
    ASSERT_OK(seteuid(0));
    EXPECT_EQ(GetCaps().effective, before.permitted);
  }));
}
TEST(Capability, FsuidDropsFileCapabilitiesOnly) {
  EXPECT_TRUE(PassesInChild([] {
    setfsuid(1000);
    EXPECT_FALSE(GetCaps().effective & Bit(CAP_DAC_OVERRIDE));
    EXPECT_TRUE(GetCaps().effective & Bit(CAP_KILL));
    setfsuid(0);
    EXPECT_TRUE(GetCaps().effective & Bit(CAP_DAC_OVERRIDE));
  }));
}
TEST(Capability, DroppedPermittedNeverReturns) {
  EXPECT_TRUE(PassesInChild([] {
    const Caps caps = GetCaps();
    ASSERT_OK(SetCaps({caps.effective & ~Bit(CAP_CHOWN), caps.permitted & ~Bit(CAP_CHOWN), 0}));
    EXPECT_FAIL(SetCaps({caps.effective, caps.permitted, 0}), EPERM);
    EXPECT_FAIL(chown("/tmp", 1, 1), EPERM);
  }));
}
TEST(Capability, EffectiveMustBePermitted) {
  EXPECT_TRUE(PassesInChild([] { EXPECT_FAIL(SetCaps({Bit(CAP_CHOWN), 0, 0}), EPERM); }));
}
TEST(Capability, BoundingSet) {
  EXPECT_TRUE(PassesInChild([] {
    EXPECT_EQ(prctl(PR_CAPBSET_READ, CAP_MKNOD), 1);
    ASSERT_OK(prctl(PR_CAPBSET_DROP, CAP_MKNOD));
    EXPECT_EQ(prctl(PR_CAPBSET_READ, CAP_MKNOD), 0);
    EXPECT_FAIL(prctl(PR_CAPBSET_READ, 99), EINVAL);
    EXPECT_FAIL(prctl(PR_CAPBSET_DROP, 99), EINVAL);
  }));
}
TEST(Capability, AmbientNeedsPermittedAndInheritable) {
  EXPECT_TRUE(PassesInChild([] {
    EXPECT_FAIL(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0), EPERM);
    const Caps caps = GetCaps();
    ASSERT_OK(SetCaps({caps.effective, caps.permitted, Bit(CAP_CHOWN)}));
    ASSERT_OK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
    EXPECT_EQ(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0), 1);
    ASSERT_OK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
    EXPECT_EQ(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0), 0);
  }));
}
TEST(Capability, AmbientSurvivesExecOfAUser) {
  EXPECT_EQ(StatusOf([] {
              const Caps caps = GetCaps();
              ASSERT_OK(prctl(PR_SET_KEEPCAPS, 1));
              ASSERT_OK(setresuid(1000, 1000, 1000));
              ASSERT_OK(SetCaps({caps.permitted, caps.permitted, Bit(CAP_CHOWN)}));
              ASSERT_OK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
              ExecRole("has_chown_only");
            }),
            0);
}
MOAT_ROLE(has_chown_only) { return GetCaps().effective == Bit(CAP_CHOWN) ? 0 : 1; }
TEST(Capability, UserExecLosesThem) {
  EXPECT_EQ(StatusOf([] {
              const Caps caps = GetCaps();
              ASSERT_OK(prctl(PR_SET_KEEPCAPS, 1));
              ASSERT_OK(setresuid(1000, 1000, 1000));
              ASSERT_OK(SetCaps({caps.permitted, caps.permitted, 0}));
              ExecRole("has_none");
            }),
            0);
}
MOAT_ROLE(has_none) { return GetCaps().permitted == 0 ? 0 : 1; }
TEST(Capability, CapgetOfAnother) {
  const PausedChild child;
  EXPECT_EQ(GetCaps(child.pid()).permitted, GetCaps().permitted);
}
TEST(Capability, VersionNegotiation) {
  __user_cap_header_struct header = {0x1234, 0};
  EXPECT_FAIL(syscall(SYS_capget, &header, reinterpret_cast<void*>(8)), EINVAL);
  EXPECT_EQ(header.version, static_cast<uint32_t>(_LINUX_CAPABILITY_VERSION_3));
  header = {_LINUX_CAPABILITY_VERSION_3, 999'999};
  __user_cap_data_struct data[2];
  EXPECT_FAIL(syscall(SYS_capget, &header, data), ESRCH);
}
TEST(Capability, NoRootSecurebit) {
  EXPECT_EQ(StatusOf([] {
              ASSERT_OK(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT));
              ExecRole("has_none");
            }),
            0);
}

}  // namespace
}  // namespace moat::guest
