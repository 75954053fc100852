// OCI hooks: programs of the host that run at points of a container's life, with its state on stdin.
// Source: runtime-spec, config.md "POSIX-platform Hooks".
#ifndef MOAT_RUNSC_CONTAINER_HOOKS_H_
#define MOAT_RUNSC_CONTAINER_HOOKS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runsc/oci/spec.h"

namespace moat {

// Runs all of them in order and answers what the failing ones said: for hooks whose failure changes nothing.
std::vector<std::string> RunAllHooks(const std::vector<oci::Hook>& hooks, const char* kind,
                                     const std::string& state_json, const std::string& directory);

// Runs them in order until one fails: its name, exit status and stderr are in the error. `kind`: "createRuntime".
absl::Status RunHooks(const std::vector<oci::Hook>& hooks, const char* kind, const std::string& state_json,
                      const std::string& directory);

}  // namespace moat

#endif  // MOAT_RUNSC_CONTAINER_HOOKS_H_
