#include "sentry/kernel/executable_file.h"

#include <fcntl.h>
#include <sys/mount.h>

#include "fs/vfs/permissions.h"
#include "fs/vfs/vfs.h"

namespace moat {

namespace {

class VfsMappingSource final : public MappingSource {
 public:
  VfsMappingSource(RefPtr<File> file, RefPtr<MountNamespace> mounts, VfsPath root)
      : file_(std::move(file)), mounts_(std::move(mounts)), root_(std::move(root)) {}
  std::string MapsName() const override { return mounts_->PathName(file_->path(), root_); }

 private:
  const RefPtr<File> file_;
  const RefPtr<MountNamespace> mounts_;
  const VfsPath root_;
};

}  // namespace

RefPtr<MappingSource> FileMappingSource(const VfsContext& ctx, RefPtr<File> file) {
  return MakeRef<VfsMappingSource>(std::move(file), RefPtr<MountNamespace>(&ctx.mounts), ctx.root);
}

ExecutableFile::ExecutableFile(const VfsContext& ctx, RefPtr<File> file)
    : file_(std::move(file)), mapping_source_(FileMappingSource(ctx, file_)), cred_(&ctx.cred), mounts_(&ctx.mounts) {}

ExecutableFile::~ExecutableFile() { file_->inode()->AllowWriteAccess(); }

Result<RefPtr<ExecutableFile>> ExecutableFile::Open(const VfsContext& ctx, const VfsPath& path) {
  RefPtr<Inode> inode = path.dentry->inode();
  if (!inode) return kENOENT;
  if (inode->type() != S_IFREG || (path.mount->flags() & MS_NOEXEC) != 0) return kEACCES;
  TRY(inode->CheckPermission(ctx, kMayExec));
  TRY(inode->DenyWriteAccess());
  // Execution needs no permission to read, so the inode opens the file itself.
  Result<RefPtr<File>> file = inode->Open(ctx, path, OpenFlags{O_RDONLY});
  if (!file.ok()) {
    inode->AllowWriteAccess();
    return file.error();
  }
  return AdoptRef(new ExecutableFile(ctx, std::move(*file)));
}

Result<size_t> ExecutableFile::Read(void* dst, size_t n, uint64_t offset) {
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
