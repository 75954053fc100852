#include "runsc/seccomp/filters.h"

#include <errno.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "absl/functional/function_ref.h"

namespace moat {
namespace {

// Loads `filter` in a child, runs `probe` there and ends it; the wait status, and what it wrote to stderr.
int InChild(const FilterProgram& filter, absl::FunctionRef<void()> probe, std::string* said = nullptr) {
  int pipe_fds[2];
  if (pipe(pipe_fds) != 0) return -1;
  pid_t pid = fork();
  if (pid == 0) {
    dup2(pipe_fds[1], STDERR_FILENO);
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    InstallViolationHandler("sentry", -1);
    if (LoadFilter(filter) != 0) _exit(99);
    probe();
    syscall(SYS_exit_group, 0);
  }
  close(pipe_fds[1]);
  std::string text;
  char buffer[512];
  for (ssize_t n; (n = read(pipe_fds[0], buffer, sizeof buffer)) > 0;) text.append(buffer, n);
  close(pipe_fds[0]);
  int status = 0;
  waitpid(pid, &status, 0);
  if (said != nullptr) *said = text;
  return status;
}

TEST(FiltersTest, SentryStaysWithinItsBudget) {
  for (const PlatformFilters& f : AllPlatformFilters()) {
    EXPECT_LE(f.sentry.AllowedCount(), 26) << f.platform;
    EXPECT_GT(f.sentry.AllowedCount(), 5) << f.platform;
  }
}

TEST(FiltersTest, SentryMayNotOpenExecuteOrConnect) {
  for (const PlatformFilters& f : AllPlatformFilters())
    for (const HostCallRow& row : f.sentry.rows) {
      if (!row.refusal.empty()) continue;
      for (const char* name : {"open", "openat", "openat2", "socket", "socketpair", "connect", "bind", "execve",
                               "execveat", "fork", "vfork", "kill", "chdir", "chroot", "mount", "setns", "unshare"})
        EXPECT_NE(row.name, name);
      if (row.name == "clone" || row.name == "ioctl") EXPECT_NE(row.conditions, "") << row.name;
    }
}

TEST(FiltersTest, EveryRowHasAReason) {
  for (const FilterProgram* f :
       {&kSentryPtraceFilter, &kSentrySystrapFilter, &kGoferFilter, &kStubPtraceFilter, &kStubSystrapFilter}) {
    for (const HostCallRow& row : f->rows) EXPECT_GE(row.reason.size(), 4u) << row.name;
  }
}

TEST(FiltersTest, AllowedCallsGoThrough) {
  EXPECT_EQ(InChild(kSentryPtraceFilter, [] {}), 0);
}

TEST(FiltersTest, AViolationIsNamed) {
  std::string said;
  int status = InChild(
      kSentryPtraceFilter, [] { syscall(SYS_openat, AT_FDCWD, "/etc/passwd", O_RDONLY); }, &said);
  ASSERT_TRUE(WIFEXITED(status)) << status;
  EXPECT_EQ(WEXITSTATUS(status), 128 + SIGSYS);
  EXPECT_NE(said.find("moat: sentry made host call openat (257) outside its list"), std::string::npos) << said;
}

TEST(FiltersTest, ExecutableMemoryAndForeignClonesAreViolations) {
  int status = InChild(kSentryPtraceFilter, [] {
    syscall(SYS_mmap, nullptr, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 128 + SIGSYS) << status;
  status = InChild(kSentryPtraceFilter, [] { syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, 0); });
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 128 + SIGSYS) << status;
}

TEST(FiltersTest, RefusedCallsAnswerTheirErrno) {
  for (const HostCallRow& row : kSentryPtraceFilter.rows) {
    if (row.refusal != "ENOSYS") continue;
    int status = InChild(kSentryPtraceFilter, [&] {
      if (syscall(row.number, 0, 0, 0, 0, 0, 0) != -1 || errno != ENOSYS) syscall(SYS_exit_group, 7);
    });
    EXPECT_EQ(status, 0) << row.name;
  }
}

TEST(FiltersTest, TheDocumentIsUpToDate) {
  FILE* f = fopen(MOAT_SOURCE_DIR "/docs/host-syscalls.md", "r");
  ASSERT_NE(f, nullptr);
  std::string text;
  char buffer[4096];
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, f)) > 0;) text.append(buffer, n);
  fclose(f);
  EXPECT_NE(text.find(HostCallTables()), std::string::npos)
      << "docs/host-syscalls.md is out of date: tools/dev/update-host-syscalls";
}

TEST(FiltersTest, NamesOfCalls) {
  EXPECT_EQ(HostCallName(SYS_openat), "openat");
  EXPECT_EQ(HostCallName(SYS_clone3), "clone3");
  EXPECT_EQ(HostCallName(9999), "?");
}

}  // namespace
}  // namespace moat
