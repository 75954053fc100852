#include "platform/registry.h"

#include "platform/ptrace/ptrace_platform.h"
#include "platform/systrap/systrap_platform.h"

namespace moat {

const std::vector<PlatformInfo>& Platforms() {
  static const std::vector<PlatformInfo> platforms = {
      {"systrap", systrap_platform::WhyUnavailable, systrap_platform::Create},
      {"ptrace", ptrace_platform::WhyUnavailable, ptrace_platform::Create},
  };
  return platforms;
}

const PlatformInfo* FindPlatform(std::string_view name) {
  for (const PlatformInfo& p : Platforms()) {
    if (p.name == name) return &p;
  }
  return nullptr;
}

}  // namespace moat
