// The portable platform: guest threads are stub threads under ptrace(2), PTRACE_SYSEMU. Works wherever a process may
// trace its own descendants.
#ifndef MOAT_PLATFORM_PTRACE_PTRACE_PLATFORM_H_
#define MOAT_PLATFORM_PTRACE_PTRACE_PLATFORM_H_

#include "platform/platform.h"

namespace moat::ptrace_platform {

// Empty when it works here.
std::string WhyUnavailable();
Result<std::unique_ptr<Platform>> Create(const PlatformOptions& options);

}  // namespace moat::ptrace_platform

#endif  // MOAT_PLATFORM_PTRACE_PTRACE_PLATFORM_H_
