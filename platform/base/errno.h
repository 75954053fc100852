// Linux error numbers as one type. The guest path carries Errno (or Result<T>); only the
// dispatcher turns one into a register value. Source: errno(3), include/linux/errno.h.
#ifndef MOAT_PLATFORM_BASE_ERRNO_H_
#define MOAT_PLATFORM_BASE_ERRNO_H_

#include <cerrno>
#include <cstdint>
#include <string_view>

namespace moat {

// The numeric values are Linux's. Write `Errno::kENOENT`, or the short alias `kENOENT` below.
enum class Errno : int32_t {
  kOK = 0,
#define MOAT_ERRNO(name) k##name = name,
#include "platform/base/errno.inc"
#undef MOAT_ERRNO
  // Kernel-internal restart codes (include/linux/errno.h); they never reach a guest register.
  kERESTARTSYS = 512,           // restart if SA_RESTART or no handler, else EINTR
  kERESTARTNOINTR = 513,        // always restart
  kERESTARTNOHAND = 514,        // restart if no handler ran, else EINTR
  kERESTART_RESTARTBLOCK = 516  // restart through restart_syscall(2), else EINTR
};

#define MOAT_ERRNO(name) inline constexpr Errno k##name = Errno::k##name;
#include "platform/base/errno.inc"
#undef MOAT_ERRNO
inline constexpr Errno kERESTARTSYS = Errno::kERESTARTSYS;
inline constexpr Errno kERESTARTNOINTR = Errno::kERESTARTNOINTR;
inline constexpr Errno kERESTARTNOHAND = Errno::kERESTARTNOHAND;
inline constexpr Errno kERESTART_RESTARTBLOCK = Errno::kERESTART_RESTARTBLOCK;

// "ENOENT" for kENOENT; "E?" for a value that Linux does not define.
std::string_view ErrnoName(Errno e);

// The calling thread's host errno. For the line right after a failed host call only.
inline Errno HostErrno() { return static_cast<Errno>(errno); }

}  // namespace moat

#endif  // MOAT_PLATFORM_BASE_ERRNO_H_
