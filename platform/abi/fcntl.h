// struct flock and f_owner_ex at the guest boundary. Source: fcntl(2).
#ifndef MOAT_PLATFORM_ABI_FCNTL_H_
#define MOAT_PLATFORM_ABI_FCNTL_H_

#include <cstdint>

namespace moat::abi {

struct Flock {
  int16_t type;
  int16_t whence;
  uint32_t pad;
  int64_t start;
  int64_t length;
  int32_t pid;
  uint32_t pad2;
};
static_assert(sizeof(Flock) == 32);

struct FOwnerEx {
  int32_t type;
  int32_t pid;
};

}  // namespace moat::abi

#endif  // MOAT_PLATFORM_ABI_FCNTL_H_
