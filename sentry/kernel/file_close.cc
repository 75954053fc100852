#include "sentry/kernel/file_close.h"

#include <fcntl.h>

#include "fs/vfs/file_locks.h"
#include "sentry/kernel/directory_notify.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/task.h"

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

void UnshareFdTable(Task& t) {
  if (!t.fds().shared()) return;
  RefPtr<FdTable> own = t.fds().Clone();
  own->AddUser();
  RefPtr<FdTable> shared = t.fd_table();
  t.SetFdTable(std::move(own));
  if (!shared->DropUser()) return;
  Task::FsCall fs(t);  // the other users have gone meanwhile
  CloseFiles(fs, shared->RemoveAll());
}

}  // namespace moat
