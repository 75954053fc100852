// Permission checks by owner, group, others and capability; sticky and setgid directories; path search.
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/guest/support/child.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

constexpr uid_t kOwner = 1000, kOther = 2000;
constexpr gid_t kGroup = 3000;

// Becomes `uid` with group `gid`, keeping only the capabilities in the mask `caps` (numbers below 32).
void Become(uid_t uid, gid_t gid, uint32_t caps = 0) {
  ASSERT_OK(setgroups(0, nullptr));
  ASSERT_OK(prctl(PR_SET_KEEPCAPS, 1));
  ASSERT_OK(setresgid(gid, gid, gid));
  ASSERT_OK(setresuid(uid, uid, uid));
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {{caps, caps, 0}, {0, 0, 0}};
  ASSERT_OK(syscall(SYS_capset, &header, data));
}

struct AccessCase {
  const char* name;
  mode_t mode;  // of a file that belongs to kOwner:kGroup
  uid_t uid;
  gid_t gid;
  uint32_t caps;
  bool read;
  bool write;
};
class FileAccess : public testing::TestWithParam<AccessCase> {};
TEST_P(FileAccess, Open) {
  const AccessCase& c = GetParam();
  const TempDir dir;
  ASSERT_OK(chmod(dir.path().c_str(), 0755));
  const std::string path = dir.File("f", "x");
  ASSERT_OK(chown(path.c_str(), kOwner, kGroup));
  ASSERT_OK(chmod(path.c_str(), c.mode));
  EXPECT_TRUE(PassesInChild([&] {
    Become(c.uid, c.gid, c.caps);
    const ScopedFd r(open(path.c_str(), O_RDONLY));
    if (c.read) {
      EXPECT_TRUE(r.valid()) << ErrnoName(errno);
    } else {
      EXPECT_FALSE(r.valid());
      EXPECT_EQ(errno, EACCES);
    }
    const ScopedFd w(open(path.c_str(), O_WRONLY));
    if (c.write) {
      EXPECT_TRUE(w.valid()) << ErrnoName(errno);
    } else {
      EXPECT_FALSE(w.valid());
      EXPECT_EQ(errno, EACCES);
    }
  }));
}
INSTANTIATE_TEST_SUITE_P(, FileAccess,
                         testing::Values(AccessCase{"Owner0600", 0600, kOwner, 1, 0, true, true},
                                         AccessCase{"Owner0400", 0400, kOwner, 1, 0, true, false},
                                         AccessCase{"Owner0066ClassWins", 0066, kOwner, kGroup, 0, false, false},
                                         AccessCase{"Group0640", 0640, kOther, kGroup, 0, true, false},
                                         AccessCase{"Group0606ClassWins", 0606, kOther, kGroup, 0, false, false},
                                         AccessCase{"Group0660", 0660, kOther, kGroup, 0, true, true},
                                         AccessCase{"Other0604", 0604, kOther, 1, 0, true, false},
                                         AccessCase{"Other0660", 0660, kOther, 1, 0, false, false},
                                         AccessCase{"Other0002", 0002, kOther, 1, 0, false, true},
                                         AccessCase{"DacOverride", 0000, kOther, 1, 1u << CAP_DAC_OVERRIDE, true, true},
                                         AccessCase{"DacReadSearch", 0000, kOther, 1, 1u << CAP_DAC_READ_SEARCH, true,
                                                    false},
                                         AccessCase{"RootWithoutCapabilities", 0600, 0, 0, 0, false, false}),
                         [](const auto& info) { return info.param.name; });

class Permission : public testing::Test {
 protected:
  void SetUp() override { ASSERT_OK(chmod(dir_.path().c_str(), 0777)); }
  std::string At(std::string_view name) const { return dir_.Join(name); }
  TempDir dir_;
};

TEST_F(Permission, SupplementaryGroupCounts) {
  const std::string path = dir_.File("f", "x", 0640);
  ASSERT_OK(chown(path.c_str(), kOwner, kGroup));
  EXPECT_TRUE(PassesInChild([&] {
    const gid_t groups[] = {7, kGroup, 9};
    ASSERT_OK(setgroups(3, groups));
    ASSERT_OK(setresgid(1, 1, 1));
    ASSERT_OK(setresuid(kOther, kOther, kOther));
    EXPECT_OK(access(path.c_str(), R_OK));
    EXPECT_FAIL(access(path.c_str(), W_OK), EACCES);
  }));
}
TEST_F(Permission, FsuidDecidesFileAccess) {
  const std::string path = dir_.File("f", "x", 0600);
  ASSERT_OK(chown(path.c_str(), kOwner, kGroup));
  EXPECT_TRUE(PassesInChild([&] {
    setfsuid(kOther);
    EXPECT_FAIL(open(path.c_str(), O_RDONLY), EACCES);
    setfsuid(kOwner);
    const ScopedFd fd(open(path.c_str(), O_RDONLY));
    EXPECT_OK(fd.get());
  }));
}
TEST_F(Permission, SearchBitOnEveryDirectory) {
  dir_.Dir("a", 0711);
  dir_.Dir("a/b", 0700);
  dir_.File("a/b/f", "x", 0666);
  dir_.File("a/g", "x", 0666);
  EXPECT_TRUE(PassesAsUser(kOther, [&] {
    EXPECT_FAIL(open(At("a/b/f").c_str(), O_RDONLY), EACCES);
    EXPECT_OK(access(At("a/g").c_str(), R_OK));
    EXPECT_FAIL(open(At("a").c_str(), O_RDONLY | O_DIRECTORY), EACCES);  // search but no read
    EXPECT_FAIL(access(At("a/b/missing").c_str(), F_OK), EACCES);
  }));
}
TEST_F(Permission, ReadWithoutSearchListsButDoesNotOpen) {
  dir_.Dir("d", 0744);
  dir_.File("d/f", "x", 0666);
  EXPECT_TRUE(PassesAsUser(kOther, [&] {
    EXPECT_EQ(List(At("d")), std::vector<std::string>{"f"});
    EXPECT_FAIL(open(At("d/f").c_str(), O_RDONLY), EACCES);
  }));
}
TEST_F(Permission, OpenDirectoryFdBypassesParents) {
  dir_.Dir("a", 0700);
  dir_.Dir("a/b", 0755);
  dir_.File("a/b/f", "x", 0644);
  const ScopedFd b(open(At("a/b").c_str(), O_PATH));
  EXPECT_TRUE(PassesAsUser(kOther, [&] {
    const ScopedFd fd(openat(b.get(), "f", O_RDONLY));
    EXPECT_OK(fd.get());
    EXPECT_FAIL(openat(b.get(), "../b/f", O_RDONLY), EACCES);
  }));
}
TEST_F(Permission, CreateAndUnlinkNeedWriteOnDirectory) {
  dir_.Dir("d", 0755);
  dir_.File("d/f", "", 0666);
  EXPECT_TRUE(PassesAsUser(kOther, [&] {
    EXPECT_FAIL(open(At("d/new").c_str(), O_CREAT | O_WRONLY, 0600), EACCES);
    EXPECT_FAIL(unlink(At("d/f").c_str()), EACCES);
    EXPECT_FAIL(mkdir(At("d/sub").c_str(), 0700), EACCES);
    EXPECT_FAIL(symlink("x", At("d/l").c_str()), EACCES);
    const ScopedFd existing(open(At("d/f").c_str(), O_CREAT | O_WRONLY, 0600));
    EXPECT_OK(existing.get());
  }));
}
TEST_F(Permission, StickyDirectory) {
  dir_.Dir("t", 01777);
  dir_.File("t/root", "", 0666);
  EXPECT_TRUE(PassesAsUser(kOwner, [&] {
    const ScopedFd fd(open(At("t/own").c_str(), O_CREAT | O_WRONLY, 0666));
    ASSERT_OK(fd.get());
    EXPECT_FAIL(unlink(At("t/root").c_str()), EPERM);
  }));
  EXPECT_TRUE(PassesAsUser(kOther, [&] { EXPECT_FAIL(unlink(At("t/own").c_str()), EPERM); }));
  EXPECT_TRUE(PassesAsUser(kOwner, [&] { EXPECT_OK(unlink(At("t/own").c_str())); }));
}
TEST_F(Permission, StickyDirectoryOwnerMayDelete) {
  dir_.Dir("t", 01777);
  ASSERT_OK(chown(At("t").c_str(), kOwner, kGroup));
  dir_.File("t/root", "");
  EXPECT_TRUE(PassesAsUser(kOwner, [&] { EXPECT_OK(unlink(At("t/root").c_str())); }));
}
TEST_F(Permission, NewFileBelongsToFsIds) {
  EXPECT_TRUE(PassesAsUser(kOwner, [&] {
    const ScopedFd fd(open(At("new").c_str(), O_CREAT | O_WRONLY, 0666));
    ASSERT_OK(fd.get());
    struct stat st;
    ASSERT_OK(fstat(fd.get(), &st));
    EXPECT_EQ(st.st_uid, kOwner);
    EXPECT_EQ(st.st_gid, kOwner);
  }));
}
TEST_F(Permission, SetgidOfAForeignGroupIsDroppedBeforeTheMask) {
  const std::string shared = dir_.Dir("shared");
  ASSERT_OK(chmod(dir_.path().c_str(), 0755));
  ASSERT_OK(chown(shared.c_str(), kOwner, kGroup));
  ASSERT_OK(chmod(shared.c_str(), 02777));
  EXPECT_TRUE(PassesInChild([&] {
    Become(kOther, kOther);
    struct stat st;
    for (const mode_t mask : {mode_t{0}, mode_t{S_IXGRP}}) {
      umask(mask);
      const std::string path = shared + "/" + std::to_string(mask);
      const ScopedFd fd(open(path.c_str(), O_CREAT | O_EXCL | O_WRONLY, 02775));
      ASSERT_OK(fstat(fd.get(), &st));
      EXPECT_EQ(st.st_gid, kGroup);
      EXPECT_EQ(st.st_mode & S_ISGID, 0u) << mask;
    }
    // Without the group's execute bit the bit means nothing for rights, and stays.
    const ScopedFd fd(open((shared + "/plain").c_str(), O_CREAT | O_EXCL | O_WRONLY, 02664));
    ASSERT_OK(fstat(fd.get(), &st));
    EXPECT_NE(st.st_mode & S_ISGID, 0u);
  }));
}
TEST_F(Permission, ExecuteNeedsABitEvenForRoot) {
  const std::string path = dir_.File("f", "#!/bin/true\n", 0644);
  EXPECT_TRUE(PassesInChild([&] {
    char* argv[] = {const_cast<char*>(path.c_str()), nullptr};
    EXPECT_FAIL(execv(path.c_str(), argv), EACCES);
  }));
}
TEST_F(Permission, ProcFdReopenChecksAgain) {
  const std::string path = dir_.File("f", "x", 0644);
  EXPECT_TRUE(PassesAsUser(kOther, [&] {
    const ScopedFd r(open(path.c_str(), O_RDONLY));
    ASSERT_OK(r.get());
    EXPECT_FAIL(open(("/proc/self/fd/" + std::to_string(r.get())).c_str(), O_RDWR), EACCES);
  }));
}
TEST_F(Permission, OpenDescriptorKeepsItsRights) {
  const std::string path = dir_.File("f", "x", 0644);
  const ScopedFd fd(open(path.c_str(), O_RDWR));
  ASSERT_OK(chmod(path.c_str(), 0));
  EXPECT_TRUE(PassesAsUser(kOther, [&] { EXPECT_EQ(pwrite(fd.get(), "y", 1, 0), 1); }));
}
TEST_F(Permission, FownerMayChmodForeignFile) {
  const std::string path = dir_.File("f");
  EXPECT_TRUE(PassesInChild([&] {
    Become(kOther, 1, 1u << CAP_FOWNER);
    EXPECT_OK(chmod(path.c_str(), 0604));
    EXPECT_FAIL(chown(path.c_str(), kOther, -1), EPERM);
  }));
}
TEST_F(Permission, ChownCapabilityMayChown) {
  const std::string path = dir_.File("f");
  EXPECT_TRUE(PassesInChild([&] {
    Become(kOther, 1, 1u << CAP_CHOWN);
    EXPECT_OK(chown(path.c_str(), 5, 6));
    EXPECT_FAIL(chmod(path.c_str(), 0600), EPERM);
  }));
}

}  // namespace
}  // namespace moat::guest
