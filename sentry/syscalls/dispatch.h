// From a system call number and six registers to a typed handler and back.
#ifndef MOAT_SENTRY_SYSCALLS_DISPATCH_H_
#define MOAT_SENTRY_SYSCALLS_DISPATCH_H_

#include <cstdint>
#include <string_view>

#include "platform/base/result.h"
#include "platform/registers.h"
#include "platform/usermem/user_ptr.h"

namespace moat {

class Task;

// A file descriptor argument. Linux takes the low 32 bits.
enum class FdNum : int32_t {};
inline constexpr int32_t ToInt(FdNum fd) { return static_cast<int32_t>(fd); }

enum class SyscallStatus : uint8_t { kImplemented, kPartial, kMissing };

struct SyscallInfo {
  std::string_view name;
  SyscallStatus status = SyscallStatus::kMissing;
  std::string_view note;
  Result<int64_t> (*invoke)(Task& t, const Registers& regs) = nullptr;
  // Appends "fd=3, buf=0x7f.., count=16" decoded by type, and after the call what it wrote; for --strace.
  void (*format)(Task& t, const Registers& regs, std::string& out) = nullptr;
  Errno missing_errno = kENOSYS;
};

inline constexpr int kSyscallTableSize = 480;

// Null for numbers outside the table.
const SyscallInfo* FindSyscall(uint64_t number);

// Runs the call in `t`'s registers and sets the return register: the one place where an errno becomes a
// register. Restart codes are left to signal delivery (sentry/kernel/signal_delivery.cc).
void InvokeSyscall(Task& t);

}  // namespace moat

#endif  // MOAT_SENTRY_SYSCALLS_DISPATCH_H_
