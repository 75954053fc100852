// Structures of listmount(2) and statmount(2), and constants that Debian's <linux/mount.h> does not have yet.
#ifndef MOAT_PLATFORM_ABI_MOUNT_H_
#define MOAT_PLATFORM_ABI_MOUNT_H_

#include <cstddef>
#include <cstdint>

namespace moat::abi {

struct MntIdReq {
  uint32_t size;
  uint32_t mnt_ns_fd;
  uint64_t mnt_id;
  uint64_t param;
  uint64_t mnt_ns_id;
};
static_assert(sizeof(MntIdReq) == 32);
inline constexpr size_t kMntIdReqSizeVer0 = 24;

// Strings follow; their fields are offsets from the end of the structure, 0 that of an empty string.
struct Statmount {
  uint32_t size;
  uint32_t mnt_opts;
  uint64_t mask;
  uint32_t sb_dev_major, sb_dev_minor;
  uint64_t sb_magic;
  uint32_t sb_flags;
  uint32_t fs_type;
  uint64_t mnt_id, mnt_parent_id;
  uint32_t mnt_id_old, mnt_parent_id_old;
  uint64_t mnt_attr;
  uint64_t mnt_propagation, mnt_peer_group, mnt_master, propagate_from;
  uint32_t mnt_root, mnt_point;
  uint64_t mnt_ns_id;
  uint32_t fs_subtype, sb_source;
  uint32_t opt_num, opt_array, opt_sec_num, opt_sec_array;
  uint64_t supported_mask;
  uint32_t mnt_uidmap_num, mnt_uidmap, mnt_gidmap_num, mnt_gidmap;
  uint64_t spare2[43];
};
static_assert(offsetof(Statmount, mnt_root) == 0x68);
static_assert(offsetof(Statmount, supported_mask) == 0x90);
static_assert(sizeof(Statmount) == 512);

enum StatmountMask : uint64_t {
  kStatmountSbBasic = 0x1,
  kStatmountMntBasic = 0x2,
  kStatmountPropagateFrom = 0x4,
  kStatmountMntRoot = 0x8,
  kStatmountMntPoint = 0x10,
  kStatmountFsType = 0x20,
  kStatmountMntNsId = 0x40,
  kStatmountMntOpts = 0x80,
  kStatmountFsSubtype = 0x100,
  kStatmountSbSource = 0x200,
  kStatmountOptArray = 0x400,
  kStatmountOptSecArray = 0x800,
  kStatmountSupportedMask = 0x1000,
  kStatmountMntUidmap = 0x2000,
  kStatmountMntGidmap = 0x4000,
};

inline constexpr uint64_t kLsmtRoot = ~uint64_t{0};  // listmount(2): the root mount
inline constexpr unsigned kListmountReverse = 1;

}  // namespace moat::abi

#endif  // MOAT_PLATFORM_ABI_MOUNT_H_
