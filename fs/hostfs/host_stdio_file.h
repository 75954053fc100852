// Open descriptions of stdio descriptors: regular files, and streams (pipes, sockets, character devices).
#ifndef MOAT_FS_HOSTFS_HOST_STDIO_FILE_H_
#define MOAT_FS_HOSTFS_HOST_STDIO_FILE_H_

#include <sys/epoll.h>

#include <atomic>

#include "fs/hostfs/host_stdio_inode.h"
#include "fs/vfs/file.h"

namespace moat {

// A regular file: reads and writes move the offset that is shared with the caller of runsc. offset() is what this
// description knows of it: its own moves since LearnOffset.
class HostStdioRegularFile final : public File {
 public:
  HostStdioRegularFile(RefPtr<HostStdioInode> inode, const VfsPath& path, OpenFlags flags)
      : File(path, flags), inode_(std::move(inode)) {}
  Result<size_t> PRead(const VfsContext& ctx, IoDest& dst, int64_t offset) override;
  Result<size_t> PWrite(const VfsContext& ctx, IoSource& src, int64_t offset) override;
  Result<size_t> Read(const VfsContext& ctx, IoDest& dst) override;
  Result<size_t> Write(const VfsContext& ctx, IoSource& src) override;
  Result<int64_t> Seek(const VfsContext& ctx, int64_t offset, int whence) override;
  Result<void> Sync(bool data_only) override;
  Result<Kstat> GetAttr() override { return inode_->GetAttr(); }
  void LearnOffset();

 private:
  const RefPtr<HostStdioInode> inode_;
};

// The same file, opened again in the sandbox (/dev/stdout, /proc/self/fd/1): a description with an offset of its own.
class HostStdioReopenedFile final : public File {
 public:
  HostStdioReopenedFile(RefPtr<HostStdioInode> inode, const VfsPath& path, OpenFlags flags)
      : File(path, flags), inode_(std::move(inode)) {}
  Result<size_t> PRead(const VfsContext& ctx, IoDest& dst, int64_t offset) override;
  Result<size_t> PWrite(const VfsContext& ctx, IoSource& src, int64_t offset) override;
  Result<int64_t> Seek(const VfsContext& ctx, int64_t offset, int whence) override;
  Result<void> Sync(bool data_only) override { return inode_->SyncShared(data_only); }
  Result<Kstat> GetAttr() override { return inode_->GetAttr(); }

 private:
  const RefPtr<HostStdioInode> inode_;
};

// Anything that may have to wait. Polls through the host.
class HostStream : public File {
 public:
  HostStream(RefPtr<HostStdioInode> inode, const VfsPath& path, OpenFlags flags)
      : File(path, flags), inode_(std::move(inode)) {}
  Result<size_t> PRead(const VfsContext&, IoDest&, int64_t) override { return kESPIPE; }
  Result<size_t> PWrite(const VfsContext&, IoSource&, int64_t) override { return kESPIPE; }
  Result<size_t> Read(const VfsContext& ctx, IoDest& dst) override;
  Result<size_t> Write(const VfsContext& ctx, IoSource& src) override;
  Result<int64_t> Ioctl(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg) override;
  EventMask Poll(EventMask interest) override;
  bool SupportsEpoll() const override { return inode_->polled(); }
  WaitQueue& wait_queue() override { return inode_->wait_queue(); }
  // Each edge that the host reports is one signal; those about output come with the ones about input, so only these.
  EventMask AsyncEvents() const override { return inode_->polled() && readable() ? uint32_t{EPOLLIN} : 0; }
  Result<Kstat> GetAttr() override { return inode_->GetAttr(); }

 protected:
  HostStdioInode& host_inode() const { return *inode_; }
  int fd() const { return inode_->fd(); }

 private:
  const RefPtr<HostStdioInode> inode_;
  // False once the host answered that this file knows no RWF_NOWAIT.
  std::atomic<bool> nowait_read_{true}, nowait_write_{true};
};

}  // namespace moat

#endif  // MOAT_FS_HOSTFS_HOST_STDIO_FILE_H_
