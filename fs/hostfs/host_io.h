// Reads and writes on host descriptors, straight from and into the caller's memory.
#ifndef MOAT_FS_HOSTFS_HOST_IO_H_
#define MOAT_FS_HOSTFS_HOST_IO_H_

#include <cstdint>

#include "platform/base/result.h"
#include "platform/usermem/io.h"

namespace moat {

// Where HostRead and HostWrite do their work: at an offset, or (kCurrent) at the descriptor's own position.
inline constexpr int64_t kCurrent = -1;

// Reads until `dst` is full, the file ends or fewer bytes come than asked. `flags`: RWF_*. An error after the first
// byte is a short count.
Result<size_t> HostRead(int fd, IoDest& dst, int64_t offset, int flags);
// Writes until `src` is empty or fewer bytes go than offered. With RWF_APPEND the offset does not matter.
Result<size_t> HostWrite(int fd, IoSource& src, int64_t offset, int flags);

}  // namespace moat

#endif  // MOAT_FS_HOSTFS_HOST_IO_H_
