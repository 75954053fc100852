// ptrace(2) at the guest boundary, x86-64. Source: <linux/ptrace.h>, <sys/user.h>;
// arch/x86/include/uapi/asm/ptrace-abi.h.
#ifndef MOAT_PLATFORM_ABI_PTRACE_H_
#define MOAT_PLATFORM_ABI_PTRACE_H_

#include <sys/ptrace.h>
#include <sys/user.h>

#include <cstddef>
#include <cstdint>

namespace moat::abi {

// Requests that Debian's <sys/ptrace.h> does not have.
inline constexpr int kPtraceOldSetOptions = 21;
inline constexpr int kPtraceGetThreadArea = 25;
inline constexpr int kPtraceSetThreadArea = 26;
inline constexpr int kPtraceArchPrctl = 30;
inline constexpr int kPtraceSysemu = 31;
inline constexpr int kPtraceSysemuSinglestep = 32;
inline constexpr int kPtraceGetSyscallInfo = 0x420e;
inline constexpr int kPtraceGetRseqConfiguration = 0x420f;
// PTRACE_GETEVENTMSG in syscall-stops.
inline constexpr uint64_t kEventMessageEntry = 1, kEventMessageExit = 2;

using PtraceSyscallInfo = struct __ptrace_syscall_info;
static_assert(sizeof(PtraceSyscallInfo) == 88);
using PeekSigInfoArgs = struct __ptrace_peeksiginfo_args;
using RseqConfiguration = struct __ptrace_rseq_configuration;
static_assert(sizeof(RseqConfiguration) == 24);

using UserRegs = struct ::user_regs_struct;
static_assert(sizeof(UserRegs) == 27 * 8);
// struct user of PTRACE_PEEKUSER; the kernel's has two words more than the C library's.
inline constexpr uint64_t kUserSize = sizeof(struct ::user) + 16;
static_assert(kUserSize == 928);
inline constexpr uint64_t kUserDebugRegisters = offsetof(struct ::user, u_debugreg);
inline constexpr int kDebugRegisters = 8;

}  // namespace moat::abi

#endif  // MOAT_PLATFORM_ABI_PTRACE_H_
