// Open descriptions of host files: regular files work on the inode's donated descriptor, directories on listings
// that the gofer reads. Source: open(2), pread(2), pwrite(2), getdents(2), lseek(2).
#ifndef MOAT_FS_HOSTFS_HOST_FILE_H_
#define MOAT_FS_HOSTFS_HOST_FILE_H_

#include <memory>

#include "fs/hostfs/host_inode.h"
#include "fs/vfs/file.h"

namespace moat {

class HostRegularFile final : public File {
 public:
  HostRegularFile(RefPtr<HostInode> inode, const VfsPath& path, OpenFlags flags)
      : File(path, flags), inode_(std::move(inode)) {
    inode_->FileOpened();
  }
  ~HostRegularFile() override { inode_->FileClosed(); }

  Result<size_t> PRead(const VfsContext& ctx, IoDest& dst, int64_t offset) override;
  Result<size_t> PWrite(const VfsContext& ctx, IoSource& src, int64_t offset) override;
  Result<size_t> Read(const VfsContext& ctx, IoDest& dst) override;
  // O_APPEND is the host's own atomic append.
  Result<size_t> Write(const VfsContext& ctx, IoSource& src) override;
  Result<int64_t> Seek(const VfsContext& ctx, int64_t offset, int whence) override;
  Result<int64_t> FindExtent(const VfsContext& ctx, int64_t offset, int whence) override;
  Result<void> Allocate(const VfsContext& ctx, int mode, int64_t offset, int64_t length) override;
  Result<void> Sync(bool data_only) override;
  Result<Kstat> GetAttr() override { return inode_->GetAttr(); }
  Result<RefPtr<Mappable>> GetMappable() override { return inode_->GetMappable(); }

 private:
  // Writes at the end; `end` is the offset after the bytes.
  Result<size_t> Append(const VfsContext& ctx, IoSource& src, uint64_t& end);
  const RefPtr<HostInode> inode_;
};

class HostDirectory final : public File {
 public:
  HostDirectory(RefPtr<HostInode> inode, const VfsPath& path, OpenFlags flags)
      : File(path, flags), inode_(std::move(inode)) {}

  // Positions are the host's own cookies: they stay right while names come and go.
  Result<void> ReadDir(const VfsContext& ctx, DirEntrySink& sink) override;
  Result<int64_t> Seek(const VfsContext& ctx, int64_t offset, int whence) override;
  Result<void> Sync(bool data_only) override;
  Result<size_t> PRead(const VfsContext&, IoDest&, int64_t) override { return kEISDIR; }
  Result<Kstat> GetAttr() override { return inode_->GetAttr(); }

 private:
  // Entries that follow one another, beginning at cookie `start`.
  struct Piece {
    int64_t start = 0;
    std::shared_ptr<const HostInode::Listing> entries;
    bool at_end = false;
  };
  // The piece that holds what follows `cookie`, and where in it.
  Result<Piece> PieceAt(int64_t cookie, size_t& index);
  Result<Piece> ReadWhole();
  static bool FindIn(const Piece& piece, int64_t cookie, size_t& index);

  const RefPtr<HostInode> inode_;
  Mutex mu_{LockRank::kGofer};        // directories are also listed with directory locks held
  Piece piece_ ABSL_GUARDED_BY(mu_);  // where the last call stopped
};

}  // namespace moat

#endif  // MOAT_FS_HOSTFS_HOST_FILE_H_
