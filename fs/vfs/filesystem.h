// FileSystem: one mounted instance (Linux: super_block), and the registry of types for mount(2).
#ifndef MOAT_FS_VFS_FILESYSTEM_H_
#define MOAT_FS_VFS_FILESYSTEM_H_

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/vfs/inode.h"

namespace moat {

class FileSystem : public RefCounted {
 public:
  explicit FileSystem(std::string_view type_name);
  ~FileSystem() override;
  // "tmpfs", "proc", ... as /proc/mounts shows it.
  std::string_view type_name() const { return type_name_; }
  DeviceId device() const { return device_; }  // anonymous: major 0
  virtual RefPtr<Inode> root() = 0;
  virtual Result<FsStat> StatFs() = 0;
  virtual Result<void> SyncAll() { return {}; }
  // Options after the generic ones in /proc/mounts ("size=64k,mode=755").
  virtual std::string ShowOptions() const { return {}; }
  // False when names may change behind our back (procfs, shared host mounts): dentries are then looked up again.
  virtual bool caches_dentries() const { return true; }
  // May a user namespace other than the root own a mount of it.
  Mutex& rename_mutex() { return rename_mu_; }
  // Fresh inode numbers for file systems without their own.
  uint64_t NextIno() { return next_ino_.fetch_add(1, std::memory_order_relaxed); }

 private:
  std::string type_name_;
  DeviceId device_;
  Mutex rename_mu_{LockRank::kRename};
  std::atomic<uint64_t> next_ino_{2};
};

// mount(2)'s arguments for a new instance.
struct MountRequest {
  std::string source;
  std::string data;  // "size=64k,mode=755"
  uint64_t flags = 0;  // MS_*
};

class FileSystemType {
 public:
  virtual ~FileSystemType() = default;
  virtual std::string_view name() const = 0;
  virtual bool needs_device() const { return false; }        // "nodev" in /proc/filesystems when false
  virtual bool mountable_in_user_ns() const { return false; }  // FS_USERNS_MOUNT
  virtual Result<RefPtr<FileSystem>> Mount(const VfsContext& ctx, const MountRequest& request) = 0;
};

}  // namespace moat

#endif  // MOAT_FS_VFS_FILESYSTEM_H_
