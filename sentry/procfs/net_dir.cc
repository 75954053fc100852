#include "sentry/procfs/net_dir.h"

#include <dirent.h>

#include <map>

#include "sentry/procfs/task_files.h"

namespace moat {
namespace {

std::map<std::string, NetTable, std::less<>>& Tables() {
  static auto* const tables = new std::map<std::string, NetTable, std::less<>>();
  return *tables;
}

class NetText final : public TaskOwned<TextInode> {
 public:
  NetText(ProcFs& fs, RefPtr<Task> task, uint64_t ino, NetTable table)
      : TaskOwned(fs, std::move(task), ino, 0444), table_(table) {}
  Result<std::string> Generate(const VfsContext&) override {
    RefPtr<NetNamespace> ns = task_->net_ns();
    if (!ns) return std::string();
    return table_(*ns);
  }

 private:
  const NetTable table_;
};

class NetDir final : public TaskOwned<PseudoDir> {
 public:
  NetDir(ProcFs& fs, RefPtr<Task> task, bool thread)
      : TaskOwned(fs, task, TaskIno(*task, thread, 1300), 0555), thread_(thread) {}
  Result<RefPtr<Inode>> Lookup(const VfsContext&, std::string_view name) override {
    uint32_t index = 1300;
    for (auto& [table_name, table] : Tables()) {
      ++index;
      if (name == table_name)
        return RefPtr<Inode>(MakeRef<NetText>(proc_, task_, TaskIno(*task_, thread_, index), table));
    }
    return kENOENT;
  }
  Result<void> List(const VfsContext&, int64_t from, std::vector<PseudoEntry>& out) override {
    int64_t position = 2;
    for (auto& [name, table] : Tables()) {
      if (position >= from) {
        out.push_back({name, TaskIno(*task_, thread_, static_cast<uint32_t>(1299 + position)), DT_REG, position});
      }
      ++position;
    }
    return {};
  }

 private:
  const bool thread_;
};

}  // namespace

void RegisterProcNet(const char* name, NetTable table) { Tables().insert_or_assign(name, table); }

namespace proc {
RefPtr<Inode> MakeNetDir(ProcFs& fs, RefPtr<Task> task, bool thread) {
  return MakeRef<NetDir>(fs, std::move(task), thread);
}
}  // namespace proc

}  // namespace moat
