// What the run loop calls for a system call. The table of handlers is above sentry/kernel (sentry/syscalls), which
// installs itself at boot with InstallSyscallTable().
#ifndef MOAT_SENTRY_KERNEL_SYSCALL_ENTRY_H_
#define MOAT_SENTRY_KERNEL_SYSCALL_ENTRY_H_

namespace moat {

class Task;

using SyscallEntry = void (*)(Task& t);
extern SyscallEntry syscall_entry;

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_SYSCALL_ENTRY_H_
