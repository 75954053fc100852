// From what a user asked for to the list of mounts that the sentry makes, and the host directories and files that the
// gofer serves for them. Runs on the host side, where paths mean something.
#ifndef MOAT_RUNSC_CONTAINER_MOUNT_PLAN_H_
#define MOAT_RUNSC_CONTAINER_MOUNT_PLAN_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runsc/boot/boot_config.h"
#include "runsc/gofer/gofer.h"
#include "runsc/oci/spec.h"

namespace moat {

struct MountPlan {
  std::vector<MountStep> steps;
  std::vector<GoferMount> gofer_mounts;
};

// Of a bundle. Relative sources are relative to `bundle`.
absl::StatusOr<MountPlan> PlanBundleMounts(const oci::Spec& spec, const std::string& bundle,
                                           std::vector<std::string>& warnings);

// Of `runsc do`: the host's root below a private layer, own /tmp, /proc, /dev, /sys, and `volumes`
// ("/host/path:/guest/path[:ro|:rw]").
absl::StatusOr<MountPlan> PlanHostMounts(const std::vector<std::string>& volumes);

// A mount's options as mount(8) writes them, sorted into flags, propagation and file system data.
struct MountOptions {
  uint64_t flags = 0;
  uint64_t propagation = 0;
  bool bind = false;
  bool recursive = false;
  bool remount = false;  // changes the mount that is there already
  std::string data;
  std::vector<std::string> ignored;  // known, without effect here
};
// Names of the options that do what mount(8) says, sorted.
std::vector<std::string> SupportedMountOptions();
absl::StatusOr<MountOptions> ParseMountOptions(const std::vector<std::string>& options);

}  // namespace moat

#endif  // MOAT_RUNSC_CONTAINER_MOUNT_PLAN_H_
