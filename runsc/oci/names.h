// Numbers to names: the inverse of parse.h's CapabilityNumber and RlimitNumber. Empty when unknown.
#ifndef MOAT_RUNSC_OCI_NAMES_H_
#define MOAT_RUNSC_OCI_NAMES_H_

#include <string_view>

namespace moat::oci {

std::string_view CapabilityName(int number);
std::string_view RlimitName(int number);

// "SCHED_RR" -> SCHED_RR; -1 when Linux has no such policy.
int SchedulerPolicyNumber(std::string_view name);
std::string_view SchedulerPolicyName(int number);

}  // namespace moat::oci

#endif  // MOAT_RUNSC_OCI_NAMES_H_
