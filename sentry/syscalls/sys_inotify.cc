// inotify(7). fanotify is not there: its calls answer ENOSYS (syscalls.inc).
#include <sys/inotify.h>

#include "fs/anon/inotify.h"
#include "fs/vfs/vfs.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/handlers.h"

namespace moat {
namespace {

Result<RefPtr<File>> GetInotify(Task& t, FdNum fd, InotifyFile** inotify) {
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  *inotify = dynamic_cast<InotifyFile*>(file.get());
  if (*inotify == nullptr) return kEINVAL;
  return file;
}

}  // namespace

Result<int64_t> SysInotifyInit1(Task& t, int flags) {
  if (flags & ~(IN_CLOEXEC | IN_NONBLOCK)) return kEINVAL;
  return TRY(t.InstallFd(MakeRef<InotifyFile>(flags), (flags & IN_CLOEXEC) != 0));
}

Result<int64_t> SysInotifyInit(Task& t) { return SysInotifyInit1(t, 0); }

Result<int64_t> SysInotifyAddWatch(Task& t, FdNum fd, UserString path, uint32_t mask) {
  constexpr uint32_t kKnown = IN_ALL_EVENTS | IN_UNMOUNT | IN_Q_OVERFLOW | IN_IGNORED | IN_ONLYDIR | IN_DONT_FOLLOW |
                              IN_EXCL_UNLINK | IN_MASK_CREATE | IN_MASK_ADD | IN_ISDIR | IN_ONESHOT;
  if ((mask & kKnown) == 0) return kEINVAL;
  if ((mask & IN_MASK_ADD) && (mask & IN_MASK_CREATE)) return kEINVAL;
  InotifyFile* inotify;
  RefPtr<File> file = TRY(GetInotify(t, fd, &inotify));
  std::string name = TRY(path.ReadPath(t.memory()));
  Task::FsCall fs(t);
  vfs::ResolveOptions options;
  options.follow_last = (mask & IN_DONT_FOLLOW) == 0;
  options.directory_only = (mask & IN_ONLYDIR) != 0;
  VfsPath place = TRY(vfs::Resolve(fs, fs.ctx().cwd, name, options));
  TRY(vfs::Access(fs, place, 4));
  return TRY(inotify->AddWatch(*place.dentry->inode(), mask));
}

Result<int64_t> SysInotifyRmWatch(Task& t, FdNum fd, int wd) {
  InotifyFile* inotify;
  RefPtr<File> file = TRY(GetInotify(t, fd, &inotify));
  TRY(inotify->RemoveWatch(wd));
  return 0;
}

}  // namespace moat
