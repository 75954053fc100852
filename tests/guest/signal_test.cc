// sigaction(2), sigprocmask(2), kill(2), sigaltstack(2), sigsuspend(2): actions, flags, masks.
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>

#include "tests/guest/support/child.h"
#include "tests/guest/support/mapping.h"
#include "tests/guest/support/raw_calls.h"
#include "tests/guest/support/signals.h"
#include "tests/guest/support/temp_dir.h"

namespace moat::guest {
namespace {

class Signal : public testing::Test {
 protected:
  void SetUp() override { SignalLog::Reset(); }
};

TEST_F(Signal, HandlerRunsBeforeKillReturns) {
  const ScopedAction action(SIGUSR1, SignalLog::Record);
  ASSERT_OK(kill(getpid(), SIGUSR1));
  EXPECT_EQ(SignalLog::count, 1);
}
TEST_F(Signal, InfoOfKill) {
  const ScopedAction action(SIGUSR1, SignalLog::Record);
  ASSERT_OK(kill(getpid(), SIGUSR1));
  EXPECT_EQ(SignalLog::info[0].si_signo, SIGUSR1);
  EXPECT_EQ(SignalLog::info[0].si_code, SI_USER);
  EXPECT_EQ(SignalLog::info[0].si_pid, getpid());
  EXPECT_EQ(SignalLog::info[0].si_uid, getuid());
}
TEST_F(Signal, InfoFromChild) {
  const ScopedAction action(SIGUSR1, SignalLog::Record);
  const pid_t parent = getpid();
  const pid_t child = Spawn([&] { EXPECT_OK(kill(parent, SIGUSR1)); });
  EXPECT_TRUE(Eventually([] { return SignalLog::count == 1; }));
  EXPECT_EQ(SignalLog::info[0].si_pid, child);
  WaitStatus(child);
}
TEST_F(Signal, SigactionReturnsTheOldOne) {
  struct sigaction mine = {}, old;
  mine.sa_sigaction = SignalLog::Record;
  mine.sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER;
  mine.sa_mask = SignalSet({SIGHUP});
  const ScopedAction action(SIGUSR1, mine);
  ASSERT_OK(sigaction(SIGUSR1, nullptr, &old));
  EXPECT_EQ(old.sa_sigaction, mine.sa_sigaction);
  EXPECT_EQ(old.sa_flags & (SA_SIGINFO | SA_RESTART | SA_NODEFER), mine.sa_flags);
  EXPECT_TRUE(sigismember(&old.sa_mask, SIGHUP));
}
TEST_F(Signal, SigactionErrors) {
  struct sigaction action = {};
  EXPECT_FAIL(syscall(SYS_rt_sigaction, 0, &action, nullptr, 8), EINVAL);
  EXPECT_FAIL(syscall(SYS_rt_sigaction, 65, &action, nullptr, 8), EINVAL);
  EXPECT_FAIL(syscall(SYS_rt_sigaction, SIGKILL, &action, nullptr, 8), EINVAL);
  EXPECT_FAIL(syscall(SYS_rt_sigaction, SIGSTOP, &action, nullptr, 8), EINVAL);
  EXPECT_FAIL(syscall(SYS_rt_sigaction, SIGUSR1, &action, nullptr, 4), EINVAL);
  EXPECT_FAIL(syscall(SYS_rt_sigaction, SIGUSR1, BadPointer(), nullptr, 8), EFAULT);
  EXPECT_OK(syscall(SYS_rt_sigaction, SIGKILL, nullptr, &action, 8));
}
TEST_F(Signal, BlockedSignalIsPending) {
  const ScopedAction action(SIGUSR1, SignalLog::Record);
  {
    const ScopedBlock block({SIGUSR1});
    ASSERT_OK(raise(SIGUSR1));
    ASSERT_OK(raise(SIGUSR1));
    EXPECT_EQ(SignalLog::count, 0);
    sigset_t pending;
    ASSERT_OK(sigpending(&pending));
    EXPECT_TRUE(sigismember(&pending, SIGUSR1));
    EXPECT_FALSE(sigismember(&pending, SIGUSR2));
  }
  EXPECT_EQ(SignalLog::count, 1);  // standard signals do not queue
}
TEST_F(Signal, KillAndStopCannotBeBlocked) {
  const ScopedBlock block({SIGKILL, SIGSTOP, SIGUSR1});
  sigset_t mask;
  ASSERT_OK(sigprocmask(SIG_BLOCK, nullptr, &mask));
  EXPECT_FALSE(sigismember(&mask, SIGKILL));
  EXPECT_FALSE(sigismember(&mask, SIGSTOP));
  EXPECT_TRUE(sigismember(&mask, SIGUSR1));
}
TEST_F(Signal, SigprocmaskHows) {
  EXPECT_TRUE(PassesInChild([] {
    sigset_t a = SignalSet({SIGUSR1}), b = SignalSet({SIGUSR2}), now;
    ASSERT_OK(sigprocmask(SIG_SETMASK, &a, nullptr));
    ASSERT_OK(sigprocmask(SIG_BLOCK, &b, &now));
    EXPECT_TRUE(sigismember(&now, SIGUSR1));
    EXPECT_FALSE(sigismember(&now, SIGUSR2));
    ASSERT_OK(sigprocmask(SIG_UNBLOCK, &a, nullptr));
    ASSERT_OK(sigprocmask(SIG_BLOCK, nullptr, &now));
    EXPECT_FALSE(sigismember(&now, SIGUSR1));
    EXPECT_TRUE(sigismember(&now, SIGUSR2));
    EXPECT_FAIL(sigprocmask(77, &a, nullptr), EINVAL);
    EXPECT_FAIL(syscall(SYS_rt_sigprocmask, SIG_BLOCK, &a, nullptr, 4), EINVAL);
    EXPECT_FAIL(syscall(SYS_rt_sigprocmask, SIG_BLOCK, BadPointer(), nullptr, 8), EFAULT);
  }));
}
TEST_F(Signal, IgnoredSignalVanishes) {
  const ScopedAction action(SIGUSR1, SIG_IGN);
  ASSERT_OK(raise(SIGUSR1));
  const ScopedBlock block({SIGUSR1});
  sigset_t pending;
  ASSERT_OK(raise(SIGUSR1));
  ASSERT_OK(sigpending(&pending));
  EXPECT_TRUE(sigismember(&pending, SIGUSR1));  // kept while blocked, dropped at delivery
}
TEST_F(Signal, IgnoringDropsPending) {
  const ScopedBlock block({SIGUSR1});
  ASSERT_OK(raise(SIGUSR1));
  const ScopedAction action(SIGUSR1, SIG_IGN);
  sigset_t pending;
  ASSERT_OK(sigpending(&pending));
  EXPECT_FALSE(sigismember(&pending, SIGUSR1));
}
TEST_F(Signal, DefaultIgnoredOnes) {
  for (int signal : {SIGCHLD, SIGURG, SIGWINCH, SIGCONT}) ASSERT_OK(raise(signal));
}
TEST_F(Signal, HandlerMaskBlocksOthers) {
  static bool other_ran_inside;
  other_ran_inside = false;
  const ScopedAction inner(SIGUSR2, SignalLog::Record);
  const ScopedAction outer(
      SIGUSR1,
      [](int, siginfo_t*, void*) {
        raise(SIGUSR2);
        other_ran_inside = SignalLog::count != 0;
      },
      0, SignalSet({SIGUSR2}));
  ASSERT_OK(raise(SIGUSR1));
  EXPECT_FALSE(other_ran_inside);
  EXPECT_EQ(SignalLog::count, 1);
}
TEST_F(Signal, OwnSignalIsBlockedInItsHandler) {
  static int depth, deepest, calls;
  depth = deepest = calls = 0;
  const ScopedAction action(SIGUSR1, [](int, siginfo_t*, void*) {
    deepest = std::max(deepest, ++depth);
    if (++calls < 3) raise(SIGUSR1);
    --depth;
  });
  ASSERT_OK(raise(SIGUSR1));
  EXPECT_EQ(calls, 3);
  EXPECT_EQ(deepest, 1);
}
TEST_F(Signal, NodeferNests) {
  static int depth, deepest, calls;
  depth = deepest = calls = 0;
  const ScopedAction action(
      SIGUSR1,
      [](int, siginfo_t*, void*) {
        deepest = std::max(deepest, ++depth);
        if (++calls < 3) raise(SIGUSR1);
        --depth;
      },
      SA_NODEFER);
  ASSERT_OK(raise(SIGUSR1));
  EXPECT_EQ(deepest, 3);
}
TEST_F(Signal, ResethandRunsOnce) {
  const int status = StatusOf([] {
    const ScopedAction action(SIGUSR1, SignalLog::Record, SA_RESETHAND);
    raise(SIGUSR1);
    if (SignalLog::count != 1) _exit(2);
    raise(SIGUSR1);
  });
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGUSR1);
}
TEST_F(Signal, MaskIsRestoredAfterTheHandler) {
  const ScopedAction action(SIGUSR1, SignalLog::Record, 0, SignalSet({SIGUSR2}));
  ASSERT_OK(raise(SIGUSR1));
  sigset_t mask;
  ASSERT_OK(sigprocmask(SIG_BLOCK, nullptr, &mask));
  EXPECT_FALSE(sigismember(&mask, SIGUSR1));
  EXPECT_FALSE(sigismember(&mask, SIGUSR2));
}
TEST_F(Signal, SeveralPendingAllRun) {
  const ScopedAction a(SIGUSR1, SignalLog::Record), b(SIGUSR2, SignalLog::Record), c(SIGHUP, SignalLog::Record);
  {
    const ScopedBlock block({SIGUSR1, SIGUSR2, SIGHUP});
    for (int signal : {SIGUSR2, SIGHUP, SIGUSR1}) ASSERT_OK(raise(signal));
  }
  EXPECT_EQ(SignalLog::count, 3);
}
TEST_F(Signal, LongjmpOutOfHandler) {
  static sigjmp_buf jump;
  const ScopedAction action(SIGUSR1, [](int, siginfo_t*, void*) { siglongjmp(jump, 5); });
  const int value = sigsetjmp(jump, 1);
  if (value == 0) raise(SIGUSR1);
  EXPECT_EQ(value, 5);
  sigset_t mask;
  ASSERT_OK(sigprocmask(SIG_BLOCK, nullptr, &mask));
  EXPECT_FALSE(sigismember(&mask, SIGUSR1));
}
TEST_F(Signal, SigsuspendSwapsTheMask) {
  const ScopedAction action(SIGUSR1, SignalLog::Record);
  const ScopedBlock block({SIGUSR1});
  ASSERT_OK(raise(SIGUSR1));
  const sigset_t none = SignalSet({});
  EXPECT_FAIL(sigsuspend(&none), EINTR);
  EXPECT_EQ(SignalLog::count, 1);
  sigset_t mask;
  ASSERT_OK(sigprocmask(SIG_BLOCK, nullptr, &mask));
  EXPECT_TRUE(sigismember(&mask, SIGUSR1));
}
TEST_F(Signal, PauseReturnsAfterAHandler) {
  const pid_t child = Spawn([] {
    const ScopedAction action(SIGUSR1, SignalLog::Record);
    EXPECT_FAIL(pause(), EINTR);
    EXPECT_EQ(SignalLog::count, 1);
  });
  ASSERT_TRUE(Sleeps(child));
  usleep(10'000);
  ASSERT_OK(kill(child, SIGUSR1));
  EXPECT_EQ(WaitStatus(child), 0);
}
TEST_F(Signal, KillErrors) {
  EXPECT_FAIL(kill(getpid(), 65), EINVAL);
  EXPECT_FAIL(kill(getpid(), -1), EINVAL);
  EXPECT_FAIL(kill(999'999, SIGTERM), ESRCH);
  EXPECT_OK(kill(getpid(), 0));
  const PausedChild child;
  EXPECT_TRUE(PassesAsUser(1000, [&] { EXPECT_FAIL(kill(child.pid(), SIGTERM), EPERM); }));
}
TEST_F(Signal, SameUserMayKill) {
  const pid_t target = Spawn([] {
    BecomeUser(1000);
    for (;;) pause();
  });
  ASSERT_TRUE(Eventually(
      [&] { return ProcField("/proc/" + std::to_string(target) + "/status", "Uid").substr(0, 4) == "1000"; }));
  EXPECT_TRUE(PassesAsUser(1000, [&] { EXPECT_OK(kill(target, SIGKILL)); }));
  EXPECT_EQ(WTERMSIG(WaitStatus(target)), SIGKILL);
}
TEST_F(Signal, SigcontMayCrossUsersInASession) {
  const PausedChild child;
  EXPECT_TRUE(PassesAsUser(1000, [&] { EXPECT_OK(kill(child.pid(), SIGCONT)); }));
}
TEST_F(Signal, ContinueDropsPendingStops) {
  const pid_t child = Spawn([] {
    const ScopedBlock block({SIGTSTP});
    raise(SIGTSTP);
    raise(SIGCONT);
    sigset_t pending;
    ASSERT_OK(sigpending(&pending));
    EXPECT_FALSE(sigismember(&pending, SIGTSTP));
  });
  EXPECT_EQ(WaitStatus(child), 0);
}

TEST_F(Signal, AltStackIsUsed) {
  Mapping stack(65536);
  const stack_t ss = {stack.data(), 0, stack.size()};
  stack_t old;
  ASSERT_OK(sigaltstack(&ss, &old));
  static char* where;
  static stack_t inside;
  const ScopedAction action(
      SIGUSR1,
      [](int, siginfo_t*, void*) {
        char local;
        where = &local;
        sigaltstack(nullptr, &inside);
      },
      SA_ONSTACK);
  ASSERT_OK(raise(SIGUSR1));
  EXPECT_GE(where, stack.data());
  EXPECT_LT(where, stack.data() + stack.size());
  EXPECT_TRUE(inside.ss_flags & SS_ONSTACK);
  ASSERT_OK(sigaltstack(&old, nullptr));
}
TEST_F(Signal, AltStackSavesAnOverflowedStack) {
  const int status = StatusOf([] {
    static char stack[65536];
    const stack_t ss = {stack, 0, sizeof stack};
    ASSERT_OK(sigaltstack(&ss, nullptr));
    const ScopedAction action(
        SIGSEGV, [](int, siginfo_t*, void*) { _exit(33); }, SA_ONSTACK);
    char* volatile deep = static_cast<char*>(__builtin_frame_address(0));
    for (;;) {
      deep = deep - kPage;
      *deep = 1;
    }
  });
  EXPECT_EQ(WEXITSTATUS(status), 33);
}
TEST_F(Signal, AltStackErrors) {
  static char stack[65536];
  const stack_t tiny = {stack, 0, 100}, odd = {stack, 0x40, sizeof stack};
  EXPECT_FAIL(sigaltstack(&tiny, nullptr), ENOMEM);
  EXPECT_FAIL(sigaltstack(&odd, nullptr), EINVAL);
  EXPECT_FAIL(sigaltstack(reinterpret_cast<stack_t*>(BadPointer()), nullptr), EFAULT);
}
TEST_F(Signal, AltStackCannotChangeWhileInUse) {
  Mapping stack(65536);
  const stack_t ss = {stack.data(), 0, stack.size()}, off = {nullptr, SS_DISABLE, 0};
  ASSERT_OK(sigaltstack(&ss, nullptr));
  static int error;
  const ScopedAction action(
      SIGUSR1,
      [](int, siginfo_t*, void*) {
        const stack_t none = {nullptr, SS_DISABLE, 0};
        error = sigaltstack(&none, nullptr) == -1 ? errno : 0;
      },
      SA_ONSTACK);
  ASSERT_OK(raise(SIGUSR1));
  EXPECT_EQ(error, EPERM);
  ASSERT_OK(sigaltstack(&off, nullptr));
}
TEST_F(Signal, AltStackIsPerThreadAndCopiedByFork) {
  Mapping stack(65536);
  const stack_t ss = {stack.data(), 0, stack.size()}, off = {nullptr, SS_DISABLE, 0};
  ASSERT_OK(sigaltstack(&ss, nullptr));
  EXPECT_TRUE(PassesInChild([&] {
    stack_t now;
    ASSERT_OK(sigaltstack(nullptr, &now));
    EXPECT_EQ(now.ss_sp, stack.data());
  }));
  ASSERT_OK(sigaltstack(&off, nullptr));
}
TEST_F(Signal, HandlerStackIsAligned) {  // the compiler relies on the ABI's 16 bytes for this local
  static uintptr_t where;
  const ScopedAction action(SIGUSR1, [](int, siginfo_t*, void*) {
    alignas(16) volatile char local[16];
    local[0] = 1;
    where = reinterpret_cast<uintptr_t>(local);
  });
  ASSERT_OK(raise(SIGUSR1));
  EXPECT_EQ(where % 16, 0u);
}

}  // namespace
}  // namespace moat::guest
