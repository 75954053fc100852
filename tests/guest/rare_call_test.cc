// Calls that no other topic has: newer ones, older forms, and small families.
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/timex.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <thread>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/temp_dir.h"

// Numbers that the headers of Debian 12 do not have yet.
#ifndef SYS_fchmodat2
#define SYS_fchmodat2 452
#endif
#ifndef SYS_futex_wake
#define SYS_futex_wake 454
#define SYS_futex_wait 455
#define SYS_futex_requeue 456
#endif

namespace moat::guest {
namespace {

constexpr int kFutex32 = 2;  // FUTEX2_SIZE_U32

TEST(RareCall, Fchmodat2) {
  const TempDir dir;
  const std::string path = dir.File("f");
  ASSERT_OK(symlink("f", dir.Join("l").c_str()));
  ASSERT_OK(syscall(SYS_fchmodat2, AT_FDCWD, path.c_str(), 0604, 0));
  struct stat st;
  ASSERT_OK(stat(path.c_str(), &st));
  EXPECT_EQ(st.st_mode & 07777, 0604u);
  EXPECT_FAIL(syscall(SYS_fchmodat2, AT_FDCWD, dir.Join("l").c_str(), 0600, AT_SYMLINK_NOFOLLOW), EOPNOTSUPP);
  EXPECT_FAIL(syscall(SYS_fchmodat2, AT_FDCWD, path.c_str(), 0600, 1), EINVAL);
  const ScopedFd fd(open(path.c_str(), O_PATH));
  ASSERT_OK(syscall(SYS_fchmodat2, fd.get(), "", 0640, AT_EMPTY_PATH));
  ASSERT_OK(stat(path.c_str(), &st));
  EXPECT_EQ(st.st_mode & 07777, 0640u);
}
TEST(RareCall, FutexWaitAndWake) {
  alignas(4) static uint32_t word;
  word = 0;
  EXPECT_FAIL(syscall(SYS_futex_wait, &word, 1ul, ~0u, kFutex32 | FUTEX_PRIVATE_FLAG, nullptr, CLOCK_MONOTONIC),
              EAGAIN);
  EXPECT_EQ(syscall(SYS_futex_wake, &word, ~0u, 1, kFutex32 | FUTEX_PRIVATE_FLAG), 0);
  std::thread waiter([] {
    EXPECT_OK(syscall(SYS_futex_wait, &word, 0ul, ~0u, kFutex32 | FUTEX_PRIVATE_FLAG, nullptr, CLOCK_MONOTONIC));
  });
  EXPECT_TRUE(Eventually([] { return syscall(SYS_futex_wake, &word, ~0u, 1, kFutex32 | FUTEX_PRIVATE_FLAG) == 1; }));
  waiter.join();
  EXPECT_FAIL(syscall(SYS_futex_wake, &word, ~0u, 1, 0x1000), EINVAL);
}
TEST(RareCall, FutexRequeue) {
  alignas(4) static uint32_t from, to;
  from = to = 0;
  std::thread waiter([] {
    EXPECT_OK(syscall(SYS_futex_wait, &from, 0ul, ~0u, kFutex32 | FUTEX_PRIVATE_FLAG, nullptr, CLOCK_MONOTONIC));
  });
  futex_waitv pair[2] = {{0, reinterpret_cast<uintptr_t>(&from), kFutex32 | FUTEX_PRIVATE_FLAG, 0},
                         {0, reinterpret_cast<uintptr_t>(&to), kFutex32 | FUTEX_PRIVATE_FLAG, 0}};
  EXPECT_TRUE(Eventually([&] { return syscall(SYS_futex_requeue, pair, 0, 0, 1) == 1; }));
  EXPECT_EQ(syscall(SYS_futex_wake, &from, ~0u, 1, kFutex32 | FUTEX_PRIVATE_FLAG), 0);
  EXPECT_EQ(syscall(SYS_futex_wake, &to, ~0u, 1, kFutex32 | FUTEX_PRIVATE_FLAG), 1);
  waiter.join();
}
TEST(RareCall, ProcessMrelease) {
  const PausedChild child;
  const ScopedFd fd(PidfdOpen(child.pid()));
  EXPECT_FAIL(syscall(SYS_process_mrelease, fd.get(), 0), EINVAL);  // it is not dying
  EXPECT_FAIL(syscall(SYS_process_mrelease, fd.get(), 1), EINVAL);
  EXPECT_FAIL(syscall(SYS_process_mrelease, -1, 0), EBADF);
}
TEST(RareCall, ProtectionKeysOrNone) {
  const int key = static_cast<int>(syscall(SYS_pkey_alloc, 0, 0));
  const Mapping m(kPage);
  if (key == -1) {
    EXPECT_TRUE(errno == ENOSPC || errno == EINVAL || errno == ENOSYS) << ErrnoName(errno);  // no such processor
  } else {
    EXPECT_OK(syscall(SYS_pkey_mprotect, m.data(), kPage, PROT_READ, key));
    EXPECT_OK(syscall(SYS_pkey_free, key));
  }
  EXPECT_OK(syscall(SYS_pkey_mprotect, m.data(), kPage, PROT_READ, -1));
  EXPECT_FAIL(syscall(SYS_pkey_alloc, 1, 0), EINVAL);
  EXPECT_FAIL(syscall(SYS_pkey_free, 15), EINVAL);
}
TEST(RareCall, IoPriority) {
  EXPECT_TRUE(PassesInChild([] {
    constexpr int kProcess = 1, kBestEffort4 = 2 << 13 | 4;
    ASSERT_OK(syscall(SYS_ioprio_set, kProcess, 0, kBestEffort4));
    EXPECT_EQ(syscall(SYS_ioprio_get, kProcess, 0), kBestEffort4);
    EXPECT_FAIL(syscall(SYS_ioprio_set, kProcess, 0, 7 << 13), EINVAL);
    EXPECT_FAIL(syscall(SYS_ioprio_get, 9, 0), EINVAL);
    EXPECT_FAIL(syscall(SYS_ioprio_get, kProcess, 999'999), ESRCH);
  }));
}
TEST(RareCall, SchedulingForms) {
  EXPECT_TRUE(PassesInChild([] {
    const sched_param zero = {};
    EXPECT_OK(sched_setparam(0, &zero));
    EXPECT_FAIL(sched_setparam(-1, &zero), EINVAL);
    timespec interval = {-1, -1};
    ASSERT_OK(sched_rr_get_interval(0, &interval));
    EXPECT_GE(interval.tv_nsec, 0);
    struct {
      uint32_t size = 48, policy = SCHED_BATCH;
      uint64_t flags = 0;
      int32_t nice = 3;
      uint32_t priority = 0;
      uint64_t runtime = 0, deadline = 0, period = 0;
    } attr;
    ASSERT_OK(syscall(SYS_sched_setattr, 0, &attr, 0));
    EXPECT_EQ(sched_getscheduler(0), SCHED_BATCH);
    EXPECT_FAIL(syscall(SYS_sched_setattr, 0, &attr, 1), EINVAL);
    attr.size = 1000;
    EXPECT_FAIL(syscall(SYS_sched_setattr, 0, &attr, 0), E2BIG);
  }));
}
TEST(RareCall, ClockAdjtimeReads) {
  timex t = {};
  EXPECT_GE(clock_adjtime(CLOCK_REALTIME, &t), 0);
  EXPECT_GT(t.time.tv_sec, 1'000'000'000);
  EXPECT_FAIL(clock_adjtime(CLOCK_MONOTONIC, &t), EOPNOTSUPP);
}
TEST(RareCall, OlderForms) {
  const TempDir dir;
  const std::string path = dir.File("f", "0123");
  const ScopedFd fd(open(path.c_str(), O_RDWR)), at = dir.Open();
  char b[4] = {};
  EXPECT_EQ(syscall(SYS_pread64, fd.get(), b, size_t{2}, off_t{1}), 2);
  EXPECT_EQ(b[0], '1');
  EXPECT_EQ(syscall(SYS_pwrite64, fd.get(), "XY", size_t{2}, off_t{0}), 2);
  EXPECT_EQ(ReadFile(path), "XY23");
  EXPECT_OK(fchown(fd.get(), 5, 6));
  struct stat st;
  ASSERT_OK(syscall(SYS_newfstatat, at.get(), "f", &st, 0));
  EXPECT_EQ(st.st_gid, 6u);
  EXPECT_OK(syscall(SYS_faccessat, at.get(), "f", R_OK));
  EXPECT_OK(mknodat(at.get(), "fifo", S_IFIFO | 0600, 0));
  EXPECT_EQ(syscall(SYS_fadvise64, fd.get(), off_t{0}, off_t{0}, POSIX_FADV_NORMAL), 0);
  EXPECT_FAIL(syscall(SYS_fadvise64, fd.get(), off_t{0}, off_t{0}, 77), EINVAL);
  const ScopedFd event(static_cast<int>(syscall(SYS_eventfd2, 3, O_NONBLOCK)));
  EXPECT_OK(event.get());
  const ScopedFd notify(static_cast<int>(syscall(SYS_inotify_init)));
  EXPECT_OK(notify.get());
  timespec zero = {};
  EXPECT_EQ(syscall(SYS_pselect6, 0, nullptr, nullptr, nullptr, &zero, nullptr), 0);
  uint64_t pending = ~0ull;
  ASSERT_OK(syscall(SYS_rt_sigpending, &pending, size_t{8}));
  EXPECT_EQ(pending, 0u);
  EXPECT_FAIL(syscall(SYS_rt_sigsuspend, &pending, size_t{4}), EINVAL);
  EXPECT_FAIL(syscall(SYS_restart_syscall), EINTR);  // nothing is there to restart
  sync();
}
TEST(RareCall, SysfsNamesFileSystemTypes) {
  const long count = syscall(SYS_sysfs, 3);
  ASSERT_GT(count, 0);
  const long tmpfs = syscall(SYS_sysfs, 1, "tmpfs");
  ASSERT_OK(tmpfs);
  EXPECT_LT(tmpfs, count);
  char name[256];
  ASSERT_OK(syscall(SYS_sysfs, 2, tmpfs, name));
  EXPECT_STREQ(name, "tmpfs");
  EXPECT_FAIL(syscall(SYS_sysfs, 1, "no-such-fs"), EINVAL);
  EXPECT_FAIL(syscall(SYS_sysfs, 2, count, name), EINVAL);
  EXPECT_FAIL(syscall(SYS_sysfs, 2, tmpfs, BadPointer()), EFAULT);
  EXPECT_FAIL(syscall(SYS_sysfs, 9), EINVAL);
}
TEST(RareCall, Ustat) {
  struct stat root;
  ASSERT_OK(stat("/proc", &root));
  struct {
    int32_t free_blocks;
    uint64_t free_inodes;
    char names[12];
  } out = {-1, 1, {}};
  ASSERT_OK(syscall(SYS_ustat, static_cast<unsigned>(root.st_dev), &out));
  EXPECT_EQ(out.free_blocks, 0);
  EXPECT_FAIL(syscall(SYS_ustat, static_cast<unsigned>(root.st_dev), BadPointer()), EFAULT);
  EXPECT_FAIL(syscall(SYS_ustat, ~0u, &out), EINVAL);
}
TEST(RareCall, SymlinkXattrForms) {
  const TempDir dir;
  ASSERT_OK(symlink("nowhere", dir.Join("l").c_str()));
  const std::string link = dir.Join("l");
  ASSERT_OK(lsetxattr(link.c_str(), "trusted.t", "v", 1, 0));
  char names[256];
  const ssize_t n = llistxattr(link.c_str(), names, sizeof names);
  ASSERT_OK(n);
  EXPECT_NE(std::string(names, n).find("trusted.t"), std::string::npos);
  EXPECT_OK(lremovexattr(link.c_str(), "trusted.t"));
  EXPECT_FAIL(lremovexattr(link.c_str(), "trusted.t"), ENODATA);
}
TEST(RareCall, SyslogAndVhangupNeedPrivilege) {
  EXPECT_TRUE(PassesAsUser(1000, [] {
    EXPECT_FAIL(syscall(SYS_syslog, 5, nullptr, 0), EPERM);
    EXPECT_FAIL(syscall(SYS_vhangup), EPERM);
  }));
  EXPECT_FAIL(syscall(SYS_syslog, 99, nullptr, 0), EINVAL);
}
TEST(RareCall, RtSigreturnWithGarbageDies) {
  const int status = StatusOf([] { asm volatile("mov $64, %%rsp\n mov $15, %%eax\n syscall" : : : "memory"); });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGSEGV);
}

}  // namespace
}  // namespace moat::guest
