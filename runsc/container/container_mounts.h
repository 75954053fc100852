// A mount namespace of the host for one container: a copy of the runtime's, into which createContainer hooks may
// mount things that the container sees and the host does not. The gofer serves its roots from there. Made only for
// containers with such hooks. Source: mount_namespaces(7), runtime-spec config.md "CreateContainer Hooks".
#ifndef MOAT_RUNSC_CONTAINER_CONTAINER_MOUNTS_H_
#define MOAT_RUNSC_CONTAINER_CONTAINER_MOUNTS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runsc/gofer/gofer.h"
#include "runsc/oci/spec.h"
#include "runsc/sandbox/channel.h"

namespace moat {

class ContainerMounts {
 public:
  // None.
  ContainerMounts() = default;
  // Forks the process that runs the hooks and replaces the roots of `mounts` by the same places in the new namespace,
  // which lives as long as the object. Needs CAP_SYS_ADMIN.
  static absl::StatusOr<ContainerMounts> Create(const std::vector<oci::Hook>& hooks, std::vector<GoferMount>& mounts);
  ContainerMounts(ContainerMounts&& o) noexcept { *this = std::move(o); }
  ContainerMounts& operator=(ContainerMounts&& o) noexcept;
  ~ContainerMounts();

  // Runs the hooks in the namespace; once. `state_json` and `directory` as RunHooks has them.
  absl::Status RunHooks(const std::string& state_json, const std::string& directory);

 private:
  pid_t helper_ = -1;
  Channel channel_;
  ScopedFd ns_;
};

}  // namespace moat

#endif  // MOAT_RUNSC_CONTAINER_CONTAINER_MOUNTS_H_
