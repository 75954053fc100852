// HostTty: a terminal of the host that the caller of runsc handed in. Line discipline, echo and editing are the
// host's; sessions and job control are the sandbox's own (fs/vfs/tty_job_control.h). Source: ioctl_tty(2).
#ifndef MOAT_FS_HOSTFS_HOST_TTY_H_
#define MOAT_FS_HOSTFS_HOST_TTY_H_

#include <atomic>
#include <vector>

#include "fs/hostfs/host_stdio_file.h"
#include "fs/vfs/tty_job_control.h"

namespace moat {

class HostTty final : public Tty {
 public:
  explicit HostTty(DeviceId device) : device_(device) {}
  DeviceId device() const override { return device_; }
  Result<RefPtr<File>> OpenAgain(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) override;
  // The host's terminal stays as it is for its other users; the sandbox sees it hung up.
  void Hangup() override;
  bool hung_up() const { return hung_up_.load(std::memory_order_acquire); }

  // The descriptors that /dev/tty opens: one of the terminal's that is still there. Held weakly: the inodes refer to
  // the terminal.
  void AddInode(HostStdioInode* inode);
  void InodeGone(HostStdioInode* inode);

 private:
  RefPtr<HostStdioInode> AnyInode();
  const DeviceId device_;
  std::atomic<bool> hung_up_{false};
  Mutex mu_{LockRank::kGofer};
  std::vector<HostStdioInode*> inodes_ ABSL_GUARDED_BY(mu_);
};

class HostTtyFile final : public HostStream {
 public:
  HostTtyFile(RefPtr<HostStdioInode> inode, RefPtr<HostTty> tty, const VfsPath& path, OpenFlags flags);
  Result<size_t> Read(const VfsContext& ctx, IoDest& dst) override;
  Result<size_t> Write(const VfsContext& ctx, IoSource& src) override;
  Result<int64_t> Ioctl(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg) override;
  EventMask Poll(EventMask interest) override;
  Tty* tty() const override { return tty_.get(); }

 private:
  Result<void> CheckChange(const VfsContext& ctx);
  // Copies a fixed-size structure between the guest and the host's ioctl.
  template <typename T>
  Result<int64_t> Get(GuestMemory& memory, uint32_t cmd, uint64_t arg);
  template <typename T>
  Result<int64_t> Set(GuestMemory& memory, uint32_t cmd, uint64_t arg);
  Result<int64_t> Act(uint32_t cmd, uint64_t arg);
  void LookAtTostop();

  const RefPtr<HostTty> tty_;
  std::atomic<bool> tostop_{false};  // as of the last look at the terminal's settings
};

}  // namespace moat

#endif  // MOAT_FS_HOSTFS_HOST_TTY_H_
