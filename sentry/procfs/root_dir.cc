#include "sentry/procfs/root_dir.h"

#include <dirent.h>
#include <fmt/format.h>

#include <charconv>

#include "fs/pseudofs/text_file.h"
#include "sentry/procfs/sysctl.h"
#include "sentry/procfs/system_files.h"
#include "sentry/procfs/task_dir.h"

namespace moat {
namespace {

constexpr int64_t kFirstPidPosition = 256;  // as Linux: after the fixed entries

class ProcRoot final : public StaticDir {
 public:
  explicit ProcRoot(ProcFs& fs) : StaticDir(fs), proc_(fs) {}

  Result<RefPtr<Inode>> Lookup(const VfsContext& ctx, std::string_view name) override {
    int32_t pid = ParsePid(name);
    if (pid == 0) return StaticDir::Lookup(ctx, name);
    RefPtr<Task> task;
    RefPtr<ThreadGroup> group = proc_.kernel().FindThreadGroup(pid, proc_.ns());
    if (group) {
      task = group->leader();
    } else {
      // Threads are not listed here, but can be named.
      task = proc_.kernel().FindTask(pid, proc_.ns());
    }
    if (!task || !proc_.MaySee(ctx, *task, true)) return kENOENT;
    return RefPtr<Inode>(MakeRef<TaskDir>(proc_, std::move(task), false));
  }

  Result<void> List(const VfsContext& ctx, int64_t from, std::vector<PseudoEntry>& out) override {
    if (from < kFirstPidPosition) TRY(StaticDir::List(ctx, from, out));
    for (RefPtr<ThreadGroup>& group : proc_.kernel().ThreadGroups(proc_.ns())) {
      int32_t pid = group->IdIn(proc_.ns());
      int64_t position = kFirstPidPosition + pid;
      if (position < from) continue;
      RefPtr<Task> task = group->leader();
      if (!task || !proc_.MaySee(ctx, *task, true)) continue;
      out.push_back({fmt::format("{}", pid), TaskIno(*task, false, 0), DT_DIR, position});
    }
    std::sort(out.begin(), out.end(), [](auto& a, auto& b) { return a.position < b.position; });
    return {};
  }

 protected:
  uint32_t Nlink() override {
    return StaticDir::Nlink() + static_cast<uint32_t>(proc_.kernel().ThreadGroups(proc_.ns()).size());
  }

 private:
  ProcFs& proc_;
};

}  // namespace

int32_t ParsePid(std::string_view name) {
  if (name.empty() || name[0] == '0') return 0;
  int32_t pid = 0;
  auto [end, ec] = std::from_chars(name.data(), name.data() + name.size(), pid);
  if (ec != std::errc() || end != name.data() + name.size() || pid < 0) return 0;
  return pid;
}

RefPtr<Inode> MakeProcRoot(ProcFs& fs, bool pid_only) {
  RefPtr<ProcRoot> root = MakeRef<ProcRoot>(fs);
  root->Add("self", MakeLink(fs, [&fs](const VfsContext& ctx) -> Result<std::string> {
              Task* t = Caller(ctx);
              int32_t pid = t != nullptr ? t->TgidIn(fs.ns()) : 0;
              if (pid == 0) return kENOENT;
              return fmt::format("{}", pid);
            }));
  root->Add("thread-self", MakeLink(fs, [&fs](const VfsContext& ctx) -> Result<std::string> {
              Task* t = Caller(ctx);
              int32_t pid = t != nullptr ? t->TgidIn(fs.ns()) : 0;
              if (pid == 0) return kENOENT;
              return fmt::format("{}/task/{}", pid, t->TidIn(fs.ns()));
            }));
  if (!pid_only) {
    AddSystemFiles(fs, *root);
    AddLockFiles(fs, *root);
    root->Add("sys", MakeSysctlTree(fs));
  }
  return root;
}

}  // namespace moat
