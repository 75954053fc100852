// The fast platform: guest threads are stub threads under seccomp user notification with SYNC_WAKE_UP, so that a guest
// call is a hand-over of one CPU between two host threads. Needs Linux 6.17 and the FSGSBASE instructions.
#ifndef MOAT_PLATFORM_SYSTRAP_SYSTRAP_PLATFORM_H_
#define MOAT_PLATFORM_SYSTRAP_SYSTRAP_PLATFORM_H_

#include "platform/platform.h"

namespace moat::systrap_platform {

// Empty when it works here.
std::string WhyUnavailable();
Result<std::unique_ptr<Platform>> Create(const PlatformOptions& options);

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_SYSTRAP_PLATFORM_H_
