// The one place that knows which platforms exist.
#ifndef MOAT_PLATFORM_REGISTRY_H_
#define MOAT_PLATFORM_REGISTRY_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "platform/platform.h"

namespace moat {

struct PlatformInfo {
  std::string_view name;
  // Empty when the platform works on this host; else one line that says why not.
  std::string (*why_unavailable)();
  Result<std::unique_ptr<Platform>> (*create)(const PlatformOptions& options);
};

// Best first.
const std::vector<PlatformInfo>& Platforms();
// Null when no platform has that name.
const PlatformInfo* FindPlatform(std::string_view name);

}  // namespace moat

#endif  // MOAT_PLATFORM_REGISTRY_H_
