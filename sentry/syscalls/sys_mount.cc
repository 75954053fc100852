// mount(2), umount2(2), pivot_root(2).
#include <sys/mount.h>

#include "fs/vfs/mount_ops.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/path_argument.h"

namespace moat {
namespace {

// copy_mount_options(): a string in at most a page, which need not be mapped to its end.
Result<std::string> ReadOptions(Task& t, GuestAddr data) {
  if (data == 0) return std::string();
  std::string page(kPageSize, '\0');
  size_t n = t.memory().CopyIn(page.data(), data, kPageSize);
  if (n == 0) return kEFAULT;
  page.resize(std::min(n, page.find('\0') == page.npos ? n : page.find('\0')));
  return page;
}

Result<std::string> ReadOptional(Task& t, UserString s) {
  if (!s) return std::string();
  return s.Read(t.memory(), kPageSize);
}

// Every process whose root or working directory is `from` goes to `to` (chroot_fs_refs).
void MoveRoots(Task& t, const VfsPath& from, const VfsPath& to) {
  for (const RefPtr<ThreadGroup>& group : t.kernel().ThreadGroups(*t.kernel().root_pid_ns())) {
    for (const RefPtr<Task>& task : group->tasks()) {
      RefPtr<FsContext> fs = task->fs_context();
      if (!fs) continue;
      if (fs->root() == from) fs->set_root(to);
      if (fs->cwd() == from) fs->set_cwd(to);
    }
  }
}

}  // namespace

Result<int64_t> SysMount(Task& t, UserString source, UserString target, UserString type, uint64_t flags,
                         GuestAddr data) {
  MountArguments a;
  a.type = TRY(ReadOptional(t, type));
  a.source = TRY(ReadOptional(t, source));
  a.has_type = static_cast<bool>(type);
  a.has_source = static_cast<bool>(source);
  a.data = TRY(ReadOptions(t, data));
  a.flags = flags;
  Task::FsCall fs(t);
  VfsPath place = TRY(ResolveArgument(t, fs, AT_FDCWD, target, 0));
  TRY(vfs::Mount(fs, place, a));
  return 0;
}

Result<int64_t> SysUmount2(Task& t, UserString target, int flags) {
  if (flags & ~(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW)) return kEINVAL;
  Task::FsCall fs(t);
  TRY(vfs::CheckMayMount(fs));
  VfsPath place = TRY(ResolveArgument(t, fs, AT_FDCWD, target, (flags & UMOUNT_NOFOLLOW) ? AT_SYMLINK_NOFOLLOW : 0));
  TRY(vfs::Umount(fs, place, flags));
  return 0;
}

Result<int64_t> SysPivotRoot(Task& t, UserString new_root, UserString put_old) {
  Task::FsCall fs(t);
  TRY(vfs::CheckMayMount(fs));
  VfsPath to = TRY(ResolveArgument(t, fs, AT_FDCWD, new_root, 0));
  VfsPath old = TRY(ResolveArgument(t, fs, AT_FDCWD, put_old, 0));
  VfsPath from = fs.ctx().root;
  TRY(vfs::PivotRoot(fs, to, old));
  MoveRoots(t, from, to);
  return 0;
}

}  // namespace moat
