// Descriptors: close(2), close_range(2), dup(2), ioctl(2).
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "fs/vfs/vfs.h"
#include "sentry/kernel/async_io.h"
#include "sentry/kernel/file_close.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/syscalls/handlers.h"

namespace moat {
namespace {

uint64_t DescriptorLimit(Task& t) { return t.thread_group().rlimits().Soft(RLIMIT_NOFILE); }

}  // namespace

Result<int64_t> SysClose(Task& t, FdNum fd) {
  RefPtr<File> file = t.fds().Remove(ToInt(fd));
  if (!file) return kEBADF;
  Task::FsCall fs(t);
  TRY(CloseFile(fs, std::move(file)));
  return 0;
}

Result<int64_t> SysCloseRange(Task& t, unsigned first, unsigned last, unsigned flags) {
  if ((flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC)) || first > last) return kEINVAL;
  if (flags & CLOSE_RANGE_UNSHARE) UnshareFdTable(t);
  if (flags & CLOSE_RANGE_CLOEXEC) {
    t.fds().SetCloexecRange(first, last);
    return 0;
  }
  Task::FsCall fs(t);
  for (RefPtr<File>& file : t.fds().RemoveRange(first, last)) (void)CloseFile(fs, std::move(file));
  return 0;
}

Result<int64_t> SysDup(Task& t, FdNum fd) { return TRY(t.InstallFd(TRY(t.GetFile(ToInt(fd))), /*cloexec=*/false)); }

Result<int64_t> SysDup3(Task& t, FdNum old_fd, FdNum new_fd, int flags) {
  if ((flags & ~O_CLOEXEC) || old_fd == new_fd) return kEINVAL;
  if (ToInt(new_fd) < 0 || static_cast<uint64_t>(ToInt(new_fd)) >= DescriptorLimit(t)) return kEBADF;
  RefPtr<File> file = TRY(t.GetFile(ToInt(old_fd)));
  RefPtr<File> replaced =
      TRY(t.fds().InstallAt(ToInt(new_fd), std::move(file), (flags & O_CLOEXEC) != 0, DescriptorLimit(t)));
  if (replaced) {
    Task::FsCall fs(t);
    (void)CloseFile(fs, std::move(replaced));
  }
  return ToInt(new_fd);
}

Result<int64_t> SysDup2(Task& t, FdNum old_fd, FdNum new_fd) {
  if (old_fd != new_fd) return SysDup3(t, old_fd, new_fd, 0);
  TRY(t.GetFile(ToInt(old_fd)));
  return ToInt(new_fd);
}

namespace {

// ioctl_ficlonerange(2): Linux's checks; then no file system of ours shares extents.
Result<int64_t> Clone(Task& t, File& out, int in_fd) {
  RefPtr<File> in = TRY(t.GetFileNotPath(in_fd));
  RefPtr<Inode> from = in->inode(), to = out.inode();
  if (&from->fs() != &to->fs()) return kEXDEV;
  if (from->is_dir() || to->is_dir()) return kEISDIR;
  if (from->type() != S_IFREG || to->type() != S_IFREG) return kEINVAL;
  if (!in->readable() || !out.writable() || (out.flags() & O_APPEND) != 0) return kEBADF;
  return kEOPNOTSUPP;
}

}  // namespace

Result<int64_t> SysIoctl(Task& t, FdNum fd, uint32_t cmd, uint64_t arg) {
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  switch (cmd) {
    case FIOCLEX:
    case FIONCLEX:
      TRY(t.fds().SetCloexec(ToInt(fd), cmd == FIOCLEX));
      return 0;
    case FIONBIO:
      TRY(file->SetStatusFlags(TRY(UserIn<int>(arg).Read(t.memory())) != 0 ? file->flags() | O_NONBLOCK
                                                                           : file->flags() & ~O_NONBLOCK));
      return 0;
    case FIOASYNC: {
      const bool on = TRY(UserIn<int>(arg).Read(t.memory())) != 0;
      if (on != ((file->flags() & O_ASYNC) != 0) && file->AsyncEvents() == 0) return kENOTTY;
      TRY(async_io::SetAsync(t, *file, ToInt(fd), on));
      return 0;
    }
    case FIOSETOWN:
    case SIOCSPGRP:
      if (file->inode()->type() != S_IFSOCK) break;
      TRY(async_io::SetOwnerByNumber(t, *file, TRY(UserIn<int32_t>(arg).Read(t.memory()))));
      return 0;
    case FIOGETOWN:
    case SIOCGPGRP:
      if (file->inode()->type() != S_IFSOCK) break;
      TRY(UserOut<int32_t>(arg).Write(t.memory(), async_io::OwnerNumber(t, *file)));
      return 0;
    case FIOQSIZE: {
      uint32_t type = file->inode()->type();
      if (type != S_IFREG && type != S_IFDIR && type != S_IFLNK) return kENOTTY;
      TRY(UserOut<int64_t>(arg).Write(t.memory(), static_cast<int64_t>(TRY(file->GetAttr()).size)));
      return 0;
    }
    case FIONREAD: {
      if (file->inode()->type() != S_IFREG) break;
      int64_t left = static_cast<int64_t>(TRY(file->GetAttr()).size) - file->offset();
      TRY(UserOut<int>(arg).Write(t.memory(), static_cast<int>(left)));
      return 0;
    }
    case TIOCGPTPEER: {
      Task::FsCall fs(t);
      RefPtr<File> peer = TRY(file->OpenPeer(fs, static_cast<int>(arg)));
      return TRY(t.InstallFd(std::move(peer), (arg & O_CLOEXEC) != 0));
    }
    case FICLONE:
      return Clone(t, *file, static_cast<int>(arg));
    case FICLONERANGE:
      return Clone(t, *file, static_cast<int>(TRY(UserIn<file_clone_range>(arg).Read(t.memory())).src_fd));
    case FIGETBSZ: {
      const uint64_t size = TRY(file->inode()->fs().StatFs()).block_size;
      TRY(UserOut<int32_t>(arg).Write(t.memory(), static_cast<int32_t>(size)));
      return 0;
    }
    case FS_IOC_FIEMAP:
      if (file->inode()->type() != S_IFREG && file->inode()->type() != S_IFDIR) break;
      return kEOPNOTSUPP;  // no file system of ours tells where its data are
    default:
      break;
  }
  Task::FsCall fs(t);
  return file->Ioctl(fs, t.memory(), cmd, arg);
}

}  // namespace moat
