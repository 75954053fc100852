// Source: pidfd_open(2), pidfd_getfd(2), kcmp(2), process_mrelease(2).
#include <fcntl.h>
#include <linux/kcmp.h>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/syscalls/handlers.h"

namespace moat {

namespace {

// The pointers' order, scrambled so that it tells the guest nothing of addresses.
int64_t Compare(const void* a, const void* b) {
  if (a == b) return 0;
  constexpr uint64_t kCookie = 0x9e3779b97f4a7c15;
  return reinterpret_cast<uint64_t>(a) * kCookie < reinterpret_cast<uint64_t>(b) * kCookie ? 1 : 2;
}

}  // namespace

Result<int64_t> SysPidfdOpen(Task& t, int pid, unsigned flags) {
  if (pid <= 0 || (flags & ~static_cast<unsigned>(O_NONBLOCK)) != 0) return kEINVAL;
  RefPtr<Pid> id = t.kernel().FindPid(pid, *t.pid_ns());
  if (!id) return kESRCH;
  {
    MutexLock lock(t.kernel().tree_mutex());
    // Only whole processes have one; a thread's id does not.
    if (id->thread_group == nullptr) return id->task != nullptr ? kEINVAL : kESRCH;
  }
  RefPtr<PidFile> file = TRY(PidFile::Create(t.kernel(), std::move(id), O_RDWR | static_cast<int>(flags)));
  return TRY(t.InstallFd(std::move(file), true));
}

Result<int64_t> SysPidfdGetfd(Task& t, FdNum pidfd, int fd, unsigned flags) {
  if (flags != 0) return kEINVAL;
  RefPtr<File> file = TRY(t.GetFile(ToInt(pidfd)));
  PidFile* process = PidFile::Cast(*file);
  if (process == nullptr) return kEBADF;
  RefPtr<Task> target;
  {
    MutexLock lock(t.kernel().tree_mutex());
    target = RefPtr<Task>(process->pid()->task);
  }
  if (!target) return kESRCH;
  if (!t.MayAccess(*target, true)) return kEPERM;
  RefPtr<FdTable> table = target->fd_table();
  if (!table) return kESRCH;
  RefPtr<File> wanted = table->Get(fd);
  if (!wanted) return kEBADF;
  return TRY(t.InstallFd(std::move(wanted), true));
}

Result<int64_t> SysKcmp(Task& t, int pid1, int pid2, int type, uint64_t index1, uint64_t index2) {
  RefPtr<PidNamespace> ns = t.pid_ns();
  RefPtr<Task> a = t.kernel().FindTask(pid1, *ns);
  RefPtr<Task> b = t.kernel().FindTask(pid2, *ns);
  if (!a || !b) return kESRCH;
  if (!t.MayAccess(*a, true) || !t.MayAccess(*b, true)) return kEPERM;
  switch (type) {
    case KCMP_FILE: {
      RefPtr<FdTable> table_a = a->fd_table(), table_b = b->fd_table();
      RefPtr<File> file_a = table_a ? table_a->Get(static_cast<int>(index1)) : nullptr;
      RefPtr<File> file_b = table_b ? table_b->Get(static_cast<int>(index2)) : nullptr;
      if (!file_a || !file_b) return kEBADF;
      return Compare(file_a.get(), file_b.get());
    }
    case KCMP_VM:
      return Compare(a->mm().get(), b->mm().get());
    case KCMP_FILES:
      return Compare(a->fd_table().get(), b->fd_table().get());
    case KCMP_FS:
      return Compare(a->fs_context().get(), b->fs_context().get());
    case KCMP_SIGHAND:
      return Compare(a->thread_group().actions().get(), b->thread_group().actions().get());
    case KCMP_IO:
    case KCMP_SYSVSEM:
      return 0;  // no task has one
    default:
      return kEINVAL;
  }
}

Result<int64_t> SysProcessMrelease(Task& t, FdNum pidfd, unsigned flags) {
  if (flags != 0) return kEINVAL;
  RefPtr<File> file = TRY(t.GetFile(ToInt(pidfd)));
  PidFile* process = PidFile::Cast(*file);
  if (process == nullptr) return kEBADF;
  MutexLock lock(t.kernel().tree_mutex());
  ThreadGroup* group = process->pid()->thread_group;
  if (group == nullptr) return kESRCH;
  // The memory of a dying process goes with its last thread, at once: nothing is left to do for us.
  return group->exiting() ? Result<int64_t>(0) : Result<int64_t>(kEINVAL);
}

}  // namespace moat
