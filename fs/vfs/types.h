// Plain data of the VFS: attributes, attribute changes, file types, time stamps.
#ifndef MOAT_FS_VFS_TYPES_H_
#define MOAT_FS_VFS_TYPES_H_

#include <sys/stat.h>

#include <cstdint>
#include <optional>

#include "platform/cred/user_namespace.h"
#include "platform/fiber/clock.h"

namespace moat {

struct DeviceId {
  uint32_t major = 0, minor = 0;
  bool operator==(const DeviceId&) const = default;
};

// What statx(2) can report, in kernel ids. Times are nanoseconds since the epoch.
struct Kstat {
  uint64_t ino = 0;
  uint32_t mode = 0;  // S_IFMT | permissions
  uint32_t nlink = 1;
  Kuid uid = 0;
  Kgid gid = 0;
  DeviceId dev, rdev;
  uint64_t size = 0;
  uint64_t blocks = 0;  // of 512 bytes
  uint32_t blksize = 4096;
  Nanos atime = 0, mtime = 0, ctime = 0, btime = 0;
  bool has_btime = false;
  uint64_t mount_id = 0;    // filled in by the VFS
  bool mount_root = false;  // likewise
  uint64_t attributes = 0;  // STATX_ATTR_*
};

// A change of attributes (chmod, chown, truncate, utimensat); only what is set is changed.
struct AttrChange {
  std::optional<uint32_t> mode;  // permission bits, no type
  std::optional<Kuid> uid;
  std::optional<Kgid> gid;
  std::optional<uint64_t> size;
  std::optional<Nanos> atime, mtime;
  bool atime_now = false, mtime_now = false;
};

struct FsStat {  // statfs(2)
  uint64_t type = 0, block_size = 4096, blocks = 0, blocks_free = 0, blocks_available = 0;
  uint64_t files = 0, files_free = 0, fsid = 0, name_length = 255, flags = 0;
};

}  // namespace moat

#endif  // MOAT_FS_VFS_TYPES_H_
