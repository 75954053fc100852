#include "sentry/kernel/thread_group.h"

#include <sys/epoll.h>

#include <algorithm>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/process_timers.h"
#include "sentry/kernel/task_exit.h"

namespace moat {

void ResourceUsage::Add(const ResourceUsage& o) {
  user += o.user;
  system += o.system;
  max_rss = std::max(max_rss, o.max_rss);
  minor_faults += o.minor_faults;
  major_faults += o.major_faults;
  voluntary_switches += o.voluntary_switches;
  involuntary_switches += o.involuntary_switches;
  io.Add(o.io);
}

abi::Rusage ResourceUsage::ToRusage() const {
  abi::Rusage r{};
  r.ru_utime = {user / kNanosPerSec, user % kNanosPerSec / 1000};
  r.ru_stime = {system / kNanosPerSec, system % kNanosPerSec / 1000};
  r.ru_maxrss = static_cast<long>(max_rss / 1024);
  r.ru_minflt = static_cast<long>(minor_faults);
  r.ru_majflt = static_cast<long>(major_faults);
  r.ru_nvcsw = static_cast<long>(voluntary_switches);
  r.ru_nivcsw = static_cast<long>(involuntary_switches);
  return r;
}

ThreadGroup::ThreadGroup(Kernel& kernel, RefPtr<SignalActions> actions, const Rlimits& rlimits)
    : kernel_(kernel),
      rlimits_(rlimits),
      timers_(std::make_unique<ProcessTimers>(*this)),
      actions_(std::move(actions)) {}

ThreadGroup::~ThreadGroup() = default;

RefPtr<Task> ThreadGroup::leader() const {
  MutexLock lock(kernel_.tree_mutex());
  return leader_;
}

std::vector<RefPtr<Task>> ThreadGroup::tasks() const {
  MutexLock lock(signal_mu_);
  return tasks_;
}

RefPtr<Task> ThreadGroup::FindTask(int32_t tid, const PidNamespace& ns) const {
  for (const RefPtr<Task>& t : tasks()) {
    if (t->TidIn(ns) == tid) return t;
  }
  return nullptr;
}

RefPtr<ThreadGroup> ThreadGroup::parent() const {
  MutexLock lock(kernel_.tree_mutex());
  return RefPtr<ThreadGroup>(parent_);
}

int32_t ThreadGroup::ParentIdIn(const PidNamespace& ns) const {
  MutexLock lock(kernel_.tree_mutex());
  return parent_ == nullptr ? 0 : parent_->IdIn(ns);
}

std::vector<RefPtr<ThreadGroup>> ThreadGroup::children() const {
  MutexLock lock(kernel_.tree_mutex());
  return children_;
}

int32_t ThreadGroup::ProcessGroupIdIn(const PidNamespace& ns) const {
  MutexLock lock(kernel_.tree_mutex());
  return process_group_ ? process_group_->id().NrIn(ns) : 0;
}

int32_t ThreadGroup::SessionIdIn(const PidNamespace& ns) const {
  MutexLock lock(kernel_.tree_mutex());
  return process_group_ ? process_group_->session().id().NrIn(ns) : 0;
}

RefPtr<ProcessGroup> ThreadGroup::process_group() const {
  MutexLock lock(kernel_.tree_mutex());
  return process_group_;
}

RefPtr<Session> ThreadGroup::session() const {
  MutexLock lock(kernel_.tree_mutex());
  return process_group_ ? RefPtr<Session>(&process_group_->session()) : nullptr;
}

RefPtr<Tty> ThreadGroup::controlling_tty() const {
  MutexLock lock(kernel_.tree_mutex());
  return process_group_ ? process_group_->session().controlling_tty : nullptr;
}

int32_t ThreadGroup::ForegroundGroupIdIn(const PidNamespace& ns) const {
  MutexLock lock(kernel_.tree_mutex());
  if (!process_group_) return -1;
  const RefPtr<Tty>& tty = process_group_->session().controlling_tty;
  if (!tty) return -1;
  auto* foreground = static_cast<ProcessGroup*>(tty->job_slot.foreground.get());
  return foreground == nullptr ? 0 : foreground->id().NrIn(ns);
}

RefPtr<SignalActions> ThreadGroup::actions() const {
  MutexLock lock(signal_mu_);
  return actions_;
}

int ThreadGroup::StopSignal() const {
  MutexLock lock(signal_mu_);
  return stop_signal_;
}

int ThreadGroup::StopIsCompleteLocked() {
  if (stop_signal_ == 0 || stop_reported_) return 0;
  for (const RefPtr<Task>& t : tasks_) {
    if (!t->signals_.stopped && !t->signals_.counted && !t->exited()) return 0;
  }
  stop_reported_ = true;
  return stop_signal_;
}

int ThreadGroup::TakePartInStopLocked(Task& t) {
  t.signals_.counted = true;
  return StopIsCompleteLocked();
}

SignalSet ThreadGroup::SharedPendingSet() const {
  MutexLock lock(signal_mu_);
  return shared_pending_.set();
}

void ThreadGroup::DropPendingLocked(SignalSet which) {
  shared_pending_.RemoveAll(which);
  for (const RefPtr<Task>& t : tasks_) {
    t->signals_.pending.RemoveAll(which);
    t->UpdateInterruptLocked();
  }
}

ResourceUsage ThreadGroup::UsageLocked() const {
  ResourceUsage sum = dead_tasks_usage_;
  for (const RefPtr<Task>& t : tasks_) {
    sum.voluntary_switches += t->voluntary_switches();
    sum.io.Add(t->io().counts());
  }
  const CpuTimes times = cpu_times();
  sum.user += times.user;
  sum.system += times.system;
  return sum;
}

ResourceUsage ThreadGroup::Usage() const {
  ResourceUsage sum;
  RefPtr<Task> first;
  {
    MutexLock lock(kernel_.tree_mutex());
    sum = UsageLocked();
    if (!tasks_.empty()) first = tasks_.front();
  }
  // The peak is the address space's own; it may only be asked without locks.
  if (first) {
    if (RefPtr<MemoryManager> mm = first->mm()) sum.max_rss = std::max(sum.max_rss, mm->Usage().peak_rss);
  }
  return sum;
}

ResourceUsage ThreadGroup::ChildrenUsage() const {
  MutexLock lock(kernel_.tree_mutex());
  return children_usage_;
}

CpuTimes ThreadGroup::cpu_times() const {
  MutexLock lock(times_mu_);
  CpuTimes sum = dead_times_;
  for (const Task* t : timed_tasks_) {
    const CpuTimes times = t->cpu_times();
    sum.user += times.user;
    sum.system += times.system;
  }
  return sum;
}

void ThreadGroup::AddTaskLocked(Task& t) {
  tasks_.emplace_back(&t);
  live_tasks_.fetch_add(1, std::memory_order_relaxed);
  unexited_tasks_.fetch_add(1, std::memory_order_relaxed);
  MutexLock lock(times_mu_);
  timed_tasks_.push_back(&t);
}

void ThreadGroup::RemoveTaskLocked(Task& t) {
  {
    MutexLock lock(times_mu_);
    std::erase(timed_tasks_, &t);
    const CpuTimes times = t.cpu_times();
    dead_times_.user += times.user;
    dead_times_.system += times.system;
  }
  live_tasks_.fetch_sub(1, std::memory_order_relaxed);
  std::erase_if(tasks_, [&](const RefPtr<Task>& other) { return other == &t; });
}

int ThreadGroup::WaitForExit() {
  Parker parker;
  ParkerWaiter waiter(EPOLLIN, parker);
  pid_->wait_queue().Add(waiter);
  while (!IsZombie()) parker.Park();
  pid_->wait_queue().Remove(waiter);
  return exit_status();
}

void ThreadGroup::Reap() {
  std::vector<RefPtr<RefCounted>> dropped;
  MutexLock lock(kernel_.tree_mutex());
  if (IsZombie() && !reaped_) TaskExit::ReleaseLocked(*this, dropped);
}

Result<void> ThreadGroup::SetSession(int32_t* new_id) {
  RefPtr<Session> old_session;  // dropped after the lock
  RefPtr<ProcessGroup> old_group;
  MutexLock lock(kernel_.tree_mutex());
  // A process group leader may not, nor one whose id a group still has.
  if (pid_->process_group != nullptr || pid_->session != nullptr) return kEPERM;
  RefPtr<Session> session = MakeRef<Session>(pid_);
  session->leader = this;
  old_group = process_group_;
  old_group->Remove(*this);
  process_group_ = MakeRef<ProcessGroup>(pid_, std::move(session));
  process_group_->Add(*this);
  *new_id = pid_->nr();
  return {};
}

Result<void> ThreadGroup::SetProcessGroup(Task& caller, int32_t pid, int32_t pgid) {
  if (pgid < 0 || pid < 0) return kEINVAL;
  Kernel& kernel = caller.kernel();
  RefPtr<PidNamespace> ns = caller.pid_ns();
  RefPtr<ProcessGroup> old_group;
  ThreadGroup& self = caller.thread_group();
  MutexLock lock(kernel.tree_mutex());
  Pid* target_pid = pid == 0 ? self.pid_.get() : ns->Find(pid);
  ThreadGroup* target = target_pid == nullptr ? nullptr : target_pid->thread_group;
  if (target == nullptr || target->IsZombie()) return kESRCH;
  if (target != &self) {
    if (target->parent_ != &self) return kESRCH;
    if (&target->process_group_->session() != &self.process_group_->session()) return kEPERM;
    if (target->did_exec.load(std::memory_order_relaxed)) return kEACCES;
  }
  Session& session = target->process_group_->session();
  if (session.leader == target) return kEPERM;
  Pid* group_pid = pgid == 0 || pgid == target->IdIn(*ns) ? target->pid_.get() : ns->Find(pgid);
  if (group_pid == nullptr) return kEPERM;
  ProcessGroup* group = group_pid->process_group;
  if (group == nullptr && group_pid != target->pid_.get()) return kEPERM;
  if (group != nullptr && &group->session() != &session) return kEPERM;
  if (group == target->process_group_.get()) return {};
  RefPtr<ProcessGroup> joined = group != nullptr
                                    ? RefPtr<ProcessGroup>(group)
                                    : MakeRef<ProcessGroup>(RefPtr<Pid>(group_pid), RefPtr<Session>(&session));
  old_group = target->process_group_;
  joined->Add(*target);
  target->process_group_ = std::move(joined);
  old_group->Remove(*target);
  return {};
}

void ThreadGroup::RunExitHooks() {
  std::vector<RefPtr<ProcessExitHook>> hooks;
  {
    MutexLock lock(exit_hooks_mu_);
    hooks.swap(exit_hooks_);
  }
  for (RefPtr<ProcessExitHook>& hook : hooks) hook->OnProcessExit(*this);
}

}  // namespace moat
