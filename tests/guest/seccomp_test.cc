// seccomp(2): strict mode and filters as guests set them for themselves.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

// A filter that answers `action` for the call `number` (and argument 0, when `first` is not negative), else allows.
int Install(int number, uint32_t action, int64_t first = -1, unsigned flags = 0) {
  const auto low = static_cast<uint32_t>(first);
  sock_filter with_argument[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(number), 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[0])),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, low, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, action),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  sock_filter plain[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(number), 0, 1),
      BPF_STMT(BPF_RET | BPF_K, action),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = first < 0 ? sock_fprog{4, plain} : sock_fprog{6, with_argument};
  return static_cast<int>(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program));
}
void NoNewPrivs() { ASSERT_OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)); }

TEST(Seccomp, ErrnoAction) {
  EXPECT_TRUE(PassesInChild([] {
    NoNewPrivs();
    ASSERT_OK(Install(SYS_getppid, SECCOMP_RET_ERRNO | EDOM));
    EXPECT_FAIL(syscall(SYS_getppid), EDOM);
    EXPECT_OK(getpid());
    EXPECT_EQ(prctl(PR_GET_SECCOMP), 2);
    EXPECT_EQ(ProcField("/proc/self/status", "Seccomp"), "2");
  }));
}
TEST(Seccomp, ArgumentsAreSeen) {
  EXPECT_TRUE(PassesInChild([] {
    NoNewPrivs();
    ASSERT_OK(Install(SYS_close, SECCOMP_RET_ERRNO | EPERM, 77));
    EXPECT_FAIL(close(77), EPERM);
    EXPECT_FAIL(close(78), EBADF);
  }));
}
TEST(Seccomp, InheritedByForkAndThreads) {
  EXPECT_TRUE(PassesInChild([] {
    NoNewPrivs();
    ASSERT_OK(Install(SYS_getppid, SECCOMP_RET_ERRNO | EDOM));
    EXPECT_TRUE(PassesInChild([] { EXPECT_FAIL(syscall(SYS_getppid), EDOM); }));
  }));
}
TEST(Seccomp, StrictestFilterWins) {
  EXPECT_TRUE(PassesInChild([] {
    NoNewPrivs();
    ASSERT_OK(Install(SYS_getppid, SECCOMP_RET_ERRNO | EDOM));
    ASSERT_OK(Install(SYS_getppid, SECCOMP_RET_ALLOW));
    EXPECT_FAIL(syscall(SYS_getppid), EDOM);
  }));
}
TEST(Seccomp, KillProcess) {
  const int status = StatusOf([] {
    NoNewPrivs();
    Install(SYS_getppid, SECCOMP_RET_KILL_PROCESS);
    syscall(SYS_getppid);
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGSYS);
}
TEST(Seccomp, TrapCarriesTheCall) {
  EXPECT_TRUE(PassesInChild([] {
    SignalLog::Reset();
    const ScopedAction action(SIGSYS, SignalLog::Record);
    NoNewPrivs();
    ASSERT_OK(Install(SYS_getppid, SECCOMP_RET_TRAP | 33));
    syscall(SYS_getppid);
    ASSERT_EQ(SignalLog::count, 1);
    EXPECT_EQ(SignalLog::info[0].si_code, 1);  // SYS_SECCOMP
    EXPECT_EQ(SignalLog::info[0].si_syscall, SYS_getppid);
    EXPECT_EQ(SignalLog::info[0].si_errno, 33);
    EXPECT_EQ(SignalLog::info[0].si_arch, static_cast<unsigned>(AUDIT_ARCH_X86_64));
  }));
}
TEST(Seccomp, StrictMode) {
  const int status = StatusOf([] {
    ASSERT_OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT));
    syscall(SYS_getpid);
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGKILL);
  EXPECT_EQ(WEXITSTATUS(StatusOf([] {
              prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
              syscall(SYS_exit, 5);
            })),
            5);
}
TEST(Seccomp, UserNeedsNoNewPrivs) {
  EXPECT_TRUE(PassesAsUser(1000, [] { EXPECT_FAIL(Install(SYS_getppid, SECCOMP_RET_ALLOW), EACCES); }));
}
TEST(Seccomp, Errors) {
  EXPECT_TRUE(PassesInChild([] {
    NoNewPrivs();
    sock_filter endless[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0)};
    const sock_fprog no_return = {1, endless}, empty = {0, endless};
    EXPECT_FAIL(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &no_return), EINVAL);
    EXPECT_FAIL(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &empty), EINVAL);
    EXPECT_FAIL(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, BadPointer()), EFAULT);
    EXPECT_FAIL(syscall(SYS_seccomp, 99, 0, nullptr), EINVAL);
    EXPECT_FAIL(Install(SYS_getppid, SECCOMP_RET_ALLOW, -1, 1 << 20), EINVAL);
  }));
}

}  // namespace
}  // namespace moat::guest
