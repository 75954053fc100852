// From a checked bundle to what the sandbox is launched with, and to the record that is kept of it.
#ifndef MOAT_RUNSC_CONTAINER_CONTAINER_PLAN_H_
#define MOAT_RUNSC_CONTAINER_CONTAINER_PLAN_H_

#include "runsc/container/create.h"
#include "runsc/sandbox/launch.h"

namespace moat {

// Everything but the process.
ContainerRecord NewRecord(const std::string& id, const Bundle& bundle);

// Opens what the container is given of the host: mount roots, and, with --console-socket, its terminal, whose slave
// `console` keeps until the launch.
absl::StatusOr<LaunchPlan> MakePlan(const CreateOptions& options, const Bundle& bundle, BootConfig boot,
                                    ScopedFd& console);

}  // namespace moat

#endif  // MOAT_RUNSC_CONTAINER_CONTAINER_PLAN_H_
