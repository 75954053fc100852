#include <dirent.h>
#include <sched.h>

#include "sentry/kernel/namespace_file.h"
#include "sentry/procfs/path_text.h"
#include "sentry/procfs/task_files.h"

namespace moat::proc {
namespace {

// exe, cwd, root: where they lead is asked anew each time.
class PlaceLink final : public TaskOwned<PseudoInode> {
 public:
  using Place = Result<VfsPath> (*)(Task& task);
  PlaceLink(ProcFs& fs, RefPtr<Task> task, uint64_t ino, Place place)
      : TaskOwned(fs, task, S_IFLNK, ino, 0777), place_(place) {}
  Result<VfsPath> FollowMagicLink(const VfsContext& ctx) override {
    TRY(CheckTaskAccess(ctx, *task_));
    return place_(*task_);
  }
  Result<std::string> Readlink(const VfsContext& ctx) override {
    TRY(CheckTaskAccess(ctx, *task_));
    return PathText(ctx, TRY(place_(*task_)));
  }
  Result<RefPtr<File>> Open(const VfsContext&, const VfsPath&, OpenFlags) override { return kELOOP; }

 private:
  const Place place_;
};

struct NamespaceKind {
  const char* name;
  int kind;
};
constexpr NamespaceKind kNamespaces[] = {
    {"cgroup", CLONE_NEWCGROUP}, {"ipc", CLONE_NEWIPC},    {"mnt", CLONE_NEWNS},    {"net", CLONE_NEWNET},
    {"pid", CLONE_NEWPID},       {"pid_for_children", -1}, {"user", CLONE_NEWUSER}, {"uts", CLONE_NEWUTS},
};

struct NamespaceRef {
  RefPtr<RefCounted> ns;
  uint64_t id = 0;
  int kind = 0;
};

template <typename T>
Result<NamespaceRef> ToRef(RefPtr<T> ns, int kind) {
  if (!ns) return kENOENT;
  uint64_t id = ns->id();
  return NamespaceRef{std::move(ns), id, kind};
}

Result<NamespaceRef> NamespaceOf(Task& task, int kind) {
  switch (kind) {
    case CLONE_NEWCGROUP:
      return ToRef(task.cgroup_ns(), kind);
    case CLONE_NEWIPC:
      return ToRef(task.ipc_ns(), kind);
    case CLONE_NEWNS:
      return ToRef(task.mount_ns(), kind);
    case CLONE_NEWNET:
      return ToRef(task.net_ns(), kind);
    case CLONE_NEWPID:
      return ToRef(task.pid_ns(), kind);
    case CLONE_NEWUSER:
      return ToRef(task.credentials()->user_ns, kind);
    case CLONE_NEWUTS:
      return ToRef(task.uts_ns(), kind);
    default:
      return ToRef(task.pid_ns_for_children(), CLONE_NEWPID);
  }
}

class NamespaceLink final : public TaskOwned<PseudoInode> {
 public:
  NamespaceLink(ProcFs& fs, RefPtr<Task> task, uint64_t ino, int kind)
      : TaskOwned(fs, task, S_IFLNK, ino, 0777), kind_(kind) {}
  Result<VfsPath> FollowMagicLink(const VfsContext& ctx) override {
    TRY(CheckTaskAccess(ctx, *task_));
    NamespaceRef r = TRY(NamespaceOf(*task_, kind_));
    return NamespacePath(r.kind, std::move(r.ns), r.id);
  }
  Result<std::string> Readlink(const VfsContext& ctx) override {
    TRY(CheckTaskAccess(ctx, *task_));
    NamespaceRef r = TRY(NamespaceOf(*task_, kind_));
    return NamespaceLinkText(r.kind, r.id);
  }
  Result<RefPtr<File>> Open(const VfsContext&, const VfsPath&, OpenFlags) override { return kELOOP; }

 private:
  const int kind_;
};

constexpr uint32_t kNsBase = 1000;

class NsDir final : public TaskOwned<PseudoDir> {
 public:
  NsDir(ProcFs& fs, RefPtr<Task> task, bool thread)
      : TaskOwned(fs, task, TaskIno(*task, thread, kNsBase), 0511), thread_(thread) {}
  Result<RefPtr<Inode>> Lookup(const VfsContext&, std::string_view name) override {
    uint32_t index = kNsBase;
    for (const NamespaceKind& n : kNamespaces) {
      ++index;
      if (name == n.name) {
        return RefPtr<Inode>(MakeRef<NamespaceLink>(proc_, task_, TaskIno(*task_, thread_, index), n.kind));
      }
    }
    return kENOENT;
  }
  Result<void> List(const VfsContext& ctx, int64_t from, std::vector<PseudoEntry>& out) override {
    TRY(CheckTaskAccess(ctx, *task_));
    int64_t position = 2;
    uint32_t index = kNsBase;
    for (const NamespaceKind& n : kNamespaces) {
      ++index;
      if (position >= from) out.push_back({n.name, TaskIno(*task_, thread_, index), DT_LNK, position});
      ++position;
    }
    return {};
  }

 private:
  const bool thread_;
};

}  // namespace

RefPtr<Inode> MakeExe(ProcFs& fs, RefPtr<Task> task, bool thread) {
  uint64_t ino = TaskIno(*task, thread, 910);
  return MakeRef<PlaceLink>(
      fs, std::move(task), ino, +[](Task& t) -> Result<VfsPath> {
        RefPtr<MemoryManager> mm = t.mm();
        RefPtr<RefCounted> executable = mm ? mm->executable() : nullptr;
        auto* file = dynamic_cast<File*>(executable.get());
        if (file == nullptr) return kENOENT;
        return file->path();
      });
}

RefPtr<Inode> MakeCwd(ProcFs& fs, RefPtr<Task> task, bool thread) {
  uint64_t ino = TaskIno(*task, thread, 911);
  return MakeRef<PlaceLink>(
      fs, std::move(task), ino, +[](Task& t) -> Result<VfsPath> {
        RefPtr<FsContext> fs_context = t.fs_context();
        if (!fs_context) return kENOENT;
        return fs_context->cwd();
      });
}

RefPtr<Inode> MakeRoot(ProcFs& fs, RefPtr<Task> task, bool thread) {
  uint64_t ino = TaskIno(*task, thread, 912);
  return MakeRef<PlaceLink>(
      fs, std::move(task), ino, +[](Task& t) -> Result<VfsPath> {
        RefPtr<FsContext> fs_context = t.fs_context();
        if (!fs_context) return kENOENT;
        return fs_context->root();
      });
}

RefPtr<Inode> MakeNsDir(ProcFs& fs, RefPtr<Task> task, bool thread) {
  return MakeRef<NsDir>(fs, std::move(task), thread);
}

}  // namespace moat::proc
