#include "runsc/gofer/devices.h"

#include <linux/magic.h>
#include <sys/statfs.h>

namespace moat::gofer {
namespace {

// Not in <linux/magic.h>.
constexpr uint64_t kConfigFsMagic = 0x62656570;
constexpr uint64_t kMqueueMagic = 0x19800202;

// File systems that show the host's kernel and processes rather than files.
bool IsKernelInterfaceType(uint64_t type) {
  switch (type) {
    case PROC_SUPER_MAGIC:
    case SYSFS_MAGIC:
    case CGROUP_SUPER_MAGIC:
    case CGROUP2_SUPER_MAGIC:
    case DEVPTS_SUPER_MAGIC:
    case DEBUGFS_MAGIC:
    case TRACEFS_MAGIC:
    case SECURITYFS_MAGIC:
    case SELINUX_MAGIC:
    case BPF_FS_MAGIC:
    case PSTOREFS_MAGIC:
    case EFIVARFS_MAGIC:
    case NSFS_MAGIC:
    case BINFMTFS_MAGIC:
    case kConfigFsMagic:
    case kMqueueMagic:
      return true;
  }
  return false;
}

// File systems whose directories list each name that can be looked up. Others have hidden ones (NFS and ZFS snapshots),
// make objects on lookup (autofs), or nobody knows (FUSE).
bool ListsEveryName(uint64_t type) {
  switch (type) {
    case EXT4_SUPER_MAGIC:
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case TMPFS_MAGIC:
    case OVERLAYFS_SUPER_MAGIC:
    case SQUASHFS_MAGIC:
    case EROFS_SUPER_MAGIC_V1:
      return true;
  }
  return false;
}

// statfs(2)'s f_type.
Result<uint64_t> TypeOf(int fd) {
  struct statfs st;
  if (fstatfs(fd, &st) != 0) return HostErrno();
  return static_cast<uint64_t>(st.f_type);
}

}  // namespace

Result<bool> Devices::IsKernelInterface(int fd, uint64_t device) {
  {
    MutexLock lock(mu_);
    if (auto it = kernel_interfaces_.find(device); it != kernel_interfaces_.end()) return it->second;
  }
  const bool is = IsKernelInterfaceType(TRY(TypeOf(fd)));
  MutexLock lock(mu_);
  kernel_interfaces_.emplace(device, is);
  return is;
}

Devices::Names Devices::NamesOf(int dir, uint64_t device) {
  {
    MutexLock lock(mu_);
    if (auto it = names_.find(device); it != names_.end()) return it->second;
  }
  Result<uint64_t> type = TypeOf(dir);
  if (!type.ok()) return {};
  MutexLock lock(mu_);
  return names_.emplace(device, Names{.all_listed = ListsEveryName(*type)}).first->second;
}

void Devices::NoteFolding(uint64_t device, bool folds) {
  MutexLock lock(mu_);
  Names& names = names_[device];
  names.tried = true;
  names.folds |= folds;
}

}  // namespace moat::gofer
