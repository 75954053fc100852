// Parses config.json and process.json. Strict about what it acts on: a wrong type, a missing required field or a
// value out of range is an error that names the field. What Moat does not implement is refused, or listed in
// `warnings`, by name; properties that the specification does not know are ignored, as it demands.
#ifndef MOAT_RUNSC_OCI_PARSE_H_
#define MOAT_RUNSC_OCI_PARSE_H_

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "runsc/oci/spec.h"

namespace moat::oci {

absl::StatusOr<Spec> ParseSpec(std::string_view json, std::vector<std::string>& warnings);
absl::StatusOr<Process> ParseProcess(std::string_view json, std::vector<std::string>& warnings);

// "CAP_CHOWN" -> 0; -1 when Linux has no such capability.
int CapabilityNumber(std::string_view name);
// "RLIMIT_NOFILE" -> RLIMIT_NOFILE; -1 when unknown.
int RlimitNumber(std::string_view name);

// A default config.json for `runsc spec`.
std::string DefaultSpecJson(bool rootless, uint32_t uid, uint32_t gid);
// A process as JSON, for the control channel of `exec`; ParseProcess reads it back.
std::string ProcessJson(const Process& process);

}  // namespace moat::oci

#endif  // MOAT_RUNSC_OCI_PARSE_H_
