#include "sentry/kernel/task_clone.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sys/ptrace.h>
#include <sys/resource.h>

#include <algorithm>

#include "fs/vfs/dentry.h"
#include "fs/vfs/mount.h"
#include "sentry/kernel/blocking.h"
#include "sentry/kernel/file_close.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/process_timers.h"
#include "sentry/kernel/rseq.h"
#include "sentry/kernel/seccomp_filter.h"
#include "sentry/kernel/signal_sender.h"
#include "sentry/kernel/task_exit.h"
#include "sentry/kernel/trace_link.h"
#include "sentry/kernel/trace_stop.h"

namespace moat {

namespace {

constexpr uint64_t kNamespaceFlags =
    CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWCGROUP;

// The stop that a tracer has asked for at such a call: PTRACE_EVENT_*, 0: none.
int TraceEvent(Task& t, const CloneRequest& r) {
  if ((r.flags & CLONE_UNTRACED) != 0) return 0;
  const int event = (r.flags & CLONE_VFORK) != 0 ? PTRACE_EVENT_VFORK
                    : r.exit_signal != SIGCHLD   ? PTRACE_EVENT_CLONE
                                                 : PTRACE_EVENT_FORK;
  return TraceStop::Wants(t, event) ? event : 0;
}

}  // namespace

Result<NewNamespaces> MakeNamespaces(Task& t, uint64_t flags, FsContext& fs) {
  NewNamespaces made;
  if ((flags & kNamespaceFlags) == 0) return made;
  RefPtr<const Credentials> cred = t.credentials();
  if ((flags & CLONE_NEWUSER) != 0) {
    // user_namespaces(7): the creator's ids must be mapped in its own namespace; it gets all capabilities in the new
    // one.
    if (!cred->user_ns->HasMapping(cred->euid, cred->egid)) return kEPERM;
    RefPtr<Credentials> mine = cred->Copy();
    mine->user_ns = TRY(UserNamespace::CreateChild(cred->user_ns, cred->euid, cred->egid));
    mine->permitted = mine->effective = mine->bounding = CapabilitySet::All();
    mine->inheritable = mine->ambient = CapabilitySet::None();
    mine->securebits = 0;
    made.cred = mine;
    cred = made.cred;
  }
  if ((flags & kNamespaceFlags & ~uint64_t{CLONE_NEWUSER}) == 0) return made;
  if (!cred->HasCapability(CAP_SYS_ADMIN)) return kEPERM;
  const RefPtr<UserNamespace>& owner = cred->user_ns;
  if ((flags & CLONE_NEWNS) != 0) {
    VfsPath root = fs.root();
    VfsPath cwd = fs.cwd();
    made.mount = TRY(t.mount_ns()->Clone(owner, {&root, &cwd}));
    fs.set_root(std::move(root));
    fs.set_cwd(std::move(cwd));
  }
  if ((flags & CLONE_NEWPID) != 0) {
    made.pid_for_children = TRY(PidNamespace::CreateChild(t.pid_ns_for_children(), owner));
  }
  if ((flags & CLONE_NEWUTS) != 0) made.uts = t.uts_ns()->Clone(owner);
  if ((flags & CLONE_NEWIPC) != 0) made.ipc = MakeRef<IpcNamespace>(owner);
  if ((flags & CLONE_NEWNET) != 0) made.net = MakeRef<NetNamespace>(owner);
  if ((flags & CLONE_NEWCGROUP) != 0) made.cgroup = MakeRef<CgroupNamespace>(owner);
  return made;
}

// clone(2), "ERRORS".
Result<void> TaskCloner::Check(Task& t, const CloneRequest& r) {
  const uint64_t f = r.flags;
  auto both = [f](uint64_t a, uint64_t b) { return (f & a) != 0 && (f & b) != 0; };
  auto without = [f](uint64_t a, uint64_t b) { return (f & a) != 0 && (f & b) == 0; };
  if (both(CLONE_NEWNS, CLONE_FS) || both(CLONE_NEWUSER, CLONE_FS)) return kEINVAL;
  if (without(CLONE_THREAD, CLONE_SIGHAND) || without(CLONE_SIGHAND, CLONE_VM)) return kEINVAL;
  if (both(CLONE_CLEAR_SIGHAND, CLONE_SIGHAND)) return kEINVAL;
  if (both(CLONE_NEWUSER, CLONE_THREAD) || both(CLONE_NEWPID, CLONE_THREAD)) return kEINVAL;
  if (both(CLONE_NEWPID, CLONE_PARENT) || both(CLONE_NEWUSER, CLONE_PARENT)) return kEINVAL;
  if (both(CLONE_NEWIPC, CLONE_SYSVSEM)) return kEINVAL;
  if ((f & CLONE_PARENT) != 0 && t.thread_group().pid().nr() == 1)
    return kEINVAL;  // init's siblings would be unreapable
  if ((f & CLONE_THREAD) != 0) {
    if (t.pid_ns_for_children() != t.pid_ns()) return kEINVAL;
    if ((f & CLONE_PIDFD) != 0) return kEINVAL;
  }
  if (both(CLONE_PIDFD, CLONE_DETACHED)) return kEINVAL;
  if (r.exit_signal < 0 || r.exit_signal > abi::kSignalCount) return kEINVAL;
  return {};
}

void TaskCloner::CountTask(Kernel& kernel, Task& t) {
  kernel.tasks_.fetch_add(1, std::memory_order_relaxed);
  kernel.forks_.fetch_add(1, std::memory_order_relaxed);
}

Result<void> TaskCloner::ShareOrCopy(Task& t, Task& child, const CloneRequest& r) {
  const uint64_t f = r.flags;
  Kernel& kernel = t.kernel();
  child.fs_context_ = (f & CLONE_FS) != 0 ? t.fs_context_ : t.fs_context_->Clone();
  NewNamespaces made = TRY(MakeNamespaces(t, f, *child.fs_context_));
  child.cred_ = made.cred ? made.cred : t.cred_;
  child.mount_ns_ = made.mount ? made.mount : t.mount_ns_;
  child.pid_ns_for_children_ = made.pid_for_children ? made.pid_for_children : t.pid_ns_for_children_;
  child.uts_ns_ = made.uts ? made.uts : t.uts_ns_;
  child.ipc_ns_ = made.ipc ? made.ipc : t.ipc_ns_;
  child.net_ns_ = made.net ? made.net : t.net_ns_;
  child.cgroup_ns_ = made.cgroup ? made.cgroup : t.cgroup_ns_;
  child.account_ = nullptr;
  child.seccomp_filter_ = t.seccomp_filter_;
  child.seccomp_mode_.store(t.seccomp_mode(), std::memory_order_relaxed);
  child.fd_table_ = (f & CLONE_FILES) != 0 ? t.fd_table_ : t.fd_table_->Clone();

  if ((f & CLONE_VM) != 0) {
    child.mm_ = t.mm_;
  } else {
    RefPtr<AddressSpace> space = TRY(kernel.platform().NewAddressSpace());
    child.mm_ = TRY(t.mm_->Fork(std::move(space), t.context_.get()));
  }
  child.context_ = TRY(t.context_->Clone((f & CLONE_VM) != 0));
  if ((f & CLONE_VM) == 0) {
    TRY(rseq::Inherit(t, child));
    t.mm_->OfferCopy(*t.context_);
    child.mm_->OfferCopy(*child.context_);
  }

  child.regs_ = t.regs_;
  child.regs_.SetReturn(0);
  if (r.stack != 0) child.regs_.gp.rsp = r.stack;
  if ((f & CLONE_SETTLS) != 0) {
    if (r.tls >= kernel.platform().max_address()) return kEPERM;
    child.regs_.gp.fs_base = r.tls;
  }
  if ((f & CLONE_CHILD_SETTID) != 0) child.set_child_tid_ = r.child_tid;
  if ((f & CLONE_CHILD_CLEARTID) != 0) child.clear_child_tid = r.child_tid;
  child.personality = t.personality;
  child.timer_slack_.store(t.timer_slack(), std::memory_order_relaxed);
  child.default_timer_slack_.store(t.timer_slack(), std::memory_order_relaxed);
  child.start_time_ = ReadHostClock(CLOCK_BOOTTIME);
  child.signals_.mask.store(t.signal_mask().bits, std::memory_order_relaxed);
  // sigaltstack(2): a thread that shares the memory starts without one, except for vfork's child.
  if ((f & (CLONE_VM | CLONE_VFORK)) != CLONE_VM) child.signals_.alt_stack = t.signals_.alt_stack;
  SchedState sched = t.sched();
  if (sched.reset_on_fork) {
    sched.policy = SCHED_OTHER;
    sched.priority = 0;
    sched.nice = std::max(sched.nice, 0);
    sched.reset_on_fork = false;
  }
  child.SetSched(sched);
  if (!sched.affinity.empty()) child.context_->SetAffinity(sched.affinity);
  child.SetComm(t.comm());
  return {};
}

Result<void> TaskCloner::LinkLocked(Task& child, RefPtr<ThreadGroup> group, Task* parent, PidNamespace& ns,
                                    std::span<const int32_t> set_tid) {
  RefPtr<Pid> pid = TRY(ns.Allocate(set_tid));
  child.pid_ = pid;
  pid->task = &child;
  child.tid_.store(pid->nr(), std::memory_order_relaxed);
  child.root_tid_.store(pid->root_nr(), std::memory_order_relaxed);
  const bool leader = !group->leader_;
  if (leader) {
    group->pid_ = pid;
    pid->thread_group = group.get();
    group->leader_ = RefPtr<Task>(&child);
    group->unkillable_ = pid->nr() == 1 && group->unkillable_init_;
  }
  child.tgid_ = group->pid_->nr();
  child.root_tgid_ = group->pid_->root_nr();
  child.thread_group_ = group;  // complete before others can find the task in the list
  {
    MutexLock lock(group->signal_mu_);
    group->AddTaskLocked(child);
  }
  for (const Pid::Number& n : pid->numbers()) ++n.ns->live_tasks;
  return {};
}

Result<void> TaskCloner::Start(Task& child) {
  Kernel& kernel = child.kernel();
  child.fd_table_->AddUser();
  child.SetAccount(kernel.Account(child.cred_->uid));
  CountTask(kernel, child);
  Result<void> started = child.Start();
  if (started.ok()) return {};
  // As if it had never been: out of the tree again.
  child.fd_table_->DropUser();
  child.SetAccount(nullptr);
  child.context_->Release();
  kernel.tasks_.fetch_sub(1, std::memory_order_relaxed);
  std::vector<RefPtr<RefCounted>> dropped;
  RefPtr<Task> untraced;
  ThreadGroup& group = child.thread_group();
  MutexLock lock(kernel.tree_mutex());
  untraced = TraceLink::UnlinkLocked(child);
  {
    MutexLock signal_lock(group.signal_mu_);
    group.RemoveTaskLocked(child);
  }
  for (const Pid::Number& n : child.pid_->numbers()) --n.ns->live_tasks;
  if (group.leader_ == &child) {
    TaskExit::ReleaseLocked(group, dropped);
  } else {
    child.pid_->task = nullptr;
    PidNamespace::ReleaseIfUnused(*child.pid_);
  }
  return started.error();
}

Result<int32_t> TaskCloner::Run(Task& t, const CloneRequest& r) {
  TRY(Check(t, r));
  Kernel& kernel = t.kernel();
  const uint64_t f = r.flags;
  ThreadGroup& mine = t.thread_group();

  RefPtr<UserAccount> account = t.account();
  const bool unlimited = t.cred().HasCapability(CAP_SYS_RESOURCE) || t.cred().HasCapability(CAP_SYS_ADMIN);
  if (static_cast<uint64_t>(account->processes.load(std::memory_order_relaxed)) >= mine.rlimits().Soft(RLIMIT_NPROC) &&
      account->uid != 0 && !unlimited) {
    return kEAGAIN;
  }
  if (static_cast<uint64_t>(kernel.task_count()) >= kernel.thread_limit()) return kEAGAIN;

  RefPtr<Task> child = NewTask(kernel);
  TRY(ShareOrCopy(t, *child, r));

  RefPtr<ThreadGroup> group(&mine);
  const bool new_process = (f & CLONE_THREAD) == 0;
  if (new_process) {
    RefPtr<SignalActions> actions = mine.actions();
    if ((f & CLONE_SIGHAND) == 0) actions = actions->Clone();
    if ((f & CLONE_CLEAR_SIGHAND) != 0) actions->ResetHandlers();
    group = MakeRef<ThreadGroup>(kernel, std::move(actions), mine.rlimits());
    group->exit_signal_.store((f & CLONE_PARENT) != 0 ? mine.exit_signal() : r.exit_signal, std::memory_order_relaxed);
    group->oom_score_adj.store(mine.oom_score_adj.load(std::memory_order_relaxed), std::memory_order_relaxed);
  }
  if ((f & CLONE_VFORK) != 0) {
    t.vfork_done_ = false;
    child->vfork_parent_ = RefPtr<Task>(&t);
  }

  const int event = TraceEvent(t, r);
  const auto enter = [&]() -> Result<void> {
    MutexLock lock(kernel.tree_mutex());
    // fork(2) is restarted after a signal that came before the child exists, so that the child need not get it.
    if (t.HasPendingInterrupt()) {
      MutexLock signal_lock(mine.signal_mu_);
      t.UpdateInterruptLocked();
      if (t.HasPendingInterrupt()) return kERESTARTNOINTR;
    }
    PidNamespace& ns = *child->pid_ns_for_children_;
    if (!r.set_tid.empty()) {
      const PidNamespace* level = &ns;
      for (size_t i = 0; i < r.set_tid.size(); ++i) {
        if (level == nullptr) return kEINVAL;
        if (!t.cred().HasCapabilityIn(CAP_SYS_ADMIN, level->owner()) &&
            !t.cred().HasCapabilityIn(CAP_CHECKPOINT_RESTORE, level->owner()))
          return kEPERM;
        level = level->parent();
      }
    }
    TRY(LinkLocked(*child, group, &t, ns, r.set_tid));
    if (event != 0 || (f & CLONE_PTRACE) != 0) TraceLink::InheritLocked(t, *child);
    if (new_process) {
      const bool sibling = (f & CLONE_PARENT) != 0;
      group->parent_ = sibling ? mine.parent_ : &mine;
      group->parent_task_ = sibling ? mine.parent_task_ : RefPtr<Task>(&t);
      group->process_group_ = mine.process_group_;
      group->process_group_->Add(*group);
      group->has_child_subreaper.store(mine.has_child_subreaper.load(std::memory_order_relaxed) ||
                                           mine.child_subreaper.load(std::memory_order_relaxed),
                                       std::memory_order_relaxed);
      if (group->parent_ != nullptr) group->parent_->children_.push_back(group);
    }
    return {};
  };
  if (Result<void> entered = enter(); !entered.ok()) {
    child->context_->Release();  // may wait for the stub thread to leave: not under the lock
    return entered.error();
  }

  RefPtr<Pid> child_id = child->pid();
  const int32_t tid = child_id->NrIn(*t.pid_ns());
  if ((f & CLONE_PIDFD) != 0) {
    Result<RefPtr<PidFile>> file = PidFile::Create(kernel, child->pid(), O_RDWR);
    Result<int> fd = file.ok() ? t.InstallFd(*file, true) : Result<int>(file.error());
    if (fd.ok() && t.memory().CopyOut(r.pidfd, &*fd, sizeof(int32_t)) != sizeof(int32_t)) {
      t.fds().Remove(*fd);
      fd = kEFAULT;
    }
    if (!fd.ok()) {
      child->context_->Release();
      std::vector<RefPtr<RefCounted>> dropped;
      RefPtr<Task> untraced;
      MutexLock lock(kernel.tree_mutex());
      untraced = TraceLink::UnlinkLocked(*child);
      {
        MutexLock signal_lock(group->signal_mu_);
        group->RemoveTaskLocked(*child);
      }
      for (const Pid::Number& n : child->pid_->numbers()) --n.ns->live_tasks;
      TaskExit::ReleaseLocked(*group, dropped);
      return fd.error();
    }
  }
  if ((f & CLONE_PARENT_SETTID) != 0) (void)t.memory().CopyOut(r.parent_tid, &tid, sizeof tid);
  if (mine.exiting() && !new_process) child->killed_.store(true, std::memory_order_release);
  TRY(Start(*child));
  if (new_process) group->timers().UpdateCpuLimit();
  if (event != 0) TraceStop::Event(t, event, *child_id);

  if ((f & CLONE_VFORK) != 0) {
    bool done = false;
    for (;;) {
      {
        MutexLock lock(kernel.tree_mutex());
        done = t.vfork_done_;
        if (done) break;
      }
      if (!ParkKillable(t, kNoDeadline).ok()) break;
    }
    {
      MutexLock lock(kernel.tree_mutex());
      if (!t.vfork_done_) child->vfork_parent_ = nullptr;
    }
    if (done) TraceStop::Event(t, PTRACE_EVENT_VFORK_DONE, *child_id);
  }
  return tid;
}

Result<int32_t> CloneTask(Task& t, const CloneRequest& request) { return TaskCloner::Run(t, request); }

}  // namespace moat
