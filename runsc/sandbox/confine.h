// How a process of the sandbox is cut off from the host: made by StartConfined with namespaces of its own, then, in
// the child, Confine empties its root, drops its identity and its privileges. Source: user_namespaces(7),
// pid_namespaces(7), pivot_root(2), capabilities(7), prctl(2).
#ifndef MOAT_RUNSC_SANDBOX_CONFINE_H_
#define MOAT_RUNSC_SANDBOX_CONFINE_H_

#include <sys/types.h>

#include <cstdint>
#include <span>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "runsc/sandbox/channel.h"

namespace moat {

struct Confinement {
  const char* name = "";  // of the process, at most 15 bytes
  // The sentry runs as one unprivileged id; the gofer keeps the caller's id range, so that owners are right.
  bool keep_ids = false;
  uint64_t capabilities = 0;  // kept, in the process's own user namespace
  // Receives an O_PATH descriptor of the process's own /proc/self/fd, of a private proc where possible.
  ScopedFd* proc_self_fd = nullptr;
  // Receives a file for the guest's memory, on a tmpfs that gives huge pages where possible.
  ScopedFd* memory = nullptr;
  int descriptors = 0;  // that it is likely to have open at a time
  // No new network namespace: the caller is in one that is empty.
  bool keep_network = false;
};

// Clones the calling (single-threaded) process into new user, mount, pid, ipc, uts, cgroup and net namespaces (see
// Confinement::keep_network) and runs `main` there, which must not return. `link`: the two ends of the channel on which
// the child waits until its id maps are written; the parent keeps the first, the child the second.
struct ConfinedChild {
  pid_t pid = -1;
  ScopedFd pidfd;
  Channel channel;
};
absl::StatusOr<ConfinedChild> StartConfined(const Confinement& confinement, absl::FunctionRef<void(Channel)> main);

// In the child: waits for the maps, takes the unprivileged id, moves into an empty read-only root, closes every
// descriptor but `keep` and the channel's, drops all capabilities but the confinement's, sets no_new_privs, limits and
// the parent-death signal. An error text when a step fails: the child then ends.
absl::Status Confine(const Confinement& confinement, Channel& channel, std::span<const int> keep);

}  // namespace moat

#endif  // MOAT_RUNSC_SANDBOX_CONFINE_H_
