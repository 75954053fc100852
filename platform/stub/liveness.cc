#include "platform/stub/liveness.h"

#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "platform/base/scoped_fd.h"

namespace moat::stub {

bool IsDead(pid_t pid) {
  ScopedFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!pidfd.valid()) return errno == ESRCH;
  pollfd p = {pidfd.get(), POLLIN, 0};
  timespec zero = {};
  return ppoll(&p, 1, &zero, nullptr) > 0;
}

}  // namespace moat::stub
