// A thread that is interrupted in the thunk of a `cpuid`, or in systrap_cpuid, has lost the registers that the
// instruction overwrites: the guest finds the instruction done.
#ifndef MOAT_PLATFORM_SYSTRAP_CPUID_SITE_H_
#define MOAT_PLATFORM_SYSTRAP_CPUID_SITE_H_

#include <sys/user.h>

#include <cstdint>

#include "platform/systrap/layout.h"

namespace moat::systrap_platform {

// Whether `rip` is in systrap_cpuid.
bool InCpuidCode(uint64_t rip);
// Of a thread there: does the instruction to all registers but rip, and answers the site, which may be any number. What
// the guest has forged only fools itself.
uint32_t FinishCpuid(user_regs_struct& regs, const Area& area);
// Of a thread at `offset` of the thunk of a site that loads `leaf`, if it is `numbered`.
void FinishCpuidThunk(user_regs_struct& regs, uint64_t offset, uint32_t leaf);
// The instruction itself: for `regs` before it.
void DoCpuid(user_regs_struct& regs);

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_CPUID_SITE_H_
