// The pseudo inode of a stdio descriptor: owns the host descriptor. See host_stdio.h.
#ifndef MOAT_FS_HOSTFS_HOST_STDIO_INODE_H_
#define MOAT_FS_HOSTFS_HOST_STDIO_INODE_H_

#include "fs/hostfs/gofer_client.h"
#include "fs/vfs/filesystem.h"
#include "fs/vfs/tty_job_control.h"

namespace moat {

class HostStdioFs final : public FileSystem {
 public:
  HostStdioFs() : FileSystem("hoststdio") {}
  RefPtr<Inode> root() override { return nullptr; }
  Result<FsStat> StatFs() override { return kENOSYS; }
  // The one instance; never destroyed.
  static HostStdioFs& Get();
};

class HostStdioInode final : public Inode {
 public:
  enum class Kind { kRegular, kSocket, kTerminal, kStream };

  // `st`: what fstat said of `fd`; `handle`: the gofer's copy, 0 without one.
  HostStdioInode(ScopedFd fd, Kind kind, const Kstat& st, int access_mode, gofer::Handle handle,
                 RefPtr<GoferClient> gofer, RefPtr<Tty> tty);

  int fd() const { return fd_.get(); }
  Kind kind() const { return kind_; }
  Tty* tty() const { return tty_.get(); }
  // False for what the host calls always ready.
  bool polled() const { return polled_; }
  // Notified of the descriptor's readiness: the poller knows a descriptor once, whatever descriptions it has here.
  WaitQueue& wait_queue() { return wait_queue_; }

  Result<Kstat> GetAttr() override;
  // Sizes of regular files change on the host; other changes stay in the sandbox.
  Result<void> SetAttr(const VfsContext& ctx, const AttrChange& change) override;
  bool opens_itself() const override { return true; }
  Result<RefPtr<File>> Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) override;

  // Regular files: mapped on the caller's own descriptor.
  Result<RefPtr<Mappable>> GetMappable() override;
  int access_mode() const { return access_mode_; }

  Result<int64_t> SeekShared(int64_t offset, int whence);
  Result<void> SyncShared(bool data_only);

 private:
  ~HostStdioInode() override;
  const ScopedFd fd_;
  const Kind kind_;
  const int access_mode_;  // O_RDONLY, O_WRONLY, O_RDWR: of the host's description
  const gofer::Handle handle_;
  const RefPtr<GoferClient> gofer_;
  const RefPtr<Tty> tty_;
  WaitQueue wait_queue_;
  bool polled_ = false;  // constant after construction
  Mutex mu_{LockRank::kInode};
  Kstat attr_ ABSL_GUARDED_BY(mu_);
};

}  // namespace moat

#endif  // MOAT_FS_HOSTFS_HOST_STDIO_INODE_H_
