// Child processes of a test. Expectations made in a child print as usual and fail the child, so that
//   EXPECT_TRUE(PassesInChild([&] { ASSERT_OK(setuid(1000)); EXPECT_FAIL(setuid(0), EPERM); }));
// tests what a process may do only once.
#ifndef MOAT_TESTS_GUEST_SUPPORT_CHILD_H_
#define MOAT_TESTS_GUEST_SUPPORT_CHILD_H_

#include <stdlib.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>
#include <vector>

#include "tests/guest/support/syscall_result.h"

namespace moat::guest {

// Forks a child that runs `body` and exits 0, or 1 when an expectation failed in it. Returns its pid; the caller waits.
pid_t Spawn(const std::function<void()>& body);

// Waits for `pid`; the raw wait status, or -1 (a test failure) when there is nothing to wait for.
int WaitStatus(pid_t pid);

// Runs `body` in a child and returns the raw wait status.
int StatusOf(const std::function<void()>& body);

// Whether `body`, run in a child, ended without a failed expectation.
testing::AssertionResult PassesInChild(const std::function<void()>& body);

// The same in a child with user id and group id `id` (no supplementary groups, so no capabilities).
testing::AssertionResult PassesAsUser(uid_t id, const std::function<void()>& body);

// Makes the calling process user and group `id` for good.
void BecomeUser(uid_t id);

// A child that pauses until it is signalled; killed and reaped when the object dies.
class PausedChild {
 public:
  PausedChild();
  ~PausedChild();
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

// Waits up to `seconds` for `condition`, looking every millisecond.
bool Eventually(const std::function<bool()>& condition, double seconds = 5);
// Whether the thread `tid` (of process `pid`) sleeps in the kernel within `seconds`.
bool Sleeps(pid_t pid, pid_t tid, double seconds = 5);
inline bool Sleeps(pid_t pid) { return Sleeps(pid, pid); }

// The path of the running test program, to execute it again with `--role=NAME`; see ForRole.
std::string SelfPath();

// A role is a small other main() inside the test program, for tests of execve: running the program as
// `self --role=NAME ARGS...` calls the function registered by MOAT_ROLE(NAME) and exits with its result.
using RoleMain = int (*)(int argc, char** argv);
struct Role {
  Role(const char* name, RoleMain main);
  const char* name;
  RoleMain main;
  Role* next;
};
#define MOAT_ROLE(name)                                        \
  static int Role_##name(int argc, char** argv);               \
  static ::moat::guest::Role role_##name(#name, &Role_##name); \
  static int Role_##name([[maybe_unused]] int argc, [[maybe_unused]] char** argv)

// Executes the test program in `role` in the calling process; returns only on failure.
void ExecRole(const char* role, const std::vector<std::string>& args = {});

}  // namespace moat::guest

#endif  // MOAT_TESTS_GUEST_SUPPORT_CHILD_H_
