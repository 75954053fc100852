// FileSystem: one mounted instance (Linux: super_block), and the registry of types for mount(2).
#ifndef MOAT_FS_VFS_FILESYSTEM_H_
#define MOAT_FS_VFS_FILESYSTEM_H_

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/vfs/dentry.h"
#include "fs/vfs/inode.h"

namespace moat {

// What open_by_handle_at(2) takes: opaque to everybody but the file system.
struct FileHandle {
  int32_t type = 0;
  std::string bytes;
};

class FileSystem : public RefCounted {
 public:
  // `rename_rank`: of rename_mutex(); only file systems that stand on others have one of their own.
  explicit FileSystem(std::string_view type_name, LockRank rename_rank = LockRank::kRename);
  ~FileSystem() override;
  // "tmpfs", "proc", ... as /proc/mounts shows it.
  std::string_view type_name() const { return type_name_; }
  DeviceId device() const { return device_; }  // anonymous: major 0
  virtual RefPtr<Inode> root() = 0;
  // The one dentry of root(), made on first use: every mount of this instance shares the dentry tree below it.
  RefPtr<Dentry> root_dentry();
  virtual Result<FsStat> StatFs() = 0;
  virtual Result<void> SyncAll() { return {}; }
  // Options after the generic ones in /proc/mounts ("size=64k,mode=755").
  virtual std::string ShowOptions() const { return {}; }
  // A handle of an inode of this file system; kEOPNOTSUPP without handles.
  virtual Result<FileHandle> EncodeHandle(const Inode& inode) { return kEOPNOTSUPP; }
  // The names that lead from the root to the file of a handle; kESTALE.
  virtual Result<std::vector<std::string>> DecodeHandle(const FileHandle& handle) { return kESTALE; }
  // False when names may change behind our back (procfs, shared host mounts): dentries are then looked up again.
  virtual bool caches_dentries() const { return true; }
  // Applies the options of mount(MS_REMOUNT) to the instance; kEINVAL for an option that it does not know.
  virtual Result<void> Reconfigure(std::string_view data) { return {}; }
  // False when nothing can be written whatever the flags say: a remount with MS_RDONLY off is EROFS.
  virtual bool can_be_written() const { return true; }
  // False for generated trees, whose look-ups take locks of the kernel that are outside of all others.
  virtual bool can_be_layer() const { return true; }
  // How many file systems stand below this one, one on the other (Linux: s_stack_depth, at most 2).
  virtual int stack_depth() const { return 0; }
  // False when an option that fsconfig(2) sets on the mounted instance is kEINVAL.
  virtual bool takes_new_options() const { return true; }
  // MS_RDONLY of the instance (as opposed to one mount of it): no call changes it while set.
  bool read_only() const { return read_only_.load(std::memory_order_relaxed); }
  void set_read_only(bool on) { read_only_.store(on, std::memory_order_relaxed); }
  // The user namespace that mounted it: its capabilities count for inodes in here. Null: the root namespace.
  void set_user_ns(RefPtr<UserNamespace> ns) { user_ns_ = std::move(ns); }
  UserNamespace* user_ns() const { return user_ns_.get(); }
  // Held by a rename between two directories.
  Mutex& rename_mutex() { return rename_mu_; }
  // Fresh inode numbers for file systems without their own.
  uint64_t NextIno() { return next_ino_.fetch_add(1, std::memory_order_relaxed); }

 protected:
  // Drops the dentry tree (whose inodes refer to this object) before the object goes.
  void OnLastUnref() override;

 private:
  std::string type_name_;
  DeviceId device_;
  std::atomic<bool> read_only_{false};
  RefPtr<UserNamespace> user_ns_;
  Mutex root_mu_{LockRank::kLeaf};
  RefPtr<Dentry> root_dentry_ ABSL_GUARDED_BY(root_mu_);
  Mutex rename_mu_;
  std::atomic<uint64_t> next_ino_{2};
};

// One option as fsconfig(2) sets it. `is_flag`: without a value; `place`: FSCONFIG_SET_FD.
struct MountParameter {
  std::string key, value = {};
  bool is_flag = false;
  VfsPath place = {};
};

// mount(2)'s arguments for a new instance.
struct MountRequest {
  std::string source;
  std::string data;    // "size=64k,mode=755"
  uint64_t flags = 0;  // MS_*
  // What `data` was made of, when fsconfig(2) set the options one by one: there no character separates them.
  std::vector<MountParameter> parameters = {};
};

class FileSystemType {
 public:
  virtual ~FileSystemType() = default;
  virtual std::string_view name() const = 0;
  virtual bool needs_device() const { return false; }          // "nodev" in /proc/filesystems when false
  virtual bool mountable_in_user_ns() const { return false; }  // FS_USERNS_MOUNT
  // fsconfig(2) answers at once whether it takes an option; Mount decides on all of them together.
  virtual Result<void> CheckParameter(const VfsContext& ctx, const MountParameter& p) { return {}; }
  virtual bool takes_descriptors() const { return false; }  // FSCONFIG_SET_FD
  virtual Result<RefPtr<FileSystem>> Mount(const VfsContext& ctx, const MountRequest& request) = 0;
};

}  // namespace moat

#endif  // MOAT_FS_VFS_FILESYSTEM_H_
