// struct futex_waitv of futex_waitv(2) and the futex2 flags. Source: <linux/futex.h>.
#ifndef MOAT_PLATFORM_ABI_FUTEX_H_
#define MOAT_PLATFORM_ABI_FUTEX_H_

#include <cstdint>

namespace moat::abi {

struct FutexWaitv {
  uint64_t val;
  uint64_t uaddr;
  uint32_t flags;
  uint32_t reserved;
};
static_assert(sizeof(FutexWaitv) == 24);

inline constexpr uint32_t kFutex2SizeMask = 3;
inline constexpr uint32_t kFutex2SizeU32 = 2;
inline constexpr uint32_t kFutex2Numa = 4;
inline constexpr uint32_t kFutex2Private = 128;
inline constexpr uint32_t kFutexWaitvMax = 128;

}  // namespace moat::abi

#endif  // MOAT_PLATFORM_ABI_FUTEX_H_
