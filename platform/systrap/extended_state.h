// The extended state of a guest thread as signal frames hold it: XSAVE's standard form, closed by FP_XSTATE_MAGIC2.
// Source: Intel SDM vol. 1 ch. 13; the kernel's <asm/sigcontext.h>.
#ifndef MOAT_PLATFORM_SYSTRAP_EXTENDED_STATE_H_
#define MOAT_PLATFORM_SYSTRAP_EXTENDED_STATE_H_

#include <cstddef>

#include "platform/base/result.h"
#include "platform/registers.h"

namespace moat::systrap_platform {

// Bytes of the state proper. 0: this CPU has no XSAVE.
size_t ExtendedStateSize();
// What execve leaves.
ExtendedState InitialExtendedState();
// Makes `state` what the kernel's rt_sigreturn reads: adds the software-reserved bytes and the closing magic.
// kEINVAL: the CPU would not accept it.
Result<void> PrepareForFrame(ExtendedState& state);

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_EXTENDED_STATE_H_
