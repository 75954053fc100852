// Classic BPF as seccomp(2) has it: a checker and an interpreter over struct seccomp_data. No state; thread-safe.
// Source: seccomp(2), Documentation/networking/filter.rst.
#ifndef MOAT_SENTRY_KERNEL_BPF_H_
#define MOAT_SENTRY_KERNEL_BPF_H_

#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cstdint>
#include <span>
#include <vector>

#include "platform/base/result.h"

namespace moat {

// kEINVAL: an unknown or forbidden instruction, a jump out of the program, a load outside of seccomp_data, no return
// at the end, a division by the constant 0.
Result<void> CheckSeccompProgram(std::span<const sock_filter> program);

// What a checked program answers: SECCOMP_RET_* | data.
uint32_t RunSeccompProgram(std::span<const sock_filter> program, const seccomp_data& data);

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_BPF_H_
