#include <dirent.h>
#include <fmt/format.h>

#include "sentry/procfs/root_dir.h"
#include "sentry/procfs/task_files.h"

namespace moat::proc {
namespace {

class SubtaskDir final : public TaskOwned<PseudoDir> {
 public:
  SubtaskDir(ProcFs& fs, RefPtr<Task> task) : TaskOwned(fs, task, TaskIno(*task, false, 1200), 0555) {}

  Result<RefPtr<Inode>> Lookup(const VfsContext&, std::string_view name) override {
    int32_t tid = ParsePid(name);
    if (tid == 0) return kENOENT;
    ThreadGroup& group = task_->thread_group();
    RefPtr<Task> found = group.FindTask(tid, proc_.ns());
    // A leader that has exited stays visible as long as its process.
    if (!found && tid == group.IdIn(proc_.ns())) found = group.leader();
    if (!found) return kENOENT;
    return RefPtr<Inode>(MakeRef<TaskDir>(proc_, std::move(found), true));
  }

  Result<void> List(const VfsContext&, int64_t from, std::vector<PseudoEntry>& out) override {
    bool leader_seen = false;
    for (RefPtr<Task>& t : task_->thread_group().tasks()) {
      leader_seen |= t == task_.get();
      AddEntry(*t, from, out);
    }
    if (!leader_seen) AddEntry(*task_, from, out);
    std::sort(out.begin(), out.end(), [](auto& a, auto& b) { return a.position < b.position; });
    return {};
  }

 protected:
  uint32_t Nlink() override { return 2 + static_cast<uint32_t>(std::max(task_->thread_group().task_count(), 1)); }

 private:
  void AddEntry(Task& t, int64_t from, std::vector<PseudoEntry>& out) {
    int32_t tid = t.TidIn(proc_.ns());
    int64_t position = 2 + int64_t{tid};
    if (tid != 0 && position >= from) out.push_back({fmt::format("{}", tid), TaskIno(t, true, 0), DT_DIR, position});
  }
};

}  // namespace

RefPtr<Inode> MakeSubtaskDir(ProcFs& fs, RefPtr<Task> task, bool) { return MakeRef<SubtaskDir>(fs, std::move(task)); }

}  // namespace moat::proc
