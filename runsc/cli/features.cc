// runsc features: what this runtime supports. Source: runtime-spec 1.2, features.md and features-linux.md.
#include <linux/capability.h>
#include <stdio.h>

#include <nlohmann/json.hpp>

#include "runsc/cli/command.h"
#include "runsc/cli/options.h"
#include "runsc/container/mount_plan.h"
#include "runsc/error/error.h"
#include "runsc/oci/names.h"

namespace moat {

absl::StatusOr<int> RunFeatures(const GlobalOptions&, std::vector<std::string> args) {
  OptionParser parser("runsc features", "Prints what this runtime supports as JSON.", "");
  ASSIGN_OR_RETURN(auto rest, parser.Parse(std::move(args), 0, 0));
  using nlohmann::ordered_json;
  ordered_json capabilities = ordered_json::array();
  for (int cap = 0; cap <= CAP_LAST_CAP; ++cap) capabilities.push_back(oci::CapabilityName(cap));
  ordered_json out = {
      {"ociVersionMin", "1.0.0"},
      {"ociVersionMax", kOciVersion},
      {"hooks", {"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}},
      {"mountOptions", SupportedMountOptions()},
      {"linux",
       {{"namespaces", {"ipc", "mount", "network", "pid", "uts"}},
        {"capabilities", capabilities},
        {"cgroup", {{"v1", false}, {"v2", false}, {"systemd", false}, {"systemdUser", false}}},
        {"seccomp", {{"enabled", false}}},
        {"apparmor", {{"enabled", false}}},
        {"selinux", {{"enabled", false}}},
        {"mountExtensions", {{"idmap", {{"enabled", false}}}}}}},
      {"annotations", {{"moat.version", kVersion}}},
      {"potentiallyUnsafeConfigAnnotations", ordered_json::array()}};
  printf("%s\n", out.dump(2).c_str());
  return 0;
}

}  // namespace moat
