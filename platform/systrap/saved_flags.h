// The arithmetic flags, as `lahf; seto %al` holds them in ax while a thunk or the trampoline uses them.
#ifndef MOAT_PLATFORM_SYSTRAP_SAVED_FLAGS_H_
#define MOAT_PLATFORM_SYSTRAP_SAVED_FLAGS_H_

#include <cstdint>

namespace moat::systrap_platform {

// `eflags` with the flags that were saved in `rax`.
inline uint64_t FlagsFromAx(uint64_t eflags, uint64_t rax) {
  constexpr uint64_t kLahfFlags = 0xd5, kOverflow = 1 << 11;
  const uint64_t al = rax & 0xff, ah = (rax >> 8) & 0xff;
  // `add $0x7f, %al` may have been executed already.
  const bool overflow = al == 1 || al == 0x80;
  return (eflags & ~(kLahfFlags | kOverflow)) | (ah & kLahfFlags) | (overflow ? kOverflow : 0);
}

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_SAVED_FLAGS_H_
