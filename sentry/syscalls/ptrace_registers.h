// A stopped tracee's registers as ptrace(2) shows them: general ones, the USER area, and the sets of PTRACE_GETREGSET.
// Source: ptrace(2); arch/x86/kernel/ptrace.c and arch/x86/kernel/fpu/regset.c for what is refused how.
#ifndef MOAT_SENTRY_SYSCALLS_PTRACE_REGISTERS_H_
#define MOAT_SENTRY_SYSCALLS_PTRACE_REGISTERS_H_

#include <span>
#include <vector>

#include "platform/abi/ptrace.h"
#include "sentry/kernel/trace_request.h"

namespace moat {

// PTRACE_PEEKUSER and PTRACE_POKEUSER; `offset` into struct user. kEIO; kENOSPC: breakpoints of the CPU, which guests
// do not have.
Result<uint64_t> PeekUser(const StoppedTracee& tracee, uint64_t offset);
Result<void> PokeUser(const StoppedTracee& tracee, uint64_t offset, uint64_t value);

// A register set, NT_*. kEINVAL: no such set. The bytes of a set are as long as the set is.
Result<std::vector<uint8_t>> GetRegisterSet(const StoppedTracee& tracee, uint64_t type);
// `bytes` may be shorter where Linux takes a part. kEIO, kEINVAL, kEFAULT: not one that the CPU would take.
Result<void> SetRegisterSet(const StoppedTracee& tracee, uint64_t type, std::span<const uint8_t> bytes);

}  // namespace moat

#endif  // MOAT_SENTRY_SYSCALLS_PTRACE_REGISTERS_H_
