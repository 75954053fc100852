// What the sandbox says of itself: uname(2)'s constants and the memory totals of sysinfo(2) and /proc/meminfo.
#ifndef MOAT_SENTRY_KERNEL_SYSTEM_INFO_H_
#define MOAT_SENTRY_KERNEL_SYSTEM_INFO_H_

#include <cstdint>
#include <string_view>

namespace moat {

class Kernel;

inline constexpr std::string_view kSystemName = "Linux";
// The Linux release whose interface we follow; programs compare it with what they need.
inline constexpr std::string_view kSystemRelease = "6.12.0-moat";
inline constexpr std::string_view kSystemRelease26 = "2.6.72-moat";  // under personality UNAME26
inline constexpr std::string_view kSystemVersion = "#1 SMP PREEMPT_DYNAMIC Moat";
inline constexpr std::string_view kSystemMachine = "x86_64";

// Bytes.
struct MemoryInfo {
  uint64_t total = 0, free = 0, available = 0;
  uint64_t anonymous = 0, page_cache = 0, shared = 0;
};
MemoryInfo ReadMemoryInfo(Kernel& kernel);

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_SYSTEM_INFO_H_
