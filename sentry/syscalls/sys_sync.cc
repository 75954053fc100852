// fsync(2), sync(2), sync_file_range(2), posix_fadvise(2), readahead(2).
#include <fcntl.h>

#include "fs/vfs/vfs.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/path_argument.h"

namespace moat {
namespace {

Result<int64_t> SyncFile(Task& t, FdNum fd, bool data_only) {
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  TRY(file->Sync(data_only));
  return 0;
}

bool HasPages(File& file) {
  uint32_t type = file.inode()->type();
  return type == S_IFREG || type == S_IFBLK;
}

}  // namespace

Result<int64_t> SysFsync(Task& t, FdNum fd) { return SyncFile(t, fd, false); }
Result<int64_t> SysFdatasync(Task& t, FdNum fd) { return SyncFile(t, fd, true); }

// Everything that the caller's descriptors and places reach; memory-backed file systems have nothing to write.
Result<int64_t> SysSync(Task& t) {
  Task::FsCall fs(t);
  (void)fs.ctx().root.mount->fs().SyncAll();
  (void)fs.ctx().cwd.mount->fs().SyncAll();
  return 0;
}

Result<int64_t> SysSyncfs(Task& t, FdNum fd) {
  TRY(TRY(t.GetFileNotPath(ToInt(fd)))->path().mount->fs().SyncAll());
  return 0;
}

Result<int64_t> SysSyncFileRange(Task& t, FdNum fd, int64_t offset, int64_t length, unsigned flags) {
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  constexpr unsigned kKnown = SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER;
  int64_t end;
  if ((flags & ~kKnown) || offset < 0 || length < 0 || __builtin_add_overflow(offset, length, &end)) return kEINVAL;
  if (!HasPages(*file) && !file->inode()->is_dir() && !file->inode()->is_symlink()) return kESPIPE;
  if (flags & SYNC_FILE_RANGE_WAIT_AFTER) TRY(file->Sync(true));
  return 0;
}

// Advice only: our caches need no hint, but the arguments are checked as Linux checks them.
Result<int64_t> SysFadvise64(Task& t, FdNum fd, int64_t, int64_t length, int advice) {
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  if (file->inode()->type() == S_IFIFO) return kESPIPE;
  if (length < 0 || advice < POSIX_FADV_NORMAL || advice > POSIX_FADV_NOREUSE) return kEINVAL;
  return 0;
}

Result<int64_t> SysReadahead(Task& t, FdNum fd, int64_t, size_t) {
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  if (!file->readable()) return kEBADF;
  if (!HasPages(*file)) return kEINVAL;
  return 0;
}

}  // namespace moat
