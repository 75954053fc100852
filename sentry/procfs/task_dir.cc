#include "sentry/procfs/task_dir.h"

#include <dirent.h>

namespace moat {
namespace {

class TaskText final : public TaskOwned<TextInode> {
 public:
  TaskText(ProcFs& fs, RefPtr<Task> task, const TaskEntry& entry, uint64_t ino)
      : TaskOwned(fs, std::move(task), ino, entry.mode & 07777), entry_(entry) {}

  bool polled() const override { return false; }
  Result<void> CheckOpen(const VfsContext& ctx, OpenFlags) override {
    return entry_.guard == TaskGuard::kRead ? CheckTaskAccess(ctx, *task_) : Result<void>();
  }
  Result<std::string> Generate(const VfsContext& ctx) override {
    if (IsGone(*task_)) return kESRCH;
    if (entry_.guard == TaskGuard::kReadAtUse) TRY(CheckTaskAccess(ctx, *task_));
    return entry_.generate(proc_, *task_, ctx);
  }
  Result<size_t> Store(const VfsContext& ctx, std::string_view text, int64_t offset) override {
    if (entry_.write == nullptr) return kEIO;
    if (IsGone(*task_)) return kESRCH;
    return entry_.write(proc_, *task_, ctx, text, offset);
  }

 private:
  const TaskEntry& entry_;
};

RefPtr<Inode> MakeEntry(ProcFs& fs, const RefPtr<Task>& task, bool thread, const TaskEntry& entry, uint32_t index) {
  if (entry.make != nullptr) return entry.make(fs, task, thread);
  return MakeRef<TaskText>(fs, task, entry, TaskIno(*task, thread, index));
}

bool Shown(const TaskEntry& e, bool thread) {
  return e.where == TaskEntry::kBoth || (e.where == TaskEntry::kThreadOnly) == thread;
}

}  // namespace

uint64_t TaskIno(Task& task, bool thread, uint32_t index) {
  uint64_t id = thread ? task.RootTid() : task.RootTgid();
  return (id << 20) | (uint64_t{thread} << 19) | (index + 2);
}

bool IsGone(Task& task) {
  if (!task.exited()) return false;
  ThreadGroup& group = task.thread_group();
  if (group.leader() != &task) return true;
  // A leader stays, as a zombie or before its other threads, until the process is waited for and its id is free.
  Kernel& kernel = task.kernel();
  return kernel.FindThreadGroup(group.RootId(), *kernel.root_pid_ns()) != &group;
}

Result<void> CheckTaskAccess(const VfsContext& ctx, Task& task) {
  if (IsGone(task)) return kESRCH;
  Task* caller = Caller(ctx);
  if (caller != nullptr && !caller->MayAccess(task, false)) return kEACCES;
  return {};
}

TaskDir::TaskDir(ProcFs& fs, RefPtr<Task> task, bool thread)
    : PseudoDir(fs, TaskIno(*task, thread, 0), 0555), proc_(fs), task_(std::move(task)), thread_(thread) {}

void TaskDir::Owner(Kuid& uid, Kgid& gid) {
  RefPtr<const Credentials> cred = task_->credentials();
  uid = cred->euid;
  gid = cred->egid;
}

Result<RefPtr<Inode>> TaskDir::Lookup(const VfsContext& ctx, std::string_view name) {
  if (IsGone(*task_)) return kESRCH;
  if (!proc_.MaySee(ctx, *task_, false)) return kEPERM;
  uint32_t index = 0;
  for (const TaskEntry& e : TaskEntries()) {
    ++index;
    if (name == e.name && Shown(e, thread_)) return MakeEntry(proc_, task_, thread_, e, index);
  }
  return kENOENT;
}

Result<void> TaskDir::List(const VfsContext& ctx, int64_t from, std::vector<PseudoEntry>& out) {
  if (!proc_.MaySee(ctx, *task_, false)) return kEPERM;
  uint32_t index = 0;
  for (const TaskEntry& e : TaskEntries()) {
    ++index;
    int64_t position = 1 + index;
    if (position >= from && Shown(e, thread_)) {
      out.push_back({e.name, TaskIno(*task_, thread_, index), DirentType(e.mode), position});
    }
  }
  return {};
}

}  // namespace moat
