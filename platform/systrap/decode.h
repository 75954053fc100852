// Looks at code by decoding it: for room that is never executed, the padding behind ends of functions, and for single
// instructions.
#ifndef MOAT_PLATFORM_SYSTRAP_DECODE_H_
#define MOAT_PLATFORM_SYSTRAP_DECODE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace moat::systrap_platform {

// Whole instructions that only pad, next to each other.
struct Padding {
  size_t offset, length;  // bytes, in the code that was looked at
};

// Decodes `code`, whose first byte begins an instruction at guest address `address`: the padding (nop, int3) behind
// instructions that control does not pass (ret, jmp, ud2, hlt), in order, up to what is not understood. `code` may be
// anything. Thread-safe.
// The first call makes the decoder's tables, with host calls that the sentry has only before its lockdown.
std::vector<Padding> FindPaddings(std::span<const uint8_t> code, uint64_t address);

// The same way: the address behind each `cpuid`, up to what is not understood.
std::vector<uint64_t> FindCpuids(std::span<const uint8_t> code, uint64_t address);

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_DECODE_H_
