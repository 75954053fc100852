// From a system call number and six registers to a typed handler and back.
#ifndef MOAT_SENTRY_SYSCALLS_DISPATCH_H_
#define MOAT_SENTRY_SYSCALLS_DISPATCH_H_

#include <cstdint>
#include <string>
#include <string_view>

#include "platform/base/result.h"
#include "platform/registers.h"
#include "sentry/syscalls/argument_types.h"

namespace moat {

enum class SyscallStatus : uint8_t { kImplemented, kPartial, kMissing };

struct SyscallInfo {
  std::string_view name;
  SyscallStatus status = SyscallStatus::kMissing;
  std::string_view note;
  Result<int64_t> (*invoke)(Task& t, const Registers& regs) = nullptr;
  // Appends "3</etc/passwd>, 0x7f.., 16" decoded by type; for --strace. Null for missing calls.
  void (*format)(Task& t, const Registers& regs, std::string& out) = nullptr;
  Errno missing_errno = kENOSYS;
};

inline constexpr int kSyscallTableSize = 480;

// Null for numbers outside the table and for gaps in it.
const SyscallInfo* FindSyscall(uint64_t number);

// Runs the call in `t`'s registers and sets the return register: the one place where an errno becomes a
// register. Restart codes are left to signal delivery (sentry/kernel/signal_delivery.cc): it finds them in the
// return register.
void InvokeSyscall(Task& t);

// Makes InvokeSyscall what the kernel's run loop calls. The kernel includes no handlers, so that every library can
// be built without them; whoever boots a Kernel calls this first.
void InstallSyscallTable();

}  // namespace moat

#endif  // MOAT_SENTRY_SYSCALLS_DISPATCH_H_
