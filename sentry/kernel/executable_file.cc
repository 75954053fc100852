#include "sentry/kernel/executable_file.h"

#include <fcntl.h>
#include <sys/mount.h>

#include <algorithm>
#include <cstring>

#include "fs/vfs/permissions.h"
#include "fs/vfs/vfs.h"

namespace moat {

namespace {

class VfsMappingSource final : public MappingSource {
 public:
  VfsMappingSource(RefPtr<File> file, RefPtr<MountNamespace> mounts, VfsPath root, RefPtr<RefCounted> denial)
      : file_(std::move(file)), mounts_(std::move(mounts)), root_(std::move(root)), denial_(std::move(denial)) {}
  std::string MapsName() const override { return mounts_->PathName(file_->path(), root_); }
  RefPtr<RefCounted> file() const override { return file_; }

 private:
  const RefPtr<File> file_;
  const RefPtr<MountNamespace> mounts_;
  const VfsPath root_;
  const RefPtr<RefCounted> denial_;
};

// While one exists the inode cannot be opened for writing.
class WriteDenial final : public RefCounted {
 public:
  static Result<RefPtr<WriteDenial>> Create(RefPtr<Inode> inode) {
    TRY(inode->DenyWriteAccess());
    return AdoptRef(new WriteDenial(std::move(inode)));
  }
  ~WriteDenial() override { inode_->AllowWriteAccess(); }

 private:
  explicit WriteDenial(RefPtr<Inode> inode) : inode_(std::move(inode)) {}
  const RefPtr<Inode> inode_;
};

}  // namespace

RefPtr<MappingSource> FileMappingSource(const VfsContext& ctx, RefPtr<File> file) {
  return MakeRef<VfsMappingSource>(std::move(file), RefPtr<MountNamespace>(&ctx.mounts), ctx.root, nullptr);
}

// The mappings hold the denial, so that it lasts as long as the program runs.
ExecutableFile::ExecutableFile(const VfsContext& ctx, RefPtr<File> file, RefPtr<RefCounted> denial)
    : file_(std::move(file)),
      mapping_source_(
          MakeRef<VfsMappingSource>(file_, RefPtr<MountNamespace>(&ctx.mounts), ctx.root, std::move(denial))),
      cred_(&ctx.cred),
      mounts_(&ctx.mounts) {}

Result<RefPtr<ExecutableFile>> ExecutableFile::Open(const VfsContext& ctx, const VfsPath& path) {
  RefPtr<Inode> inode = path.dentry->inode();
  if (!inode) return kENOENT;
  if (inode->type() != S_IFREG || (path.mount->flags() & MS_NOEXEC) != 0) return kEACCES;
  TRY(inode->CheckPermission(ctx, kMayExec));
  RefPtr<WriteDenial> denial = TRY(WriteDenial::Create(inode));
  // Execution needs no permission to read, so the inode opens the file itself.
  RefPtr<File> file = TRY(inode->Open(ctx, path, OpenFlags{O_RDONLY}));
  return AdoptRef(new ExecutableFile(ctx, std::move(file), std::move(denial)));
}

Result<size_t> ExecutableFile::Read(void* dst, size_t n, uint64_t offset) {
  if (offset >= kHead || n > kHead - offset) return ReadFile(dst, n, offset);
  if (head_.empty()) {
    std::vector<std::byte> head(kHead);
    head.resize(TRY(ReadFile(head.data(), head.size(), 0)));
    head_ = std::move(head);
  }
  if (offset >= head_.size()) return 0;
  n = std::min(n, head_.size() - offset);
  memcpy(dst, head_.data() + offset, n);
  return n;
}

Result<size_t> ExecutableFile::ReadFile(void* dst, size_t n, uint64_t offset) {
  VfsContext ctx{*cred_, *mounts_, {}, {}};
  size_t done = 0;
  while (done < n) {
    BufferIoDest dest(static_cast<std::byte*>(dst) + done, n - done);
    size_t got = TRY(file_->PRead(ctx, dest, static_cast<int64_t>(offset + done)));
    if (got == 0) break;
    done += got;
  }
  return done;
}

Result<RefPtr<ExecutableSource>> VfsExecutableOpener::OpenExecutable(std::string_view path) {
  VfsPath place = TRY(vfs::Resolve(ctx_, ctx_.cwd, path));
  return RefPtr<ExecutableSource>(TRY(ExecutableFile::Open(ctx_, place)));
}

}  // namespace moat
