#include "tests/guest/support/child.h"

#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <time.h>

#include "tests/guest/support/temp_dir.h"

namespace moat::guest {

pid_t Spawn(const std::function<void()>& body) {
  fflush(stdout);
  const pid_t pid = fork();
  if (pid != 0) {
    EXPECT_OK(pid);
    return pid;
  }
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  body();
  fflush(stdout);
  _exit(testing::Test::HasFailure() ? 1 : 0);
}

int WaitStatus(pid_t pid) {
  int status = -1;
  pid_t reaped;
  while ((reaped = waitpid(pid, &status, 0)) == -1 && errno == EINTR) {
  }
  EXPECT_EQ(reaped, pid);
  return reaped == pid ? status : -1;
}

int StatusOf(const std::function<void()>& body) { return WaitStatus(Spawn(body)); }

testing::AssertionResult PassesInChild(const std::function<void()>& body) {
  const int status = StatusOf(body);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return testing::AssertionSuccess();
  if (WIFSIGNALED(status)) return testing::AssertionFailure() << "the child died by signal " << WTERMSIG(status);
  return testing::AssertionFailure() << "the child exited with " << WEXITSTATUS(status);
}

testing::AssertionResult PassesAsUser(uid_t id, const std::function<void()>& body) {
  return PassesInChild([&] {
    BecomeUser(id);
    if (!testing::Test::HasFailure()) body();
  });
}

void BecomeUser(uid_t id) {
  ASSERT_OK(setgroups(0, nullptr));
  ASSERT_OK(setresgid(id, id, id));
  ASSERT_OK(setresuid(id, id, id));
  ASSERT_OK(prctl(PR_SET_DUMPABLE, 1));  // the change of ids cleared it, and with it the ownership of /proc/self
}

PausedChild::PausedChild()
    : pid_(Spawn([] {
        for (;;) pause();
      })) {}

PausedChild::~PausedChild() {
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

bool Eventually(const std::function<bool()>& condition, double seconds) {
  const timespec pause_time = {0, 1'000'000};
  timespec start, now;
  clock_gettime(CLOCK_MONOTONIC, &start);
  for (;;) {
    if (condition()) return true;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (static_cast<double>(now.tv_sec - start.tv_sec) + static_cast<double>(now.tv_nsec - start.tv_nsec) / 1e9 >
        seconds)
      return false;
    nanosleep(&pause_time, nullptr);
  }
}

bool Sleeps(pid_t pid, pid_t tid, double seconds) {
  const std::string path = "/proc/" + std::to_string(pid) + "/task/" + std::to_string(tid) + "/status";
  return Eventually([&] { return ProcField(path, "State").substr(0, 1) == "S"; }, seconds);
}

std::string SelfPath() {
  char path[PATH_MAX];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof path);
  EXPECT_OK(n);
  return std::string(path, n > 0 ? n : 0);
}

void ExecRole(const char* role, const std::vector<std::string>& args) {
  const std::string self = SelfPath();
  const std::string flag = std::string("--role=") + role;
  std::vector<char*> argv = {const_cast<char*>(self.c_str()), const_cast<char*>(flag.c_str())};
  for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  execv(self.c_str(), argv.data());
}

}  // namespace moat::guest
