// Making a container from a bundle: what `create` and `run` share.
#ifndef MOAT_RUNSC_CONTAINER_CREATE_H_
#define MOAT_RUNSC_CONTAINER_CREATE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runsc/container/state.h"
#include "runsc/oci/spec.h"
#include "runsc/sandbox/supervisor.h"

namespace moat {

struct CreateOptions {
  std::string id;
  std::string bundle = ".";
  std::string pid_file;
  std::string console_socket;
  // Told what of the configuration has no effect. Never null when a container is made.
  std::function<void(const std::vector<std::string>&)> warn;
  bool detach = true;  // the manager's terminal is at --console-socket, not at our stdio
};

// A bundle, read and checked. `config_text` is what is kept.
struct Bundle {
  std::string path;  // absolute
  std::string config_text;
  oci::Spec spec;
  std::vector<std::string> warnings;
};
absl::StatusOr<Bundle> ReadBundle(const std::string& path);

// Forks the supervisor (the container's host process, left behind when we exit), which boots the sandbox and loads
// init. On return the container is "created", its record saved and its pid file written; on failure nothing is left.
// `boot` has what the global flags say.
absl::StatusOr<ContainerRecord> CreateContainer(StateDir& state, const CreateOptions& options, Bundle bundle,
                                                BootConfig boot);

// The attached form: the calling process becomes the supervisor. Answers the wait status of the guest's init.
absl::StatusOr<int> RunAttached(StateDir& state, const CreateOptions& options, Bundle bundle, BootConfig boot);

// `runsc start` on a locked container.
absl::Status StartContainer(StateDir& state, ContainerRecord& record);

// Removes a stopped container's traces and runs its poststop hooks; their failures are only reported on stderr.
absl::Status DestroyContainer(StateDir& state, const ContainerRecord& record);

}  // namespace moat

#endif  // MOAT_RUNSC_CONTAINER_CREATE_H_
