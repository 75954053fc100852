#include "sentry/kernel/task_exit.h"

#include <sys/epoll.h>
#include <sys/wait.h>

#include <algorithm>

#include "sentry/kernel/child_event.h"
#include "sentry/kernel/file_close.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/job_control.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/process_timers.h"
#include "sentry/kernel/rseq.h"
#include "sentry/kernel/signal_sender.h"
#include "sentry/kernel/trace_link.h"
#include "sentry/kernel/trace_stop.h"

namespace moat {

namespace {

// SIGCHLD's siginfo about the end of a traced thread or process.
SigInfo EndSigInfo(Task& t, ThreadGroup& tracers, int status) {
  const int code = WIFEXITED(status) ? CLD_EXITED : WCOREDUMP(status) ? CLD_DUMPED : CLD_KILLED;
  return ThreadSigInfo(t, tracers, code, WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
}

}  // namespace

// A thread that is no leader has ended: its tracer may wait for it.
void TaskExit::TellTracers(Task& t, ThreadGroup& tracers) {
  {
    MutexLock lock(t.kernel().tree_mutex());
    (void)tracers.SendSignal(EndSigInfo(t, tracers, t.exit_status_), true);
  }
  tracers.child_queue_.Notify(EPOLLIN);
}

void TaskExit::ReleaseVforkParent(Task& t) {
  RefPtr<Task> parent;
  {
    MutexLock lock(t.kernel().tree_mutex());
    if (!t.vfork_parent_) return;
    parent = std::move(t.vfork_parent_);
    parent->vfork_done_ = true;
  }
  parent->parker().Unpark();
}

void TaskExit::LeaveMemory(Task& t) {
  MemoryManager& mm = t.memory();
  FutexTable& futexes = t.kernel().futexes();
  t.releases_futexes_.store(true, std::memory_order_seq_cst);
  futexes.ReleaseAtExit(mm, t.tid(), t.robust_list);
  t.robust_list = 0;
  rseq::Leave(t);
  if (t.clear_child_tid != 0) {
    // Whoever joins the thread may look for it by its id at once: from here on signals do not find it.
    t.leaving_.store(true, std::memory_order_release);
    const int32_t zero = 0;
    (void)mm.CopyOut(t.clear_child_tid, &zero, sizeof zero);
    (void)futexes.Wake(mm, t.clear_child_tid, true, 1, ~0u);
    t.clear_child_tid = 0;
  }
  mm.NoteCalls(*t.context_);
  (void)mm.FlushPending(t.context_.get());
}

void Task::Exit() { TaskExit::Run(*this); }

void TaskExit::Run(Task& t) {
  Kernel& kernel = t.kernel();
  RefPtr<CoreDump> core;
  {
    MutexLock lock(t.thread_group().signal_mu_);
    core = t.thread_group().core_dump_;
  }
  if (core) core->Join(t);
  if (t.thread_group().exiting()) {
    MutexLock lock(t.thread_group().signal_mu_);
    t.exit_status_ = t.thread_group().group_exit_status_;
  }
  TraceStop::Exit(t, t.exit_status_);
  const bool is_last = t.thread_group().unexited_tasks_.fetch_sub(1, std::memory_order_acq_rel) == 1;
  ResourceUsage peak;
  if (t.mm_) {
    LeaveMemory(t);
    // Who is left has the same memory; to look through all of it is no work for every thread.
    if (is_last) peak.max_rss = t.mm_->Usage().peak_rss;
  }
  ReleaseVforkParent(t);
  if (t.fd_table_ && t.fd_table_->DropUser()) {
    Task::FsCall fs(t);
    CloseFiles(fs, t.fd_table_->RemoveAll());
  }
  // The stub thread goes before the address space can.
  t.context_->Release();
  {
    RefPtr<MemoryManager> mm;
    RefPtr<FdTable> fds;
    RefPtr<FsContext> fs;
    MutexLock lock(t.mu_);
    std::swap(mm, t.mm_);
    std::swap(fds, t.fd_table_);
    std::swap(fs, t.fs_context_);
  }
  {
    MutexLock lock(kernel.tree_mutex());
    t.thread_group().dead_tasks_usage_.Add(peak);
  }
  if (RemoveTask(t)) {
    t.thread_group().RunExitHooks();
    t.thread_group().aio().Clear();
    EndGroup(t);
  }
  t.SetAccount(nullptr);
  if (kernel.tasks_.fetch_sub(1, std::memory_order_acq_rel) == 1) kernel.idle_queue_.Notify(EPOLLIN);
}

// PDEATHSIG: of the thread that made the child, whatever becomes of its process. The child has its new parent by the
// time that it gets the signal.
void TaskExit::AddDeathSignals(ThreadGroup& child, DeferredSignals& signals) {
  for (const RefPtr<Task>& thread : child.tasks_) {
    if (const int signo = thread->parent_death_signal(); signo != 0) signals.Add(child, MakeSigInfo(signo, SI_KERNEL));
  }
}

// True for the last task of its group. From now on the task has no place in the process, but for a leader's.
bool TaskExit::RemoveTask(Task& t) {
  ThreadGroup& group = t.thread_group();
  RefPtr<Task> keep(&t);  // the list's reference may be the one that the caller lives on
  DeferredSignals signals;
  bool last = false;
  int stop_report = 0;
  RefPtr<Task> exec_task;
  RefPtr<ThreadGroup> tracers;
  TraceLink::TracerExits(t);
  {
    MutexLock lock(t.kernel().tree_mutex());
    MutexLock signal_lock(group.signal_mu_);
    ResourceUsage usage;
    usage.voluntary_switches = t.voluntary_switches();
    usage.io = t.io().counts();
    group.dead_tasks_usage_.Add(usage);
    group.RemoveTaskLocked(t);
    t.exited_.store(true, std::memory_order_release);
    last = group.tasks_.empty();
    exec_task = group.exec_task_;
    // The last thread to end gives the status, unless exit_group or a signal did.
    // This one may have begun to end, with a status of its own, before the group did.
    if (group.exiting()) {
      group.exit_status_.store(group.group_exit_status_, std::memory_order_relaxed);
    } else if (last) {
      group.exit_status_.store(t.exit_status_, std::memory_order_relaxed);
    }
    // The others may have been waiting only for this one to stop.
    if (!last) stop_report = group.StopIsCompleteLocked();
    // The last thread's children are handed on when the process ends.
    for (const RefPtr<ThreadGroup>& child : group.children_) {
      if (last || child->parent_task_ != &t) continue;
      AddDeathSignals(*child, signals);
      child->parent_task_ = group.tasks_.front();
    }
    if (group.leader_ != &t && t.trace_.tracer != nullptr) {
      t.trace_.zombie = true;
      ++group.traced_zombies_;
      tracers = RefPtr<ThreadGroup>(&t.trace_.tracer->thread_group());
    } else if (group.leader_ != &t) {
      Pid& pid = *t.pid_;
      pid.task = nullptr;
      PidNamespace::ReleaseIfUnused(pid);
    }
    for (const Pid::Number& n : t.pid_->numbers()) --n.ns->live_tasks;
  }
  if (exec_task) exec_task->parker().Unpark();
  if (tracers) TellTracers(t, *tracers);
  if (stop_report != 0) ReportStopped(group, stop_report);
  return last;
}

// pid_namespaces(7): when init ends, the kernel ends all other processes of the namespace, and init waits for them.
void TaskExit::EmptyPidNamespace(Task& t) {
  Kernel& kernel = t.kernel();
  PidNamespace& ns = t.thread_group().pid_ns();
  if (t.thread_group().pid().nr() != 1) return;
  for (;;) {
    std::vector<RefPtr<ThreadGroup>> victims;
    {
      MutexLock lock(kernel.tree_mutex());
      ns.dying = true;
      if (ns.live_tasks == 0) break;
      for (int32_t nr : ns.ThreadGroupIds()) {
        ThreadGroup* group = ns.Find(nr)->thread_group;
        if (group != &t.thread_group() && !group->IsZombie()) victims.emplace_back(group);
      }
    }
    for (RefPtr<ThreadGroup>& victim : victims) victim->Kill(SIGKILL);
    victims.clear();
    // Ends are not announced to us one by one; look again soon.
    constexpr Nanos kPoll = 1'000'000;
    t.Park(DeadlineAfter(kPoll));
  }
}

ThreadGroup* TaskExit::FindReaper(ThreadGroup& group) {
  PidNamespace& ns = group.pid_ns();
  for (ThreadGroup* g = group.parent_; g != nullptr && &g->pid_ns() == &ns; g = g->parent_) {
    if (g->child_subreaper.load(std::memory_order_relaxed) && !g->exiting() && !g->IsZombie()) return g;
  }
  ThreadGroup* init = ns.init();
  return init == &group || init == nullptr || init->IsZombie() ? nullptr : init;
}

void TaskExit::CheckOrphans(ThreadGroup& group, ProcessGroup& changed, const ThreadGroup* without,
                            DeferredSignals& signals) {
  if (!changed.IsOrphaned(without) || !changed.HasStoppedMember()) return;
  signals.AddToGroup(changed, SIGHUP);
  signals.AddToGroup(changed, SIGCONT);
}

void TaskExit::HandOnChildren(ThreadGroup& group, DeferredSignals& signals, std::vector<RefPtr<RefCounted>>& dropped) {
  std::vector<RefPtr<ThreadGroup>> children;
  children.swap(group.children_);
  ThreadGroup* reaper = FindReaper(group);
  for (RefPtr<ThreadGroup>& child : children) {
    AddDeathSignals(*child, signals);
    child->parent_ = reaper;
    child->parent_task_ = reaper != nullptr && !reaper->tasks_.empty() ? reaper->tasks_.front() : nullptr;
    child->exit_signal_.store(SIGCHLD, std::memory_order_relaxed);
    for (const RefPtr<Task>& task : child->tasks_) task->WithdrawIdentity();
    if (child->process_group_ && child->process_group_ != group.process_group_ &&
        &child->process_group_->session() == &group.process_group_->session()) {
      CheckOrphans(group, *child->process_group_, nullptr, signals);
    }
    if (reaper == nullptr) {
      if (child->IsZombie()) ReleaseLocked(*child, dropped);
      dropped.push_back(std::move(child));
      continue;
    }
    reaper->children_.push_back(child);
    if (child->IsZombie()) {
      if (child->leader_->trace_.tracer == nullptr) AnnounceEnd(*child, signals, dropped);
    }
  }
}

// True when nobody will wait for the zombie: it can go at once.
bool TaskExit::NotifyParent(ThreadGroup& group, DeferredSignals& signals) {
  ThreadGroup* parent = group.parent_;
  if (parent == nullptr) return false;
  const int signo = group.exit_signal();
  bool ignored = false;
  bool send = signo != 0;
  if (signo == SIGCHLD) {
    const abi::KernelSigAction action = parent->actions()->Get(SIGCHLD);
    if (action.handler == 1) {
      ignored = true;
      send = false;
    } else if ((action.flags & SA_NOCLDWAIT) != 0) {
      ignored = true;
    }
  }
  if (parent->exiting() && parent->pid().nr() == 1) ignored = true;
  if (send) {
    const int status = group.exit_status();
    const int code = WIFEXITED(status) ? CLD_EXITED : WCOREDUMP(status) ? CLD_DUMPED : CLD_KILLED;
    const int value = WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status);
    const SigInfo info = ChildSigInfo(group, *parent, signo, code, value);
    // Before the wake-up, so that whoever has waited for the child has its signal. SIGCONT alone needs the tree mutex
    // itself, to report that the parent goes on.
    if (signo == SIGCONT) {
      signals.Add(*parent, info);
    } else {
      (void)parent->SendSignal(info, true);
    }
  }
  parent->child_queue_.Notify(EPOLLIN);
  return ignored;
}

void TaskExit::AnnounceEnd(ThreadGroup& group, DeferredSignals& signals, std::vector<RefPtr<RefCounted>>& dropped) {
  if (group.traced_zombies_ != 0 || group.reaped_) return;
  const Task* tracer = group.leader_->trace_.tracer;
  if (tracer == nullptr) {
    if (NotifyParent(group, signals)) ReleaseLocked(group, dropped);
    return;
  }
  // The tracer is first; whatever it does about SIGCHLD, the process stays until it has waited.
  ThreadGroup& tracers = tracer->thread_group();
  const int signo = &tracers == group.parent_ ? group.exit_signal() : SIGCHLD;
  SigInfo info = EndSigInfo(*group.leader_, tracers, group.exit_status());
  info.si_signo = signo;
  if (signo == SIGCONT) {
    signals.Add(tracers, info);
  } else if (signo != 0) {
    (void)tracers.SendSignal(info, true);
  }
  tracers.child_queue_.Notify(EPOLLIN);
}

void TaskExit::ReleaseThreadLocked(Task& t, DeferredSignals& signals, std::vector<RefPtr<RefCounted>>& dropped) {
  t.trace_.zombie = false;
  dropped.emplace_back(TraceLink::UnlinkLocked(t));
  Pid& pid = *t.pid_;
  pid.task = nullptr;
  PidNamespace::ReleaseIfUnused(pid);
  ThreadGroup& group = t.thread_group();
  if (--group.traced_zombies_ == 0 && group.IsZombie()) AnnounceEnd(group, signals, dropped);
}

void TaskExit::TracerWaitedLocked(Task& t, DeferredSignals& signals, std::vector<RefPtr<RefCounted>>& dropped) {
  if (t.trace_.zombie) {
    ReleaseThreadLocked(t, signals, dropped);
    return;
  }
  dropped.emplace_back(TraceLink::UnlinkLocked(t));
  AnnounceEnd(t.thread_group(), signals, dropped);
}

void TaskExit::TracerGoneLocked(Task& t, ThreadGroup& tracers, DeferredSignals& signals,
                                std::vector<RefPtr<RefCounted>>& dropped) {
  if (t.trace_.zombie) {
    ReleaseThreadLocked(t, signals, dropped);
    return;
  }
  ThreadGroup& group = t.thread_group();
  const bool ended = group.IsZombie() && group.leader_ == &t;
  dropped.emplace_back(TraceLink::UnlinkLocked(t));
  // A parent that was the tracer as well has heard of it.
  if (ended && group.parent_ != &tracers) AnnounceEnd(group, signals, dropped);
}

void TaskExit::EndGroup(Task& t) {
  ThreadGroup& group = t.thread_group();
  Kernel& kernel = t.kernel();
  RefPtr<ThreadGroup> keep(&group);
  group.timers().StopAll();
  EmptyPidNamespace(t);
  if (auto* jobs = static_cast<JobControl*>(tty_job_control); jobs != nullptr) jobs->LeaderExits(group);
  std::vector<RefPtr<RefCounted>> dropped;
  DeferredSignals signals;
  RefPtr<Pid> pid(&group.pid());
  {
    MutexLock lock(kernel.tree_mutex());
    if (ThreadGroup* parent = group.parent_; parent != nullptr && parent->process_group_ != group.process_group_ &&
                                             parent->process_group_ &&
                                             &parent->process_group_->session() == &group.process_group_->session()) {
      CheckOrphans(group, *group.process_group_, &group, signals);
    }
    HandOnChildren(group, signals, dropped);
    if (Session& session = group.process_group_->session(); session.leader == &group) session.leader = nullptr;
    group.stop_report_ = 0;
    group.continue_report_ = false;
    group.zombie_.store(true, std::memory_order_release);
    // getrusage(2): RUSAGE_CHILDREN counts children that were waited for, so not this one.
    AnnounceEnd(group, signals, dropped);
  }
  pid->wait_queue().Notify(EPOLLIN);
  kernel.TrimMemoryLater();
  if (kernel.on_process_exit) kernel.on_process_exit(group);
}

void TaskExit::ReleaseLocked(ThreadGroup& group, std::vector<RefPtr<RefCounted>>& dropped) {
  group.reaped_ = true;
  if (group.leader_) dropped.emplace_back(TraceLink::UnlinkLocked(*group.leader_));
  dropped.emplace_back(RefPtr<RefCounted>(&group));
  if (group.parent_ != nullptr) {
    std::erase_if(group.parent_->children_, [&](const RefPtr<ThreadGroup>& c) { return c == &group; });
    group.parent_ = nullptr;
  }
  if (group.process_group_) {
    group.process_group_->Remove(group);
    dropped.push_back(std::move(group.process_group_));
  }
  Pid& pid = *group.pid_;
  pid.task = nullptr;
  pid.thread_group = nullptr;
  PidNamespace::ReleaseIfUnused(pid);
  dropped.push_back(std::move(group.parent_task_));
  dropped.push_back(std::move(group.leader_));
  group.pid_->wait_queue().Notify(EPOLLIN | EPOLLHUP);
}

}  // namespace moat
