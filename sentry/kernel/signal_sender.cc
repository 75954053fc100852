#include "sentry/kernel/signal_sender.h"

#include "fs/anon/signal_source.h"
#include "sentry/kernel/child_event.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/trace_link.h"
#include "sentry/kernel/trace_stop.h"

namespace moat {

bool SignalSender::Wants(const Task& t, int signo) {
  if (t.exited() || t.killed_.load(std::memory_order_relaxed)) return false;
  if (signo == SIGKILL) return true;
  SignalSet blocked = t.signal_mask() & ~t.signals_.waiting_for;
  return !blocked.Has(signo) && !t.signals_.stopped && !t.trace_.in_stop;
}

bool SignalSender::Ignored(ThreadGroup& group, Task& target, int signo, bool from_outside) {
  // A blocked signal stays pending whatever its action: that may change before it is unblocked. A tracer sees them all.
  if (target.signal_mask().Has(signo) && !kUnblockable.Has(signo)) return false;
  if (TraceStop::Traced(target) && signo != SIGKILL) return false;
  const uint64_t handler = group.actions_->Get(signo).handler;
  if (group.unkillable_ && handler == 0 && !(from_outside && kUnblockable.Has(signo))) return true;
  return handler == 1 || (handler == 0 && DefaultActionOf(signo) == DefaultAction::kIgnore);
}

bool SignalSender::Continue(ThreadGroup& group) {
  group.shared_pending_.RemoveAll(kStopSignals);
  for (const RefPtr<Task>& t : group.tasks_) {
    t->signals_.pending.RemoveAll(kStopSignals);
    t->signals_.stop_requested = false;
    t->signals_.stopped = false;
    TraceLink::NotifyLocked(*t);
    t->parker_.Unpark();
  }
  ++group.continue_count_;
  if (group.stop_signal_ == 0) return false;
  group.stop_signal_ = 0;
  return std::exchange(group.stop_reported_, false);
}

void SignalSender::KillTaskLocked(Task& t) {
  t.killed_.store(true, std::memory_order_release);
  t.signals_.stopped = false;
  t.signals_.stop_requested = false;
  t.trace_.fatal = true;
  t.Kick();
}

void SignalSender::KillLocked(ThreadGroup& group, int status) {
  if (group.exiting_.load(std::memory_order_relaxed)) {
    // Some may have stopped once more on their way out, where a tracer's signals do not reach them any more.
    if (status == SIGKILL) {
      for (const RefPtr<Task>& t : group.tasks_) KillTaskLocked(*t);
    }
    return;
  }
  group.group_exit_status_ = status;
  group.exiting_.store(true, std::memory_order_release);
  group.stop_signal_ = 0;
  for (const RefPtr<Task>& t : group.tasks_) KillTaskLocked(*t);
}

void SignalSender::StopLocked(ThreadGroup& group, int signo, bool again) {
  if (group.exiting_.load(std::memory_order_relaxed) || (group.stop_signal_ != 0 && !again)) return;
  if (group.stop_signal_ == 0) {
    group.stop_signal_ = signo;
    group.stop_reported_ = false;
  }
  for (const RefPtr<Task>& t : group.tasks_) {
    if (t->exited() || t->signals_.stopped) continue;
    t->signals_.stop_requested = true;
    t->signals_.counted = false;
    t->trace_.stop_signo = signo;
    TraceLink::NotifyLocked(*t);
    t->Kick();
  }
}

Result<bool> SignalSender::Send(ThreadGroup& group, Task* target, const SigInfo& info, bool from_outside) {
  const int signo = info.si_signo;
  bool continued = false;
  bool queued_now = false;
  {
    MutexLock lock(group.signal_mu_);
    if (group.exiting_.load(std::memory_order_relaxed) || group.tasks_.empty()) return false;
    if (signo == SIGCONT) {
      continued = Continue(group);
    } else if (kStopSignals.Has(signo)) {
      group.shared_pending_.RemoveAll(SignalSet::Of(SIGCONT));
      for (const RefPtr<Task>& t : group.tasks_) t->signals_.pending.RemoveAll(SignalSet::Of(SIGCONT));
    }
    Task& first = target != nullptr ? *target : *group.tasks_.front();
    PendingSignals& pending = target != nullptr ? target->signals_.pending : group.shared_pending_;
    if (!Ignored(group, first, signo, from_outside) && !pending.HasStandard(signo)) {
      // Who takes it: the target, or any thread that does not block it.
      Task* taker = Wants(first, signo) ? &first : nullptr;
      if (target == nullptr && taker == nullptr) {
        for (const RefPtr<Task>& t : group.tasks_) {
          if (Wants(*t, signo)) {
            taker = t.get();
            break;
          }
        }
      }
      if (signo == SIGKILL) {
        KillLocked(group, SIGKILL);
        return true;
      }
      RefPtr<UserAccount> account = first.account();
      const bool queue_counts = signo >= abi::kFirstRealtime || info.si_code < 0;
      const uint64_t limit = group.rlimits_.Soft(RLIMIT_SIGPENDING);
      const uint64_t queued = account ? account->queued_signals.fetch_add(1, std::memory_order_relaxed) : 0;
      QueuedSignal* q = nullptr;
      if (queued < limit || !queue_counts) {
        q = new (std::nothrow) QueuedSignal{info, account, nullptr};
      }
      if (q == nullptr) {
        if (account) account->queued_signals.fetch_sub(1, std::memory_order_relaxed);
        if (signo >= abi::kFirstRealtime && info.si_code != SI_USER && info.si_code != SI_KERNEL) return kEAGAIN;
      }
      pending.Push(signo, q);
      queued_now = true;
      // A signal that ends the process ends it now, so that no thread goes on until the taker gets to it.
      const DefaultAction action = DefaultActionOf(signo);
      if (taker != nullptr && !taker->signal_mask().Has(signo) && action == DefaultAction::kTerminate &&
          !group.unkillable_ && group.actions_->Get(signo).handler == 0 && !TraceStop::Traced(*taker)) {
        KillLocked(group, signo);
        return true;
      }
      NotifySignalQueued(signo);
      if (taker != nullptr) taker->Kick();
    }
  }
  if (continued) ReportContinued(group);
  return queued_now;
}

Result<void> Task::SendSignal(const SigInfo& info, bool from_outside) {
  TRY(SignalSender::Send(*thread_group_, this, info, from_outside));
  return {};
}

Result<void> ThreadGroup::SendSignal(const SigInfo& info, bool from_outside) {
  TRY(SignalSender::Send(*this, nullptr, info, from_outside));
  return {};
}

void ThreadGroup::Kill(int status) {
  MutexLock lock(signal_mu_);
  SignalSender::KillLocked(*this, status);
}

void Task::ForceSignal(const SigInfo& info) {
  const int signo = info.si_signo;
  ThreadGroup& group = *thread_group_;
  MutexLock lock(group.signal_mu_);
  const uint64_t handler = group.actions_->Get(signo).handler;
  const bool blocked = signal_mask().Has(signo);
  if (blocked || handler == 1) {
    group.actions_->Exchange(signo, {});
    SignalSet mask = signal_mask();
    mask.Remove(signo);
    signals_.mask.store(mask.bits, std::memory_order_relaxed);
  }
  if ((blocked || handler <= 1) && !TraceStop::Traced(*this)) group.unkillable_ = false;
  if (!signals_.pending.HasStandard(signo))
    signals_.pending.Push(signo, new (std::nothrow) QueuedSignal{info, nullptr, nullptr});
  interrupt_.store(true, std::memory_order_release);
}

void Task::ForceSegv(int code, GuestAddr address) { ForceSignal(FaultSigInfo(SIGSEGV, code, address)); }

}  // namespace moat
