// Source: unshare(2), setns(2), namespaces(7).
#include <linux/sched.h>

#include "fs/vfs/dentry.h"
#include "sentry/kernel/file_close.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespace_file.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/task_clone.h"
#include "sentry/syscalls/handlers.h"

namespace moat {

namespace {

constexpr uint64_t kNamespaces =
    CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP;
constexpr uint64_t kUnshareable =
    kNamespaces | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_VM | CLONE_THREAD | CLONE_SYSVSEM;

void Adopt(Task& t, NewNamespaces made) {
  if (made.cred) t.SetCredentials(std::move(made.cred));
  if (made.mount) t.SetMountNs(std::move(made.mount));
  if (made.pid_for_children) t.SetPidNsForChildren(std::move(made.pid_for_children));
  if (made.uts) t.SetUtsNs(std::move(made.uts));
  if (made.ipc) t.SetIpcNs(std::move(made.ipc));
  if (made.net) t.SetNetNs(std::move(made.net));
  if (made.cgroup) t.SetCgroupNs(std::move(made.cgroup));
}

// Joining another namespace needs CAP_SYS_ADMIN in the user namespace that owns it and in one's own.
Result<void> MayJoin(Task& t, const UserNamespace& owner) {
  if (!t.cred().HasCapabilityIn(CAP_SYS_ADMIN, owner) || !t.cred().HasCapability(CAP_SYS_ADMIN)) return kEPERM;
  return {};
}

Result<void> Join(Task& t, int kind, const RefPtr<RefCounted>& ns) {
  switch (kind) {
    case CLONE_NEWUSER: {
      RefPtr<UserNamespace> target(static_cast<UserNamespace*>(ns.get()));
      // Not one's own (it would give capabilities back), and only alone and unshared.
      if (target == &t.user_ns() || t.thread_group().task_count() > 1) return kEINVAL;
      if (t.fs().RefCountForTesting() > 1) return kEINVAL;
      if (!t.cred().HasCapabilityIn(CAP_SYS_ADMIN, *target)) return kEPERM;
      RefPtr<Credentials> cred = t.cred().Copy();
      cred->user_ns = std::move(target);
      cred->permitted = cred->effective = cred->bounding = CapabilitySet::All();
      cred->inheritable = cred->ambient = CapabilitySet::None();
      cred->securebits = 0;
      t.SetCredentials(std::move(cred));
      return {};
    }
    case CLONE_NEWPID: {
      RefPtr<PidNamespace> target(static_cast<PidNamespace*>(ns.get()));
      TRY(MayJoin(t, target->owner()));
      // Only the own namespace and those below.
      if (!t.pid_ns()->IsAncestorOf(*target)) return kEINVAL;
      t.SetPidNsForChildren(std::move(target));
      return {};
    }
    case CLONE_NEWNS: {
      RefPtr<MountNamespace> target(static_cast<MountNamespace*>(ns.get()));
      TRY(MayJoin(t, target->owner()));
      if (!t.cred().HasCapability(CAP_SYS_CHROOT)) return kEPERM;
      if (t.fs().RefCountForTesting() > 1) return kEINVAL;
      t.fs().set_root(target->root());
      t.fs().set_cwd(target->root());
      t.SetMountNs(std::move(target));
      return {};
    }
    case CLONE_NEWUTS: {
      RefPtr<UtsNamespace> target(static_cast<UtsNamespace*>(ns.get()));
      TRY(MayJoin(t, target->owner()));
      t.SetUtsNs(std::move(target));
      return {};
    }
    case CLONE_NEWIPC: {
      RefPtr<IpcNamespace> target(static_cast<IpcNamespace*>(ns.get()));
      TRY(MayJoin(t, target->owner()));
      t.SetIpcNs(std::move(target));
      return {};
    }
    case CLONE_NEWNET: {
      RefPtr<NetNamespace> target(static_cast<NetNamespace*>(ns.get()));
      TRY(MayJoin(t, target->owner()));
      t.SetNetNs(std::move(target));
      return {};
    }
    case CLONE_NEWCGROUP: {
      RefPtr<CgroupNamespace> target(static_cast<CgroupNamespace*>(ns.get()));
      TRY(MayJoin(t, target->owner()));
      t.SetCgroupNs(std::move(target));
      return {};
    }
    default:
      return kEINVAL;
  }
}

// setns(2) with a pidfd: all namespaces that `kinds` names, of that process.
Result<void> JoinProcess(Task& t, PidFile& pidfd, uint64_t kinds) {
  RefPtr<Task> target;
  {
    MutexLock lock(t.kernel().tree_mutex());
    target = RefPtr<Task>(pidfd.pid()->task);
  }
  if (!target || target->exited()) return kESRCH;
  if (!t.MayAccess(*target, true)) return kEPERM;
  // The user namespace first: its capabilities decide about the others.
  if ((kinds & CLONE_NEWUSER) != 0) TRY(Join(t, CLONE_NEWUSER, target->credentials()->user_ns));
  if ((kinds & CLONE_NEWUTS) != 0) TRY(Join(t, CLONE_NEWUTS, target->uts_ns()));
  if ((kinds & CLONE_NEWIPC) != 0) TRY(Join(t, CLONE_NEWIPC, target->ipc_ns()));
  if ((kinds & CLONE_NEWNET) != 0) TRY(Join(t, CLONE_NEWNET, target->net_ns()));
  if ((kinds & CLONE_NEWCGROUP) != 0) TRY(Join(t, CLONE_NEWCGROUP, target->cgroup_ns()));
  if ((kinds & CLONE_NEWPID) != 0) TRY(Join(t, CLONE_NEWPID, target->pid_ns()));
  if ((kinds & CLONE_NEWNS) != 0) TRY(Join(t, CLONE_NEWNS, target->mount_ns()));
  return {};
}

}  // namespace

Result<int64_t> SysUnshare(Task& t, CloneFlagBits bits) {
  uint64_t flags = Raw(bits);
  if ((flags & ~kUnshareable) != 0) return kEINVAL;
  if ((flags & CLONE_NEWUSER) != 0) flags |= CLONE_THREAD | CLONE_FS;
  if ((flags & CLONE_NEWNS) != 0) flags |= CLONE_FS;
  if ((flags & CLONE_VM) != 0) flags |= CLONE_SIGHAND;
  if ((flags & (CLONE_THREAD | CLONE_SIGHAND | CLONE_VM)) != 0 && t.thread_group().task_count() > 1) return kEINVAL;
  if ((flags & CLONE_VM) != 0 && t.thread_group().task_count() > 1) return kEINVAL;
  RefPtr<FsContext> fs = t.fs_context();
  if ((flags & CLONE_FS) != 0) fs = fs->Clone();
  NewNamespaces made = TRY(MakeNamespaces(t, flags & kNamespaces, *fs));
  if ((flags & CLONE_FS) != 0) t.SetFsContext(std::move(fs));
  if ((flags & CLONE_FILES) != 0) UnshareFdTable(t);
  Adopt(t, std::move(made));
  return 0;
}

Result<int64_t> SysSetns(Task& t, FdNum fd, int kind) {
  RefPtr<File> file = TRY(t.GetFile(ToInt(fd)));
  if (NamespaceFile* ns = NamespaceFile::Cast(*file)) {
    if (kind != 0 && kind != ns->kind()) return kEINVAL;
    TRY(Join(t, ns->kind(), ns->ns()));
    return 0;
  }
  if (PidFile* pidfd = PidFile::Cast(*file)) {
    const uint64_t kinds = static_cast<uint32_t>(kind);
    if (kinds == 0 || (kinds & ~kNamespaces) != 0) return kEINVAL;
    TRY(JoinProcess(t, *pidfd, kinds));
    return 0;
  }
  return kEINVAL;
}

}  // namespace moat
