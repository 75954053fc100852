#include "sentry/kernel/trace_link.h"

#include <sys/ptrace.h>

#include <algorithm>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task_exit.h"

namespace moat {

// With the tree mutex and the tracee's signal mutex held.
void TraceLink::LinkLocked(Task& tracer, Task& tracee, RefPtr<const Credentials> cred, bool seized, uint32_t options) {
  TraceState& s = tracee.trace_;
  s.tracer = &tracer;
  s.tracer_cred = std::move(cred);
  s.seized = seized;
  s.options = options;
  s.trap_requested = s.notify = s.listening = false;
  s.stop_signo = 0;
  s.flags.store(TraceState::kTraced, std::memory_order_relaxed);
  tracer.trace_.tracees.emplace_back(&tracee);
  // From now on every call comes to the sentry.
  tracee.WithdrawIdentity();
}

// capabilities(7): the parent must have what the child may do.
Result<void> TraceLink::TraceMe(Task& t) {
  MutexLock tree(t.kernel().tree_mutex());
  Task* parent = t.thread_group().parent_task_.get();
  if (t.trace_.tracer != nullptr || parent == nullptr || parent->trace_.leaving || parent->exited()) return kEPERM;
  RefPtr<const Credentials> theirs = parent->credentials();
  const Credentials& mine = *t.cred_;
  if (!(theirs->user_ns == mine.user_ns && mine.permitted.IsSubsetOf(theirs->permitted)) &&
      !theirs->HasCapabilityIn(CAP_SYS_PTRACE, *mine.user_ns))
    return kEPERM;
  MutexLock lock(t.thread_group().signal_mu_);
  LinkLocked(*parent, t, std::move(theirs), false, 0);
  t.mm_->KeepCode();
  return {};
}

Result<void> TraceLink::Attach(Task& t, Task& target, bool seize, uint32_t options) {
  if (&target.thread_group() == &t.thread_group()) return kEPERM;
  if (!t.MayAccess(target, true)) return kEPERM;
  if (RefPtr<MemoryManager> mm = target.mm()) mm->KeepCode();
  ThreadGroup& group = target.thread_group();
  bool was_stopped = false;
  {
    MutexLock tree(t.kernel().tree_mutex());
    MutexLock lock(group.signal_mu_);
    if (target.exited() || target.trace_.tracer != nullptr || t.trace_.leaving) return kEPERM;
    LinkLocked(t, target, t.credentials(), seize, options);
    was_stopped = target.signals_.stopped;
    if (was_stopped) {
      // From the group's stop into the tracer's.
      target.signals_.stopped = false;
      target.trace_.stop_signo = group.stop_signal_;
      target.trace_.trap_requested = target.trace_.trapping = true;
      target.Kick();
    }
  }
  if (!seize) (void)target.SendSignal(KernelSigInfo(SIGSTOP), true);
  // Who has stopped a task before may rely on finding it stopped.
  while (was_stopped && !t.IsKilled()) {
    {
      MutexLock lock(group.signal_mu_);
      if (!target.trace_.trapping || target.IsKilled()) break;
    }
    t.SleepBriefly();
  }
  return {};
}

RefPtr<Task> TraceLink::UnlinkLocked(Task& tracee) {
  TraceState& s = tracee.trace_;
  RefPtr<Task> reference;
  if (s.tracer == nullptr) return reference;
  std::erase_if(s.tracer->trace_.tracees, [&](RefPtr<Task>& other) {
    if (other != &tracee) return false;
    reference = other;
    return true;
  });
  ThreadGroup& group = tracee.thread_group();
  MutexLock lock(group.signal_mu_);
  s.tracer = nullptr;
  s.tracer_cred = nullptr;
  s.flags.store(0, std::memory_order_relaxed);
  s.seized = false;
  s.options = 0;
  s.trap_requested = s.trapping = s.notify = s.listening = s.frozen = false;
  if (tracee.exited()) return reference;
  // A stop of its group that it has been kept out of has it now.
  if (group.stop_signal_ != 0 && !tracee.signals_.stopped) tracee.signals_.stop_requested = true;
  s.in_stop = false;
  tracee.UpdateInterruptLocked();
  if (tracee.HasPendingInterrupt()) tracee.Kick();
  tracee.parker_.Unpark();
  return reference;
}

void TraceLink::Detach(Task& tracee, int signo) {
  RefPtr<Task> dropped;
  MutexLock tree(tracee.kernel().tree_mutex());
  {
    MutexLock lock(tracee.thread_group().signal_mu_);
    tracee.trace_.code = signo;
  }
  dropped = UnlinkLocked(tracee);
}

bool TraceLink::Traces(Task& t, Task& tracee) {
  MutexLock tree(t.kernel().tree_mutex());
  return tracee.trace_.tracer == &t;
}

Result<void> TraceLink::Interrupt(Task& t, Task& tracee) {
  MutexLock tree(t.kernel().tree_mutex());
  MutexLock lock(tracee.thread_group().signal_mu_);
  TraceState& s = tracee.trace_;
  if (s.tracer != &t) return kESRCH;
  if (!s.seized) return kEIO;
  if (tracee.exited()) return {};
  s.trap_requested = true;
  if (s.listening) s.in_stop = false;
  tracee.Kick();
  return {};
}

void TraceLink::NotifyLocked(Task& tracee) {
  TraceState& s = tracee.trace_;
  if (!s.seized || tracee.exited()) return;
  s.notify = true;
  if (s.listening) s.in_stop = false;
  tracee.Kick();
}

void TraceLink::InheritLocked(Task& t, Task& child) {
  const TraceState& mine = t.trace_;
  if (mine.tracer == nullptr || mine.tracer->trace_.leaving) return;
  bool seized = false;
  uint32_t options = 0;
  {
    MutexLock lock(t.thread_group().signal_mu_);
    seized = mine.seized;
    options = mine.options;
  }
  MutexLock lock(child.thread_group().signal_mu_);
  LinkLocked(*mine.tracer, child, mine.tracer_cred, seized, options);
  if (seized) {
    child.trace_.trap_requested = true;
  } else {
    child.signals_.pending.Push(SIGSTOP, nullptr);
  }
  child.UpdateInterruptLocked();
}

void TraceLink::TracerExits(Task& t) {
  std::vector<RefPtr<RefCounted>> dropped;
  std::vector<RefPtr<Task>> victims;
  {
    DeferredSignals signals;
    MutexLock tree(t.kernel().tree_mutex());
    TraceState& s = t.trace_;
    s.leaving = true;
    while (!s.tracees.empty()) {
      RefPtr<Task> tracee = s.tracees.back();
      {
        MutexLock lock(tracee->thread_group().signal_mu_);
        if ((tracee->trace_.options & PTRACE_O_EXITKILL) != 0) victims.push_back(tracee);
        // What stands for a stop is no signal.
        if (!tracee->trace_.delivery) tracee->trace_.code = 0;
      }
      TaskExit::TracerGoneLocked(*tracee, t.thread_group(), signals, dropped);
      dropped.emplace_back(RefPtr<RefCounted>(tracee.get()));
    }
  }
  for (RefPtr<Task>& victim : victims) (void)victim->SendSignal(KernelSigInfo(SIGKILL), true);
}

bool TraceLink::TracerCapable(Task& t, const UserNamespace& ns) {
  RefPtr<const Credentials> cred;
  {
    MutexLock tree(t.kernel().tree_mutex());
    cred = t.trace_.tracer_cred;
  }
  return !cred || cred->HasCapabilityIn(CAP_SYS_PTRACE, ns);
}

bool TraceLink::TracedByParentLocked(const Task& t) {
  const Task* tracer = t.trace_.tracer;
  return tracer != nullptr && &tracer->thread_group() == t.thread_group().parent_;
}

bool TraceLink::TracedByParent(Task& t) {
  MutexLock tree(t.kernel().tree_mutex());
  return TracedByParentLocked(t);
}

int32_t TraceLink::TracerIdIn(Task& t, const PidNamespace& ns) {
  MutexLock tree(t.kernel().tree_mutex());
  return t.trace_.tracer == nullptr ? 0 : t.trace_.tracer->TidIn(ns);
}

int32_t TraceLink::AsTracerSees(Task& t, Pid& pid) {
  MutexLock tree(t.kernel().tree_mutex());
  return t.trace_.tracer == nullptr ? 0 : pid.NrIn(*t.trace_.tracer->pid_ns());
}

SigInfo TraceLink::TracerSigInfo(Task& t, int signo) {
  MutexLock tree(t.kernel().tree_mutex());
  const Task* tracer = t.trace_.tracer;
  if (tracer == nullptr) return UserSigInfo(signo, SI_USER, 0, 0);
  return UserSigInfo(signo, SI_USER, tracer->TidIn(*t.pid_ns()),
                     t.cred_->user_ns->FromKuid(tracer->credentials()->uid));
}

}  // namespace moat
