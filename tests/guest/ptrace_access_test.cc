// ptrace(2): who may trace whom, and what a traced exec may gain.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/guest/support/temp_dir.h"
#include "tests/guest/support/tracee.h"

namespace moat::guest {
namespace {

constexpr uid_t kAlice = 1001, kBob = 1002;

MOAT_ROLE(ptrace_print_euid) { return geteuid() == 0 ? 20 : geteuid() == kAlice ? 21 : 22; }

// A child of user `id` that has said that it is ready.
pid_t ChildOf(uid_t id, bool dumpable = true) {
  int ready[2];
  EXPECT_OK(pipe(ready));
  const pid_t pid = Spawn([&] {
    BecomeUser(id);
    prctl(PR_SET_DUMPABLE, dumpable ? 1 : 0);
    if (write(ready[1], "r", 1) == 1) pause();
  });
  char c;
  EXPECT_EQ(read(ready[0], &c, 1), 1);
  close(ready[0]);
  close(ready[1]);
  return pid;
}
void End(pid_t pid) {
  kill(pid, SIGKILL);
  EXPECT_EQ(WaitStatus(pid), SIGKILL);
}

TEST(PtraceAccess, SameUser) {
  const pid_t child = ChildOf(kAlice);
  EXPECT_TRUE(PassesAsUser(kAlice, [&] { EXPECT_OK(Ptrace(PTRACE_SEIZE, child)); }));
  End(child);
}
TEST(PtraceAccess, OtherUser) {
  const pid_t child = ChildOf(kAlice);
  EXPECT_TRUE(PassesAsUser(kBob, [&] {
    EXPECT_FAIL(Ptrace(PTRACE_SEIZE, child), EPERM);
    EXPECT_FAIL(Ptrace(PTRACE_ATTACH, child), EPERM);
  }));
  End(child);
}
TEST(PtraceAccess, RootsProcess) {
  PausedChild child;
  EXPECT_TRUE(PassesAsUser(kAlice, [&] { EXPECT_FAIL(Ptrace(PTRACE_SEIZE, child.pid()), EPERM); }));
}
TEST(PtraceAccess, NotDumpable) {
  const pid_t child = ChildOf(kAlice, false);
  EXPECT_TRUE(PassesAsUser(kAlice, [&] { EXPECT_FAIL(Ptrace(PTRACE_SEIZE, child), EPERM); }));
  EXPECT_OK(Ptrace(PTRACE_SEIZE, child)) << "root may";
  End(child);
}
TEST(PtraceAccess, InitIsNotKilledFromWithin) {
  EXPECT_TRUE(PassesInChild([] {
    ASSERT_OK(unshare(CLONE_NEWPID));
    EXPECT_TRUE(PassesInChild([] {
      ASSERT_EQ(getpid(), 1);
      EXPECT_TRUE(PassesInChild([] {
        ASSERT_OK(Ptrace(PTRACE_SEIZE, 1));
        EXPECT_OK(Ptrace(PTRACE_KILL, 1));
        ASSERT_OK(Ptrace(PTRACE_INTERRUPT, 1));
        EXPECT_EQ(NextStatus(1), EventStop(PTRACE_EVENT_STOP));
      }));
    }));
  }));
}
TEST(PtraceAccess, TracemeUnderALesserParent) {
  // A privileged child of an unprivileged parent: the parent drops its privileges after the fork.
  int dropped[2];
  ASSERT_OK(pipe(dropped));
  EXPECT_TRUE(PassesInChild([&] {
    const pid_t child = Spawn([&] {
      char c;
      ASSERT_EQ(read(dropped[0], &c, 1), 1);
      EXPECT_FAIL(Ptrace(PTRACE_TRACEME, 0), EPERM);
    });
    BecomeUser(kAlice);
    ASSERT_EQ(write(dropped[1], "d", 1), 1);
    EXPECT_EQ(WaitStatus(child), 0);
  }));
}
TEST(PtraceAccess, NewUserNamespaceBelow) {
  int ready[2];
  ASSERT_OK(pipe(ready));
  const pid_t child = Spawn([&] {
    BecomeUser(kAlice);
    if (unshare(CLONE_NEWUSER) != 0) _exit(0);
    prctl(PR_SET_DUMPABLE, 1);
    if (write(ready[1], "r", 1) == 1) pause();
  });
  close(ready[1]);
  char c;
  if (read(ready[0], &c, 1) != 1) {
    EXPECT_EQ(WaitStatus(child), 0);
    GTEST_SKIP() << "no user namespaces for users here";
  }
  // Its maker has all capabilities there.
  EXPECT_TRUE(PassesAsUser(kAlice, [&] { EXPECT_OK(Ptrace(PTRACE_SEIZE, child)); }));
  EXPECT_TRUE(PassesAsUser(kBob, [&] { EXPECT_FAIL(Ptrace(PTRACE_SEIZE, child), EPERM); }));
  End(child);
}

class SetIdExec : public testing::Test {
 protected:
  void SetUp() override {
    program_ = dir_.Join("prog");
    const std::string self = ReadFile("/proc/self/exe");
    ScopedFd fd(open(program_.c_str(), O_WRONLY | O_CREAT, 0755));
    ASSERT_EQ(write(fd.get(), self.data(), self.size()), static_cast<ssize_t>(self.size()));
    fd = ScopedFd();
    ASSERT_OK(chmod(dir_.path().c_str(), 0755));
    ASSERT_OK(chmod(program_.c_str(), 04755));
  }
  void Exec() const { execl(program_.c_str(), program_.c_str(), "--role=ptrace_print_euid", nullptr); }
  TempDir dir_;
  std::string program_;
};
TEST_F(SetIdExec, WithoutATracer) {
  EXPECT_EQ(StatusOf([&] {
              BecomeUser(kAlice);
              Exec();
            }),
            Exited(20));
}
TEST_F(SetIdExec, UnderAnUnprivilegedTracer) {
  EXPECT_TRUE(PassesAsUser(kAlice, [&] {
    Tracee t([&] { Exec(); });
    ASSERT_EQ(t.Go(), Stopped(SIGTRAP));
    EXPECT_EQ(t.Go(), Exited(21));
  }));
}
TEST_F(SetIdExec, UnderAPrivilegedTracer) {
  Tracee t([&] {
    BecomeUser(kAlice);
    Exec();
  });
  ASSERT_EQ(t.Go(), Stopped(SIGTRAP));
  EXPECT_EQ(t.Go(), Exited(20));
}

}  // namespace
}  // namespace moat::guest
