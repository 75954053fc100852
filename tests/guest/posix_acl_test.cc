// POSIX access control lists: the extended attributes system.posix_acl_access and system.posix_acl_default, acl(5).
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>

#include "tests/guest/support/child.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

constexpr const char* kAccess = "system.posix_acl_access";
constexpr const char* kDefault = "system.posix_acl_default";
constexpr uint32_t kNobody = ~0u;  // ACL_UNDEFINED_ID

struct Entry {
  uint16_t tag, perm;
  uint32_t id = kNobody;
};
constexpr uint16_t kUserObj = 1, kUser = 2, kGroupObj = 4, kGroup = 8, kMask = 16, kOther = 32;

std::string Pack(const std::vector<Entry>& entries, uint32_t version = 2) {
  std::string s(reinterpret_cast<const char*>(&version), 4);
  for (const Entry& e : entries) s.append(reinterpret_cast<const char*>(&e), 8);
  return s;
}
int Set(const std::string& path, const std::vector<Entry>& entries, const char* name = kAccess) {
  const std::string value = Pack(entries);
  return setxattr(path.c_str(), name, value.data(), value.size(), 0);
}
// "u::rwx u:5:r-- g::r-x m::rwx o::---", or the error's name.
std::string Get(const std::string& path, const char* name = kAccess) {
  char value[512];
  const ssize_t n = getxattr(path.c_str(), name, value, sizeof value);
  if (n < 0) return ErrnoName(errno);
  std::string text;
  for (ssize_t at = 4; at < n; at += 8) {
    Entry e;
    memcpy(&e, value + at, 8);
    const char* who = e.tag == kUserObj || e.tag == kUser ? "u:"
                      : e.tag == kMask                    ? "m:"
                      : e.tag == kOther                   ? "o:"
                                                          : "g:";
    text += (text.empty() ? "" : " ") + std::string(who) + (e.id == kNobody ? "" : std::to_string(e.id)) + ":";
    for (int bit = 2; bit >= 0; --bit) text += (e.perm >> bit & 1) != 0 ? "xwr"[bit] : '-';
  }
  return text;
}
mode_t ModeOf(const std::string& path) {
  struct stat st = {};
  EXPECT_OK(lstat(path.c_str(), &st)) << path;
  return st.st_mode & 07777;
}
// As user and group `id`, with `group` beside.
testing::AssertionResult AsMember(uid_t id, gid_t group, const std::function<void()>& body) {
  return PassesInChild([&] {
    ASSERT_OK(setgroups(1, &group));
    ASSERT_OK(setresgid(id, id, id));
    ASSERT_OK(setresuid(id, id, id));
    body();
  });
}

class PosixAcl : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_OK(chmod(dir_.path().c_str(), 0755));
    file_ = dir_.File("f", "x", 0640);
  }
  std::string At(const std::string& name) const { return dir_.Join(name); }
  TempDir dir_;
  std::string file_;
};

TEST_F(PosixAcl, IsStoredAndShownInTheMode) {
  EXPECT_EQ(Get(file_), "ENODATA");
  ASSERT_OK(Set(file_, {{kUserObj, 6}, {kUser, 4, 1000}, {kGroupObj, 0}, {kGroup, 6, 50}, {kMask, 5}, {kOther, 1}}));
  EXPECT_EQ(Get(file_), "u::rw- u:1000:r-- g::--- g:50:rw- m::r-x o::--x");
  EXPECT_EQ(ModeOf(file_), 0651u) << "the group bits are the mask";
  char names[256];
  const ssize_t n = listxattr(file_.c_str(), names, sizeof names);
  ASSERT_OK(n);
  EXPECT_NE(std::string(names, n).find(kAccess), std::string::npos);
  EXPECT_EQ(getxattr(file_.c_str(), kAccess, nullptr, 0), 4 + 6 * 8);
  char small[8];
  EXPECT_FAIL(getxattr(file_.c_str(), kAccess, small, sizeof small), ERANGE);
}
TEST_F(PosixAcl, WhatTheModeSaysIsNotStored) {
  ASSERT_OK(Set(file_, {{kUserObj, 7}, {kGroupObj, 5}, {kOther, 4}}));
  EXPECT_EQ(ModeOf(file_), 0754u);
  EXPECT_EQ(Get(file_), "ENODATA");
  // A mask alone is more than the mode can say.
  ASSERT_OK(Set(file_, {{kUserObj, 7}, {kGroupObj, 5}, {kMask, 1}, {kOther, 4}}));
  EXPECT_EQ(ModeOf(file_), 0714u);
  EXPECT_EQ(Get(file_), "u::rwx g::r-x m::--x o::r--");
}
TEST_F(PosixAcl, Removal) {
  ASSERT_OK(Set(file_, {{kUserObj, 6}, {kUser, 4, 1000}, {kGroupObj, 0}, {kMask, 4}, {kOther, 0}}));
  EXPECT_EQ(ModeOf(file_), 0640u);
  ASSERT_OK(removexattr(file_.c_str(), kAccess));
  EXPECT_EQ(Get(file_), "ENODATA");
  EXPECT_EQ(ModeOf(file_), 0640u);
  EXPECT_OK(removexattr(file_.c_str(), kAccess)) << "nothing there";
  EXPECT_OK(removexattr(file_.c_str(), kDefault)) << "there cannot be one";
  ASSERT_OK(Set(file_, {{kUserObj, 6}, {kUser, 4, 1000}, {kGroupObj, 0}, {kMask, 4}, {kOther, 0}}));
  ASSERT_OK(Set(file_, {})) << "an empty list";
  EXPECT_EQ(Get(file_), "ENODATA");
}
TEST_F(PosixAcl, Malformed) {
  auto fails = [&](const std::string& value, int error, const char* name = kAccess) {
    EXPECT_FAIL(setxattr(file_.c_str(), name, value.data(), value.size(), 0), error);
  };
  const std::vector<Entry> minimal = {{kUserObj, 6}, {kGroupObj, 4}, {kOther, 0}};
  fails(Pack(minimal, 1), EOPNOTSUPP);
  fails("\2\0", EINVAL);
  fails(Pack(minimal).substr(0, 20), EINVAL);
  fails(Pack({{kUserObj, 6}, {kGroupObj, 4}}), EINVAL);
  fails(Pack({{kUserObj, 6}, {kOther, 4}}), EINVAL);
  fails(Pack({{kGroupObj, 6}, {kUserObj, 4}, {kOther, 4}}), EINVAL);
  fails(Pack({{kUserObj, 6}, {kUserObj, 6}, {kGroupObj, 4}, {kOther, 4}}), EINVAL);
  fails(Pack({{kUserObj, 6}, {kUser, 6, 5}, {kGroupObj, 4}, {kOther, 4}}), EINVAL);  // no mask
  fails(Pack({{kUserObj, 6}, {kGroupObj, 4}, {kUser, 6, 5}, {kMask, 7}, {kOther, 4}}), EINVAL);
  fails(Pack({{kUserObj, 6}, {kUser, 6, kNobody}, {kGroupObj, 4}, {kMask, 7}, {kOther, 4}}), EINVAL);
  fails(Pack({{kUserObj, 8}, {kGroupObj, 4}, {kOther, 4}}), EINVAL);
  fails(Pack({{kUserObj, 6}, {0x40, 6}, {kGroupObj, 4}, {kOther, 4}}), EINVAL);
  fails(Pack(minimal), EACCES, kDefault);
  fails(Pack(minimal), EOPNOTSUPP, "system.posix_acl_other");
  EXPECT_EQ(ModeOf(file_), 0640u);
}
TEST_F(PosixAcl, OnlyTheOwnerSetsIt) {
  const std::vector<Entry> minimal = {{kUserObj, 6}, {kGroupObj, 4}, {kOther, 6}};
  ASSERT_OK(chmod(file_.c_str(), 0666));
  EXPECT_TRUE(PassesAsUser(1000, [&] {
    EXPECT_FAIL(Set(file_, minimal), EPERM);
    EXPECT_FAIL(removexattr(file_.c_str(), kAccess), EPERM);
    EXPECT_EQ(Get(file_), "ENODATA");
  }));
  ASSERT_OK(chown(file_.c_str(), 1000, 1000));
  EXPECT_TRUE(PassesAsUser(1000, [&] { EXPECT_OK(Set(file_, minimal)); }));
  ASSERT_OK(symlink("f", At("link").c_str()));
  const std::string value = Pack(minimal);
  EXPECT_FAIL(lsetxattr(At("link").c_str(), kAccess, value.data(), value.size(), 0), EOPNOTSUPP);
  EXPECT_FAIL(lgetxattr(At("link").c_str(), kAccess, nullptr, 0), EOPNOTSUPP);
}
TEST_F(PosixAcl, NamedUserIsMasked) {
  ASSERT_OK(Set(file_, {{kUserObj, 0}, {kUser, 7, 1000}, {kUser, 2, 1001}, {kGroupObj, 0}, {kMask, 4}, {kOther, 7}}));
  EXPECT_TRUE(PassesAsUser(1000, [&] {
    EXPECT_OK(ScopedFd(open(file_.c_str(), O_RDONLY)).get());
    EXPECT_FAIL(open(file_.c_str(), O_WRONLY), EACCES);
    EXPECT_OK(access(file_.c_str(), R_OK));
    EXPECT_FAIL(access(file_.c_str(), W_OK), EACCES);
  }));
  EXPECT_TRUE(PassesAsUser(1001, [&] {
    EXPECT_FAIL(open(file_.c_str(), O_RDONLY), EACCES) << "the entry is the user's, and 'other' nothing to him";
    EXPECT_FAIL(open(file_.c_str(), O_WRONLY), EACCES);
  }));
  EXPECT_TRUE(PassesAsUser(1002, [&] { EXPECT_OK(ScopedFd(open(file_.c_str(), O_RDWR)).get()); }));
}
TEST_F(PosixAcl, OneGroupThatGrantsIsEnough) {
  ASSERT_OK(chown(file_.c_str(), 0, 50));
  ASSERT_OK(Set(file_, {{kUserObj, 6}, {kGroupObj, 4}, {kGroup, 6, 60}, {kGroup, 0, 70}, {kMask, 7}, {kOther, 7}}));
  EXPECT_TRUE(AsMember(1000, 50, [&] {
    EXPECT_OK(access(file_.c_str(), R_OK));
    EXPECT_FAIL(access(file_.c_str(), W_OK), EACCES);
  }));
  EXPECT_TRUE(AsMember(1000, 60, [&] { EXPECT_OK(access(file_.c_str(), R_OK | W_OK)); }));
  EXPECT_TRUE(AsMember(1000, 70, [&] { EXPECT_FAIL(access(file_.c_str(), R_OK), EACCES); }));
  EXPECT_TRUE(AsMember(1000, 80, [&] { EXPECT_OK(access(file_.c_str(), R_OK | W_OK | X_OK)); }));
}
TEST_F(PosixAcl, OwnerAndRootAreApart) {
  ASSERT_OK(chown(file_.c_str(), 1000, 1000));
  ASSERT_OK(Set(file_, {{kUserObj, 4}, {kUser, 7, 1000}, {kGroupObj, 0}, {kMask, 7}, {kOther, 0}}));
  EXPECT_TRUE(PassesAsUser(1000, [&] { EXPECT_FAIL(access(file_.c_str(), W_OK), EACCES); }));
  EXPECT_OK(ScopedFd(open(file_.c_str(), O_RDWR)).get()) << "CAP_DAC_OVERRIDE";
}
TEST_F(PosixAcl, DirectoriesToo) {
  const std::string d = dir_.Dir("d", 0700);
  dir_.File("d/inner", "y", 0644);
  ASSERT_OK(Set(d, {{kUserObj, 7}, {kUser, 1, 1000}, {kGroupObj, 0}, {kMask, 7}, {kOther, 0}}));
  EXPECT_TRUE(PassesAsUser(1000, [&] {
    EXPECT_EQ(ReadFile(d + "/inner"), "y");
    EXPECT_FAIL(open(d.c_str(), O_RDONLY | O_DIRECTORY), EACCES);
    EXPECT_FAIL(mkdir((d + "/new").c_str(), 0700), EACCES);
  }));
  ASSERT_OK(Set(d, {{kUserObj, 7}, {kUser, 7, 1000}, {kGroupObj, 0}, {kMask, 7}, {kOther, 0}}));
  EXPECT_TRUE(PassesAsUser(1000, [&] { EXPECT_OK(unlink((d + "/inner").c_str())); }));
}
TEST_F(PosixAcl, ChmodChangesTheMask) {
  ASSERT_OK(Set(file_, {{kUserObj, 6}, {kUser, 6, 1000}, {kGroupObj, 4}, {kMask, 6}, {kOther, 0}}));
  ASSERT_OK(chmod(file_.c_str(), 0754));
  EXPECT_EQ(Get(file_), "u::rwx u:1000:rw- g::r-- m::r-x o::r--");
  EXPECT_EQ(ModeOf(file_), 0754u);
  const ScopedFd fd(open(file_.c_str(), O_RDONLY));
  ASSERT_OK(fchmod(fd.get(), 0400));
  EXPECT_EQ(Get(file_), "u::r-- u:1000:rw- g::r-- m::--- o::---");
  EXPECT_TRUE(PassesAsUser(1000, [&] { EXPECT_FAIL(access(file_.c_str(), R_OK), EACCES); }));
}
TEST_F(PosixAcl, SetGroupIdOfAForeignGroupGoes) {
  ASSERT_OK(chown(file_.c_str(), 1000, 50));
  ASSERT_OK(chmod(file_.c_str(), 02755));
  EXPECT_TRUE(PassesAsUser(1000, [&] { EXPECT_OK(Set(file_, {{kUserObj, 7}, {kGroupObj, 5}, {kOther, 5}})); }));
  EXPECT_EQ(ModeOf(file_), 0755u);
}
TEST_F(PosixAcl, DefaultIsInherited) {
  const std::string d = dir_.Dir("d", 0700);
  ASSERT_OK(Set(d, {{kUserObj, 7}, {kUser, 7, 1000}, {kGroupObj, 5}, {kMask, 7}, {kOther, 5}}, kDefault));
  EXPECT_EQ(Get(d), "ENODATA");
  EXPECT_EQ(ModeOf(d), 0700u);
  const mode_t umask_before = umask(077);
  { const ScopedFd f(open((d + "/f").c_str(), O_CREAT | O_WRONLY, 0664)); }
  EXPECT_EQ(ModeOf(d + "/f"), 0664u) << "no umask";
  EXPECT_EQ(Get(d + "/f"), "u::rw- u:1000:rwx g::r-x m::rw- o::r--");
  EXPECT_EQ(Get(d + "/f", kDefault), "ENODATA");
  ASSERT_OK(mkdir((d + "/sub").c_str(), 0777));
  EXPECT_EQ(ModeOf(d + "/sub"), 0775u);
  EXPECT_EQ(Get(d + "/sub"), "u::rwx u:1000:rwx g::r-x m::rwx o::r-x");
  EXPECT_EQ(Get(d + "/sub", kDefault), "u::rwx u:1000:rwx g::r-x m::rwx o::r-x");
  ASSERT_OK(mkfifo((d + "/sub/p").c_str(), 0600));
  EXPECT_EQ(Get(d + "/sub/p"), "u::rw- u:1000:rwx g::r-x m::--- o::---");
  ASSERT_OK(symlink("x", (d + "/l").c_str()));
  EXPECT_EQ(ModeOf(d + "/l"), 0777u);
  const ScopedFd t(open(d.c_str(), O_TMPFILE | O_RDWR, 0666));
  ASSERT_OK(t.get());
  EXPECT_EQ(fgetxattr(t.get(), kAccess, nullptr, 0), 4 + 5 * 8);
  umask(umask_before);
}
TEST_F(PosixAcl, PlainDefaultIsAUmask) {
  const std::string d = dir_.Dir("d", 0700);
  ASSERT_OK(Set(d, {{kUserObj, 7}, {kGroupObj, 5}, {kOther, 0}}, kDefault));
  EXPECT_EQ(Get(d, kDefault), "u::rwx g::r-x o::---") << "kept although a mode could say it";
  const mode_t umask_before = umask(0777);
  { const ScopedFd f(open((d + "/f").c_str(), O_CREAT | O_WRONLY, 0666)); }
  EXPECT_EQ(ModeOf(d + "/f"), 0640u);
  EXPECT_EQ(Get(d + "/f"), "ENODATA");
  ASSERT_OK(mkdir((d + "/sub").c_str(), 0777));
  EXPECT_EQ(ModeOf(d + "/sub"), 0750u);
  ASSERT_OK(removexattr(d.c_str(), kDefault));
  EXPECT_EQ(Get(d, kDefault), "ENODATA");
  ASSERT_OK(mkdir((d + "/later").c_str(), 0777));
  EXPECT_EQ(ModeOf(d + "/later"), 0u) << "the umask again";
  umask(umask_before);
}
TEST_F(PosixAcl, IdsAreTheNamespaces) {
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(unshare(CLONE_NEWUSER | CLONE_NEWNS));
    for (const auto& [file, text] : std::initializer_list<std::pair<const char*, const char*>>{
             {"/proc/self/setgroups", "deny"}, {"/proc/self/uid_map", "7 0 1"}, {"/proc/self/gid_map", "8 0 1"}}) {
      const ScopedFd fd(open(file, O_WRONLY));
      ASSERT_OK(write(fd.get(), text, strlen(text))) << file;
    }
    EXPECT_OK(Set(file_, {{kUserObj, 6}, {kUser, 6, 7}, {kGroupObj, 4}, {kGroup, 4, 8}, {kMask, 6}, {kOther, 0}}));
    EXPECT_EQ(Get(file_), "u::rw- u:7:rw- g::r-- g:8:r-- m::rw- o::---");
    EXPECT_FAIL(Set(file_, {{kUserObj, 6}, {kUser, 6, 1000}, {kGroupObj, 4}, {kMask, 6}, {kOther, 0}}), EINVAL);
  }));
  EXPECT_EQ(Get(file_), "u::rw- u:0:rw- g::r-- g:0:r-- m::rw- o::---");
}
TEST_F(PosixAcl, ThroughAnOverlay) {
  EXPECT_TRUE(PassesInChild([&] {
    ASSERT_OK(unshare(CLONE_NEWNS));
    ASSERT_OK(mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr));
    ASSERT_OK(mount("t", dir_.path().c_str(), "tmpfs", 0, "mode=755"));
    for (const char* d : {"l", "u", "w", "m", "l/d"}) dir_.Dir(d);
    dir_.File("l/f", "x", 0600);
    ASSERT_OK(Set(At("l/f"), {{kUserObj, 6}, {kUser, 4, 1000}, {kGroupObj, 0}, {kMask, 4}, {kOther, 0}}));
    ASSERT_OK(Set(At("l/d"), {{kUserObj, 7}, {kUser, 7, 1000}, {kGroupObj, 0}, {kMask, 7}, {kOther, 0}}, kDefault));
    const std::string options = "lowerdir=" + At("l") + ",upperdir=" + At("u") + ",workdir=" + At("w");
    ASSERT_OK(mount("o", At("m").c_str(), "overlay", 0, options.c_str()));
    EXPECT_TRUE(PassesAsUser(1000, [&] {
      EXPECT_OK(access(At("m/f").c_str(), R_OK));
      EXPECT_FAIL(access(At("m/f").c_str(), W_OK), EACCES);
    }));
    ASSERT_OK(chmod(At("m/f").c_str(), 0660));
    EXPECT_EQ(Get(At("u/f")), "u::rw- u:1000:r-- g::--- m::rw- o::---");
    EXPECT_EQ(Get(At("m/f")), "u::rw- u:1000:r-- g::--- m::rw- o::---");
    EXPECT_EQ(Get(At("l/f")), "u::rw- u:1000:r-- g::--- m::r-- o::---");
    EXPECT_TRUE(PassesAsUser(1000, [&] { EXPECT_OK(access(At("m/f").c_str(), R_OK)); }));
    umask(077);
    EXPECT_OK(ScopedFd(open(At("m/d/new").c_str(), O_CREAT | O_WRONLY, 0666)).get());
    EXPECT_EQ(Get(At("u/d/new")), "u::rw- u:1000:rwx g::--- m::rw- o::---");
    ASSERT_OK(unlink(At("m/d/new").c_str()));
    // In the place of a whiteout, which is made elsewhere and moved there.
    dir_.File("l/d/low");
    ASSERT_OK(unlink(At("m/d/low").c_str()));
    ASSERT_OK(mkdir(At("m/d/low").c_str(), 0770));
    EXPECT_EQ(Get(At("u/d/low")), "u::rwx u:1000:rwx g::--- m::rwx o::---");
    EXPECT_EQ(Get(At("u/d/low"), kDefault), "u::rwx u:1000:rwx g::--- m::rwx o::---");
    ASSERT_OK(Set(At("m/d"), {{kUserObj, 7}, {kUser, 5, 1000}, {kGroupObj, 0}, {kMask, 7}, {kOther, 0}}));
    EXPECT_EQ(Get(At("u/d")), "u::rwx u:1000:r-x g::--- m::rwx o::---");
  }));
}

}  // namespace
}  // namespace moat::guest
