// The gofer: the one process of a container that opens host files, on the sentry's order (docs/gofer-protocol.md).
// It serves exactly the mount roots that it is given, resolves single names beneath them and hands over
// descriptors of regular files. Source: openat2(2), capabilities(7).
#ifndef MOAT_RUNSC_GOFER_GOFER_H_
#define MOAT_RUNSC_GOFER_GOFER_H_

#include <vector>

#include "platform/base/scoped_fd.h"

namespace moat {

struct GoferMount {
  ScopedFd root;           // O_PATH or O_RDONLY; a directory, or the file of a bind mount of one file
  bool read_only = false;  // refused here too, not only by the sentry
};

struct GoferConfig {
  // AF_UNIX SOCK_SEQPACKET; the thread that serves connection i runs on CPU i if the process may use it, so that a
  // client on that CPU gets a hand-off instead of a cross-CPU wake-up.
  std::vector<ScopedFd> connections;
  std::vector<GoferMount> mounts;  // a client attaches by index
  // This very process's /proc/self/fd (O_PATH): how an object is opened anew from its O_PATH descriptor. Best from
  // a private instance of proc (fsopen, subset=pid) in the gofer's own pid namespace, where ".." leads nowhere.
  // Not valid: RunGofer opens /proc/self/fd itself.
  ScopedFd proc_self_fd;
  // Drop all capabilities but the list in lockdown.cc, set no_new_privs and load the gofer's seccomp filter.
  // Off only in tests that run a gofer inside of their own process.
  bool lock_down = true;
  int log_fd = -1;  // where the filter's violation message goes besides stderr
};

// Serves until all connections are closed: 0, or 1 with a message on stderr when it cannot start.
int RunGofer(GoferConfig config);

}  // namespace moat

#endif  // MOAT_RUNSC_GOFER_GOFER_H_
