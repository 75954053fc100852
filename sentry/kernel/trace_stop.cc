#include "sentry/kernel/trace_stop.h"

#include <sys/epoll.h>
#include <sys/wait.h>

#include <algorithm>
#include <utility>

#include "platform/abi/ptrace.h"
#include "sentry/kernel/child_event.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/rseq.h"
#include "sentry/kernel/syscall_entry.h"
#include "sentry/kernel/trace_link.h"

namespace moat {
namespace {

constexpr uint64_t kTrapFlag = 1 << 8;
constexpr int kSysGood = 0x80;
constexpr int kEventShift = 8;
constexpr int kSigTrap = SIGTRAP;
constexpr int kSignalBits = 0x7f;

bool IsRestart(const Registers& regs) {
  const int64_t result = regs.Return();
  return static_cast<int32_t>(regs.gp.orig_rax) >= 0 && result <= -static_cast<int64_t>(kERESTARTSYS) &&
         result >= -static_cast<int64_t>(kERESTART_RESTARTBLOCK);
}

}  // namespace

bool TraceStop::Settle(Task& t) {
  if (t.regs_.complete || t.context_->Complete(t.regs_).ok()) return true;
  t.RequestGroupExit(rseq::Broken(t) ? SIGSEGV : SIGKILL);
  return false;
}

void TraceStop::TakeTrapFlag(Task& t) {
  if (std::exchange(t.trace_.trap_flag, false)) t.regs_.gp.eflags &= ~kTrapFlag;
}

void TraceStop::GiveTrapFlag(Task& t) {
  if ((t.regs_.gp.eflags & kTrapFlag) != 0) return;
  t.regs_.gp.eflags |= kTrapFlag;
  t.trace_.trap_flag = true;
}

bool TraceStop::Begin(Task& t, const Report& r, const SigInfo* info) {
  TraceState& s = t.trace_;
  Result<ExtendedState> extended = t.context_->GetExtendedState();
  MutexLock tree(t.kernel().tree_mutex());
  {
    MutexLock lock(t.thread_group().signal_mu_);
    if (s.tracer == nullptr || s.fatal) return false;
    s.extended = extended.ok() ? std::move(*extended) : ExtendedState();
    s.extended_changed = false;
    s.in_stop = true;
    s.listening = s.trapping = false;
    s.delivery = r.delivery;
    s.code = r.code;
    s.message = r.message;
    s.has_info = info != nullptr;
    if (info != nullptr) s.info = *info;
  }
  TellTracer(t, r.code, r.why);
  return true;
}

// With the tree mutex held.
void TraceStop::TellTracer(Task& t, int code, int why) {
  Task& tracer = *t.trace_.tracer;
  ThreadGroup& group = tracer.thread_group();
  const abi::KernelSigAction action = group.actions()->Get(SIGCHLD);
  if (action.handler != 1 && (action.flags & SA_NOCLDSTOP) == 0)
    (void)group.SendSignal(ThreadSigInfo(t, group, why, code & kSignalBits), true);
  group.child_queue().Notify(EPOLLIN);
}

int TraceStop::End(Task& t, SigInfo* info) {
  TraceState& s = t.trace_;
  int signo = 0;
  {
    MutexLock lock(t.thread_group().signal_mu_);
    s.in_stop = s.listening = false;
    signo = std::exchange(s.code, 0);
    if (info != nullptr) *info = s.info;
    s.has_info = false;
    s.message = 0;
    t.UpdateInterruptLocked();
  }
  if (std::exchange(s.extended_changed, false)) (void)t.context_->SetExtendedState(s.extended);
  s.extended.clear();
  t.interrupted_call_ = IsRestart(t.regs_);
  if (s.Has(TraceState::kStep)) GiveTrapFlag(t);
  return signo;
}

std::optional<int> TraceStop::Stop(Task& t, const Report& r, SigInfo* info) {
  if (!Settle(t)) return std::nullopt;
  TakeTrapFlag(t);
  if (!Begin(t, r, info)) return std::nullopt;
  TraceState& s = t.trace_;
  for (;;) {
    {
      MutexLock lock(t.thread_group().signal_mu_);
      if (!s.frozen && (!s.in_stop || s.fatal)) break;
    }
    t.Park(kNoDeadline);
  }
  return End(t, info);
}

int TraceStop::Notify(Task& t, const Report& r) {
  SigInfo info = UserSigInfo(r.code & kSignalBits, r.code, t.tid(), t.user_ns().FromKuid(t.cred().uid));
  return Stop(t, r, &info).value_or(0);
}

void TraceStop::CallStop(Task& t, uint64_t which) {
  bool good = false;
  {
    MutexLock lock(t.thread_group().signal_mu_);
    good = (t.trace_.options & PTRACE_O_TRACESYSGOOD) != 0;
  }
  // Not the same as to go on with a signal, but what tracers rely on.
  const int signo = Notify(t, {.code = kSigTrap | (good ? kSysGood : 0), .message = which});
  if (ValidSignal(signo)) (void)t.SendSignal(KernelSigInfo(signo), true);
}

void TraceStop::Call(Task& t) {
  if (!Settle(t)) return;
  TakeTrapFlag(t);
  user_regs_struct& gp = t.regs_.gp;
  // What `syscall` leaves; a patched call site does not.
  gp.rcx = gp.rip;
  gp.r11 = gp.eflags;
  const TraceState& s = t.trace_;
  const bool emulate = s.Has(TraceState::kEmulate);
  if (emulate || s.Has(TraceState::kSyscallStops)) {
    CallStop(t, abi::kEventMessageEntry);
    TakeTrapFlag(t);  // a step ends behind the call
    if (t.IsKilled()) return;
    t.last_syscall_.store(t.regs_.SyscallNumber(), std::memory_order_relaxed);
  }
  if (!emulate && static_cast<int32_t>(gp.orig_rax) != -1) syscall_entry(t);
  if (t.exit_requested_ || !Settle(t)) return;
  if (s.Has(TraceState::kStep)) {
    if (s.Has(TraceState::kEmulate)) {
      GiveTrapFlag(t);  // the step is the next instruction
    } else {
      t.ForceSignal(FaultSigInfo(SIGTRAP, TRAP_BRKPT, gp.rip));
    }
  } else if (s.Has(TraceState::kSyscallStops)) {
    CallStop(t, abi::kEventMessageExit);
  }
}

bool TraceStop::Wants(Task& t, int event) {
  if (!Traced(t)) return false;
  MutexLock lock(t.thread_group().signal_mu_);
  return t.trace_.tracer != nullptr && (t.trace_.options & 1u << event) != 0;
}

void TraceStop::Event(Task& t, int event, uint64_t message) {
  if (!Traced(t)) return;
  if (Wants(t, event)) {
    (void)Notify(t, {.code = event << kEventShift | SIGTRAP, .message = message});
    return;
  }
  bool legacy = false;
  {
    MutexLock lock(t.thread_group().signal_mu_);
    legacy = t.trace_.tracer != nullptr && !t.trace_.seized;
  }
  if (event == PTRACE_EVENT_EXEC && legacy)
    (void)t.SendSignal(UserSigInfo(SIGTRAP, SI_USER, t.tgid(), t.user_ns().FromKuid(t.cred().uid)));
}

void TraceStop::Event(Task& t, int event, Pid& message) {
  if (Traced(t)) Event(t, event, static_cast<uint64_t>(TraceLink::AsTracerSees(t, message)));
}

int TraceStop::Signal(Task& t, SigInfo& info) {
  // A signal that nobody looks at takes its course.
  const int signo = Stop(t, {.code = info.si_signo, .delivery = true}, &info).value_or(info.si_signo);
  if (!ValidSignal(signo)) return 0;
  if (signo != info.si_signo) info = TraceLink::TracerSigInfo(t, signo);
  if (!t.signal_mask().Has(signo) || signo == SIGKILL) return signo;
  // Blocked meanwhile: back into the queue.
  (void)t.SendSignal(info, true);
  return 0;
}

void TraceStop::JobControl(Task& t) {
  ThreadGroup& group = t.thread_group();
  TraceState& s = t.trace_;
  int code = 0, report = 0;
  bool seized = false;
  {
    MutexLock lock(group.signal_mu_);
    s.trap_requested = s.notify = false;
    if (std::exchange(t.signals_.stop_requested, false)) {
      if (group.stop_signal_ != 0) report = group.TakePartInStopLocked(t);
    }
    code = group.stop_signal_ != 0 ? s.stop_signo : 0;
    seized = s.seized;
    if (seized) {
      code = PTRACE_EVENT_STOP << kEventShift | (code != 0 ? code : kSigTrap);
    } else if (code == 0) {
      s.trapping = false;
      t.UpdateInterruptLocked();
      return;
    }
  }
  // Who is the parent as well hears of the tracee's own stop.
  if (report != 0 && !TraceLink::TracedByParent(t)) ReportStopped(group, report);
  if (seized) {
    (void)Notify(t, {.code = code, .why = CLD_STOPPED});
  } else {
    (void)Stop(t, {.code = code, .why = CLD_STOPPED}, nullptr);
  }
}

void TraceStop::Handler(Task& t) {
  {
    MutexLock lock(t.thread_group().signal_mu_);
    t.trace_.flags.fetch_and(~uint32_t{TraceState::kStep}, std::memory_order_relaxed);
  }
  (void)Notify(t, {.code = SIGTRAP});
}

void TraceStop::Exit(Task& t, int status) {
  if (!Traced(t)) return;
  {
    // It has done its work; another one ends the stop.
    MutexLock lock(t.thread_group().signal_mu_);
    t.trace_.fatal = false;
  }
  Event(t, PTRACE_EVENT_EXIT, static_cast<uint64_t>(status));
}

}  // namespace moat
