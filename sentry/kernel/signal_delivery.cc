#include "sentry/kernel/signal_delivery.h"

#include <sys/syscall.h>

#include "sentry/kernel/child_event.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/process_timers.h"
#include "sentry/kernel/rseq.h"
#include "sentry/kernel/signal_sender.h"
#include "sentry/kernel/trace_stop.h"

namespace moat {

namespace {
constexpr int kSyscallInstructionLength = 2;
}

void Task::UpdateInterruptLocked() {
  const SignalSet pending = signals_.pending.set() | thread_group_->shared_pending_.set();
  const SignalSet blocked = signal_mask() & ~signals_.waiting_for;
  const bool work = killed_.load(std::memory_order_relaxed) || signals_.stop_requested || trace_.trap_requested ||
                    trace_.notify || !(pending & ~blocked).empty();
  interrupt_.store(work, std::memory_order_seq_cst);
}

void Task::SetSignalMask(SignalSet mask) {
  MutexLock lock(thread_group_->signal_mutex());
  signals_.mask.store((mask & ~kUnblockable).bits, std::memory_order_relaxed);
  UpdateInterruptLocked();
}

void Task::SetTemporaryMask(SignalSet set) {
  if (!signals_.has_saved_mask) {
    signals_.saved_mask = signal_mask();
    signals_.has_saved_mask = true;
  }
  SetSignalMask(set);
}

void Task::FinishSyscall(const Result<int64_t>& result) {
  if (result.ok()) {
    regs_.SetReturn(*result);
    interrupted_call_ = false;
  } else {
    const Errno e = result.error();
    regs_.SetReturn(-static_cast<int64_t>(e));
    interrupted_call_ = e >= kERESTARTSYS && e <= kERESTART_RESTARTBLOCK;
  }
  // After an interrupted call delivery ends the temporary mask: its handler runs under it.
  const bool interrupted = interrupted_call_ || (!result.ok() && result.error() == kEINTR);
  if (signals_.has_saved_mask && !interrupted) [[unlikely]] {
    signals_.has_saved_mask = false;
    SetSignalMask(signals_.saved_mask);
  }
}

bool SignalDelivery::OnAltStack(const Task& t, GuestAddr sp) {
  const abi::SigStack& s = t.signals_.alt_stack;
  if ((static_cast<uint32_t>(s.flags) & abi::kSsAutodisarm) != 0) return false;
  return s.size != 0 && sp > s.sp && sp - s.sp <= s.size;
}

// SIGTSTP, SIGTTIN and SIGTTOU do not stop an orphaned process group.
bool SignalDelivery::OrphanedStop(Task& t) {
  ThreadGroup& group = t.thread_group();
  MutexLock lock(t.kernel().tree_mutex());
  return group.process_group_ && group.process_group_->IsOrphaned();
}

void SignalDelivery::ParkStopped(Task& t) {
  ThreadGroup& group = t.thread_group();
  int report = 0;
  {
    MutexLock lock(group.signal_mu_);
    if (!t.signals_.stop_requested || group.stop_signal_ == 0) {
      t.signals_.stop_requested = false;
      t.UpdateInterruptLocked();
      return;
    }
    t.signals_.stop_requested = false;
    t.signals_.stopped = true;
    report = group.TakePartInStopLocked(t);
  }
  if (report != 0) ReportStopped(group, report);
  for (;;) {
    {
      MutexLock lock(group.signal_mu_);
      if (!t.signals_.stopped || t.IsKilled()) break;
    }
    t.Park(kNoDeadline);
  }
  MutexLock lock(group.signal_mu_);
  t.signals_.stopped = false;
  t.UpdateInterruptLocked();
}

// What becomes of a signal that the task has taken: true for a handler. Otherwise `stop` is the signal when it stops
// the group, `core` the dump when it ends it with one.
bool SignalDelivery::DecideLocked(Task& t, ThreadGroup& group, int signo, Handler& out, int& stop,
                                  RefPtr<CoreDump>& core) {
  const uint64_t handler = group.actions_->Get(signo).handler;
  const DefaultAction action = DefaultActionOf(signo);
  if (handler > 1) {
    out.action = group.actions_->Take(signo);
    return out.action.handler > 1;
  }
  if (handler != 0 || (group.unkillable_ && !kUnblockable.Has(signo))) return false;
  if (action == DefaultAction::kStop) {
    stop = signo;
  } else if (action == DefaultAction::kTerminate || action == DefaultAction::kCore) {
    if (action == DefaultAction::kCore && !group.exiting() && CoreDump::Wanted(t))
      core = group.core_dump_ = MakeRef<CoreDump>(t);
    SignalSender::KillLocked(group, signo);
  }
  return false;
}

bool SignalDelivery::Next(Task& t, Handler& out) {
  ThreadGroup& group = t.thread_group();
  for (;;) {
    bool park = false, handle = false, traced = false;
    int signo = 0, stop = 0;
    RefPtr<CoreDump> core;
    uint64_t continues = 0;
    {
      MutexLock lock(group.signal_mu_);
      if (t.IsKilled()) {
        t.exit_requested_ = true;
        if (group.exiting()) t.exit_status_ = group.group_exit_status_;
        return false;
      }
      // A tracer that attaches does so under this lock: the signal that is taken here is its to see, or came before.
      traced = TraceStop::Traced(t);
      out.action = {};
      out.info.si_code = 0;
      if (t.signals_.stop_requested || t.trace_.trap_requested || t.trace_.notify) {
        park = true;
      } else {
        signo = t.signals_.pending.Pop(t.signal_mask(), &out.info);
        if (signo == 0) signo = group.shared_pending_.Pop(t.signal_mask(), &out.info);
        t.UpdateInterruptLocked();
        if (signo == 0) return false;
        continues = group.continue_count_;
        if (!traced) handle = DecideLocked(t, group, signo, out, stop, core);
      }
    }
    if (park) {
      if (traced) {
        TraceStop::JobControl(t);
      } else {
        ParkStopped(t);
      }
      continue;
    }
    if (out.info.si_code == SI_TIMER) group.timers().OnSignalDequeued(out.info);
    if (traced) {
      signo = TraceStop::Signal(t, out.info);
      if (signo == 0) continue;
      MutexLock lock(group.signal_mu_);
      if (!t.IsKilled()) handle = DecideLocked(t, group, signo, out, stop, core);
    }
    if (handle) return true;
    if (core) {
      core->Run(out.info);
    } else if (stop != 0) {
      if (stop != SIGSTOP && OrphanedStop(t)) continue;
      MutexLock lock(group.signal_mu_);
      // A SIGCONT that came in between has won.
      if (continues == group.continue_count_) SignalSender::StopLocked(group, stop, TraceStop::Traced(t));
    }
  }
}

void SignalDelivery::Restart(Task& t, const Handler* handler) {
  if (!t.interrupted_call_) return;
  t.interrupted_call_ = false;
  Registers& regs = t.regs_;
  const Errno code = static_cast<Errno>(-regs.Return());
  const bool again = handler == nullptr || code == kERESTARTNOINTR ||
                     (code == kERESTARTSYS && (handler->action.flags & SA_RESTART) != 0);
  if (!again) {
    regs.SetReturn(-EINTR);
    return;
  }
  regs.gp.rax = code == kERESTART_RESTARTBLOCK ? SYS_restart_syscall : regs.gp.orig_rax;
  regs.gp.rip -= kSyscallInstructionLength;
}

void SignalDelivery::RestoreMask(Task& t) {
  if (!t.signals_.has_saved_mask) return;
  t.signals_.has_saved_mask = false;
  t.SetSignalMask(t.signals_.saved_mask);
}

void SignalDelivery::Enter(Task& t, const Handler& h) {
  const int signo = h.info.si_signo;
  rseq::Abort(t);
  if (t.exit_requested_) return;
  TraceStop::TakeTrapFlag(t);
  const SignalSet old = t.signals_.has_saved_mask ? t.signals_.saved_mask : t.signal_mask();
  Result<void> pushed = PushSignalFrame(t, h.info, h.action, old);
  t.signals_.has_saved_mask = false;
  if (!pushed.ok()) {
    // The handler of SIGSEGV itself cannot help when its own frame does not fit.
    if (signo == SIGSEGV) t.thread_group().actions()->Exchange(SIGSEGV, {});
    t.ForceSegv();
    return;
  }
  SignalSet mask = t.signal_mask() | SignalSet{h.action.mask};
  if ((h.action.flags & SA_NODEFER) == 0) mask.Add(signo);
  t.SetSignalMask(mask);
  if (t.trace_.Has(TraceState::kStep)) TraceStop::Handler(t);
}

void SignalDelivery::Run(Task& t) {
  Handler h;
  while (t.HasPendingInterrupt()) {
    if (Next(t, h)) {
      Restart(t, &h);
      Enter(t, h);
      continue;
    }
    if (t.exit_requested_) return;
    break;
  }
  Restart(t, nullptr);
  RestoreMask(t);
}

}  // namespace moat
