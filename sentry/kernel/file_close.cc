#include "sentry/kernel/file_close.h"

#include <fcntl.h>

#include "fs/vfs/file_locks.h"
#include "sentry/kernel/directory_notify.h"

namespace moat {

Result<void> CloseFile(const VfsContext& ctx, RefPtr<File> file) {
  if ((file->flags() & O_PATH) != 0) return {};
  Result<void> flushed = file->Flush(ctx);
  directory_notify::Forget(*file, ctx.pid);
  if (RefPtr<Inode> inode = file->inode()) {
    if (FileLockList* locks = inode->locks_if_any()) locks->ReleaseProcess(ctx.pid);
  }
  return flushed;
}

void CloseFiles(const VfsContext& ctx, std::vector<RefPtr<File>> files) {
  for (RefPtr<File>& f : files) (void)CloseFile(ctx, std::move(f));
}

}  // namespace moat
