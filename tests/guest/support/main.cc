// The main() of every guest test. As the first process of a pid namespace (where default actions of signals do not
// apply and orphans arrive) it runs the tests in a child and reaps until that child ends.
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/guest/support/child.h"

namespace moat::guest {
namespace {

Role* roles = nullptr;

int ReapUntil(pid_t pid) {
  for (;;) {
    int status;
    const pid_t reaped = waitpid(-1, &status, 0);
    if (reaped == -1 && errno != EINTR) return 1;
    if (reaped != pid) continue;
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    fprintf(stderr, "the test program died by signal %d\n", WTERMSIG(status));
    return 128 + WTERMSIG(status);
  }
}

}  // namespace

Role::Role(const char* role_name, RoleMain role_main) : name(role_name), main(role_main), next(roles) { roles = this; }

int RunRole(int argc, char** argv) {
  const char* wanted = argv[1] + strlen("--role=");
  for (Role* role = roles; role != nullptr; role = role->next) {
    if (strcmp(role->name, wanted) == 0) return role->main(argc - 1, argv + 1);
  }
  fprintf(stderr, "no role %s\n", wanted);
  return 125;
}

}  // namespace moat::guest

int main(int argc, char** argv) {
  if (argc > 1 && strncmp(argv[1], "--role=", 7) == 0) return moat::guest::RunRole(argc, argv);
  if (getpid() == 1) {
    const pid_t child = fork();
    if (child != 0) return moat::guest::ReapUntil(child);
    setpgid(0, 0);
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
