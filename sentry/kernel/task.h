// Task: one guest thread. Thread groups, process groups and sessions are in files of their own.
// Fields in groups: constant after construction; owned by the task's own carrier (no lock: only the task
// itself touches them); shared (each with its lock). Source: clone(2), credentials(7), proc(5).
#ifndef MOAT_SENTRY_KERNEL_TASK_H_
#define MOAT_SENTRY_KERNEL_TASK_H_

#include <atomic>
#include <memory>
#include <string>

#include "fs/vfs/context.h"
#include "platform/cred/credentials.h"
#include "platform/fiber/parker.h"
#include "platform/platform.h"
#include "sentry/kernel/fd_table.h"
#include "sentry/kernel/fs_context.h"
#include "sentry/mm/memory_manager.h"

namespace moat {

class Kernel;
class ThreadGroup;
class PidNamespace;
class UtsNamespace;
class IpcNamespace;
struct TaskSignals;  // sentry/kernel/signals.h

class Task : public RefCounted {
 public:
  // --- constant after construction ---
  Kernel& kernel() const { return kernel_; }
  ThreadGroup& thread_group() const { return *thread_group_; }
  // Ids as seen in the task's own pid namespace, and in the root one.
  int32_t tid() const;
  int32_t tgid() const;
  int32_t TidIn(const PidNamespace& ns) const;  // 0: not visible there

  // --- the task's own: call these only on the task's carrier ---
  Registers& regs() { return regs_; }
  Context& context() { return *context_; }
  Parker& parker() { return parker_; }
  // Guest memory of the current address space.
  MemoryManager& memory() { return *mm_; }

  // --- shared; each returns a reference or a copy taken under the lock ---
  RefPtr<MemoryManager> mm() const;         // null once exited
  RefPtr<FdTable> fd_table() const;
  RefPtr<FsContext> fs_context() const;
  RefPtr<const Credentials> credentials() const;
  RefPtr<MountNamespace> mount_ns() const;
  RefPtr<PidNamespace> pid_ns() const;      // its own, not that for children
  RefPtr<UtsNamespace> uts_ns() const;
  RefPtr<IpcNamespace> ipc_ns() const;
  UserNamespace& user_ns() const;
  std::string comm() const;                 // at most 15 bytes
  void SetComm(std::string_view name);

  // The descriptor's file; kEBADF. GetFileNotPath also refuses O_PATH descriptors.
  Result<RefPtr<File>> GetFile(int fd) const;
  Result<RefPtr<File>> GetFileNotPath(int fd) const;
  // RLIMIT_NOFILE applied.
  Result<int> InstallFd(RefPtr<File> file, bool cloexec, int min = 0);
  // For a call into fs/; valid while the task does not change its credentials or fs context (one call).
  class FsCall;  // sentry/kernel/fs_call.h: holds the references that a VfsContext points to
  // The directory that a relative path starts from: AT_FDCWD or a directory descriptor. kEBADF, kENOTDIR.
  Result<VfsPath> DirFd(int dirfd) const;

  // A deliverable signal (or a stop, an exit) is pending: blocking calls give up with a restart code.
  bool HasPendingInterrupt() const;
  // Makes the task look for signals: wakes it if it is parked, interrupts its guest code if it runs. Any thread.
  void Kick();

 private:
  friend class Kernel;
  friend class TaskBuilder;
  Kernel& kernel_;
  RefPtr<ThreadGroup> thread_group_;
  Registers regs_;
  std::unique_ptr<Context> context_;
  Parker parker_;
  RefPtr<MemoryManager> mm_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_TASK_H_
