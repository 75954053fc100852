#include "sentry/loader/file_source.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "fs/vfs/permissions.h"

namespace moat {

std::string FileMappingSource::MapsName() const { return mounts_->PathName(file_->path(), mounts_->root()); }

FileExecutable::FileExecutable(const VfsContext& ctx, RefPtr<File> file, RefPtr<Inode> inode)
    : file_(std::move(file)),
      inode_(std::move(inode)),
      source_(MakeRef<FileMappingSource>(file_, RefPtr<MountNamespace>(&ctx.mounts))),
      cred_(&ctx.cred),
      mounts_(&ctx.mounts) {}

FileExecutable::~FileExecutable() { inode_->AllowWriteAccess(); }

Result<RefPtr<FileExecutable>> FileExecutable::Open(const VfsContext& ctx, const VfsPath& path) {
  RefPtr<Inode> inode = path.dentry->inode();
  if (!inode) return kENOENT;
  if (inode->type() != S_IFREG) return kEACCES;
  if ((path.mount->flags() & MS_NOEXEC) != 0) return kEACCES;
  TRY(inode->CheckPermission(ctx, kMayExec));
  RefPtr<File> file = TRY(inode->Open(ctx, path, OpenFlags{O_RDONLY | O_LARGEFILE}));
  TRY(inode->DenyWriteAccess());
  return AdoptRef(new FileExecutable(ctx, std::move(file), std::move(inode)));
}

Result<size_t> FileExecutable::Read(void* dst, size_t n, uint64_t offset) {
  if (offset > INT64_MAX) return kEINVAL;
  const VfsContext ctx{*cred_, *mounts_, mounts_->root(), mounts_->root()};
  BufferIoDest to(dst, n);
  size_t done = 0;
  while (done < n) {
    const size_t got = TRY(file_->PRead(ctx, to, static_cast<int64_t>(offset + done)));
    if (got == 0) break;
    done += got;
  }
  return done;
}

Result<RefPtr<ExecutableSource>> VfsExecutableOpener::OpenExecutable(std::string_view path) {
  const VfsPath place = TRY(vfs::Resolve(ctx_, ctx_.cwd, path));
  RefPtr<FileExecutable> file = TRY(FileExecutable::Open(ctx_, place));
  return RefPtr<ExecutableSource>(std::move(file));
}

}  // namespace moat
