// Socket structures at the guest boundary, x86-64. Source: socket(7), recvmsg(2), cmsg(3), unix(7).
#ifndef MOAT_PLATFORM_ABI_SOCKET_H_
#define MOAT_PLATFORM_ABI_SOCKET_H_

#include <cstdint>

namespace moat::abi {

struct Msghdr {
  uint64_t name;
  uint32_t name_length;
  uint32_t pad0;
  uint64_t iov;
  uint64_t iov_count;
  uint64_t control;
  uint64_t control_length;
  uint32_t flags;
  uint32_t pad1;
};
static_assert(sizeof(Msghdr) == 56);

struct Mmsghdr {
  Msghdr hdr;
  uint32_t length;
  uint32_t pad;
};
static_assert(sizeof(Mmsghdr) == 64);

struct Cmsghdr {
  uint64_t length;  // header included
  int32_t level;
  int32_t type;
};
static_assert(sizeof(Cmsghdr) == 16);
inline constexpr uint64_t CmsgAlign(uint64_t n) { return (n + 7) & ~uint64_t{7}; }

struct Ucred {
  int32_t pid;
  uint32_t uid;
  uint32_t gid;
};
static_assert(sizeof(Ucred) == 12);

inline constexpr uint16_t kSunPathMax = 108;
inline constexpr uint32_t kSockaddrMax = 128;  // sizeof(struct sockaddr_storage)

// Newer than some C libraries.
inline constexpr int kScmPidfd = 4;
inline constexpr int kSoPassPidfd = 76;
inline constexpr int kSoPeerPidfd = 77;

}  // namespace moat::abi

#endif  // MOAT_PLATFORM_ABI_SOCKET_H_
