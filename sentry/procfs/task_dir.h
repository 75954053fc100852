// /proc/<pid> and /proc/<pid>/task/<tid>: one table of entries, most of them made from a function over the task.
// An entry whose task is gone answers ESRCH.
#ifndef MOAT_SENTRY_PROCFS_TASK_DIR_H_
#define MOAT_SENTRY_PROCFS_TASK_DIR_H_

#include "fs/pseudofs/text_file.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/procfs/path_text.h"
#include "sentry/procfs/procfs.h"

namespace moat {

// Who may look at an entry beyond its mode bits.
enum class TaskGuard : uint8_t {
  kAnyone,
  kRead,       // ptrace_may_access, asked when the file is opened
  kReadAtUse,  // ... when it is read
};

using TaskGenerator = Result<std::string> (*)(ProcFs& fs, Task& task, const VfsContext& ctx);
using TaskWriter = Result<size_t> (*)(ProcFs& fs, Task& task, const VfsContext& ctx, std::string_view text,
                                      int64_t offset);
using TaskMaker = RefPtr<Inode> (*)(ProcFs& fs, RefPtr<Task> task, bool thread);

struct TaskEntry {
  const char* name;
  uint32_t mode;  // S_IFMT | permissions
  TaskGuard guard = TaskGuard::kAnyone;
  TaskGenerator generate = nullptr;
  TaskWriter write = nullptr;
  TaskMaker make = nullptr;  // instead of the two above
  enum { kBoth, kProcessOnly, kThreadOnly } where = kBoth;
};

// All entries, in the order of a listing. task_entries.cc.
const std::vector<TaskEntry>& TaskEntries();

// The inode number of entry `index` of a task's directory (0: the directory itself). Stable while the task lives.
uint64_t TaskIno(Task& task, bool thread, uint32_t index);

// True once the thread has ended and, for a leader, its process has been waited for.
bool IsGone(Task& task);
// kEACCES unless the caller may look into `task`; kESRCH once it is gone.
Result<void> CheckTaskAccess(const VfsContext& ctx, Task& task);

class TaskDir final : public PseudoDir, public ProcessDirectory {
 public:
  TaskDir(ProcFs& fs, RefPtr<Task> task, bool thread);
  Result<RefPtr<Inode>> Lookup(const VfsContext& ctx, std::string_view name) override;
  Result<void> List(const VfsContext& ctx, int64_t from, std::vector<PseudoEntry>& out) override;
  RefPtr<Pid> pid() override { return thread_ ? nullptr : RefPtr<Pid>(&task_->thread_group().pid()); }

 protected:
  void Owner(Kuid& uid, Kgid& gid) override;

 private:
  ProcFs& proc_;
  const RefPtr<Task> task_;
  const bool thread_;
};

// Base of the inodes in there: owned by the task's user while the task may be dumped, else by root.
template <typename Base>
class TaskOwned : public Base {
 public:
  template <typename... Args>
  TaskOwned(ProcFs& fs, RefPtr<Task> task, Args&&... args)
      : Base(fs, std::forward<Args>(args)...), proc_(fs), task_(std::move(task)) {}

 protected:
  void Owner(Kuid& uid, Kgid& gid) override {
    uid = gid = 0;
    RefPtr<MemoryManager> mm = task_->mm();
    if (mm && mm->dumpable() != 1) return;
    RefPtr<const Credentials> cred = task_->credentials();
    uid = cred->euid;
    gid = cred->egid;
  }
  ProcFs& proc_;
  const RefPtr<Task> task_;
};

// Base of the magic links to a file that the task has open or mapped.
class TaskFileLink : public TaskOwned<PseudoInode> {
 public:
  using TaskOwned::TaskOwned;
  Result<VfsPath> FollowMagicLink(const VfsContext& ctx) override { return TRY(Target(ctx))->path(); }
  Result<std::string> Readlink(const VfsContext& ctx) override { return PathText(ctx, TRY(Target(ctx))->path()); }
  Result<RefPtr<File>> Open(const VfsContext&, const VfsPath&, OpenFlags) override { return kELOOP; }

 private:
  // Null when the task has it no more.
  virtual RefPtr<File> Find() = 0;
  Result<RefPtr<File>> Target(const VfsContext& ctx) {
    TRY(CheckTaskAccess(ctx, *task_));
    RefPtr<File> file = Find();
    if (!file) return kENOENT;
    return file;
  }
};

}  // namespace moat

#endif  // MOAT_SENTRY_PROCFS_TASK_DIR_H_
