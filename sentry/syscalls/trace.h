// The strace-like trace: how each argument type prints. Reads guest memory for strings only.
// Source: strace(1)'s conventions.
#ifndef MOAT_SENTRY_SYSCALLS_TRACE_H_
#define MOAT_SENTRY_SYSCALLS_TRACE_H_

#include <string>

#include "sentry/syscalls/argument_types.h"

namespace moat::trace {

void Append(Task& t, int64_t v, std::string& out);
void Append(Task& t, uint64_t v, std::string& out);
void AppendFd(Task& t, int32_t fd, std::string& out);
void AppendAddress(GuestAddr addr, std::string& out);
void AppendString(Task& t, GuestAddr addr, std::string& out);
void AppendFlags(uint64_t bits, const struct FlagName* names, size_t count, std::string& out);
void Append(Task& t, FdNum fd, std::string& out);
void Append(Task& t, DirFdNum fd, std::string& out);
void Append(Task& t, OpenFlagBits v, std::string& out);
void Append(Task& t, AtFlagBits v, std::string& out);
void Append(Task& t, ProtBits v, std::string& out);
void Append(Task& t, MapFlagBits v, std::string& out);
void Append(Task& t, CloneFlagBits v, std::string& out);
void Append(Task& t, FileMode v, std::string& out);
void Append(Task& t, SignalNum v, std::string& out);
void Append(Task& t, ClockNum v, std::string& out);
// "openat(AT_FDCWD, "/etc/passwd", O_RDONLY|O_CLOEXEC, 0) = 3", "... = -1 ENOENT".
void LogCall(Task& t, std::string_view call, int64_t result);

// Any other argument type.
template <typename T>
void AppendAny(Task& t, T v, std::string& out) {
  if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) {
    Append(t, static_cast<int64_t>(v), out);
  } else if constexpr (std::is_integral_v<T>) {
    Append(t, static_cast<uint64_t>(v), out);
  } else if constexpr (std::is_same_v<T, UserString>) {
    AppendString(t, v.addr(), out);
  } else if constexpr (std::is_enum_v<T>) {
    Append(t, v, out);
  } else {
    AppendAddress(v.addr(), out);
  }
}

}  // namespace moat::trace

#endif  // MOAT_SENTRY_SYSCALLS_TRACE_H_
