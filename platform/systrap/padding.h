// Finds room in code that is never executed: the padding behind a function's end.
#ifndef MOAT_PLATFORM_SYSTRAP_PADDING_H_
#define MOAT_PLATFORM_SYSTRAP_PADDING_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace moat::systrap_platform {

// Decodes `code`, whose first byte begins an instruction at guest address `address`, up to the first instruction that
// control does not pass (ret, jmp, ud2, hlt) and on through padding (nop, int3). Offset of `length` bytes of padding,
// or nullopt: too little, or something that is not understood. `code` may be anything. Thread-safe.
// The first call makes the decoder's tables, with host calls that the sentry has only before its lockdown.
std::optional<size_t> FindPadding(std::span<const uint8_t> code, uint64_t address, size_t length);

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_PADDING_H_
