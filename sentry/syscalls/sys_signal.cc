// What a task does with its own signals. Source: rt_sigaction(2), rt_sigprocmask(2), rt_sigreturn(2), sigpending(2),
// rt_sigtimedwait(2), rt_sigsuspend(2), sigaltstack(2), pause(2).
#include "sentry/kernel/blocking.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/signal_delivery.h"
#include "sentry/kernel/signal_source.h"
#include "sentry/kernel/timekeeping.h"
#include "sentry/syscalls/handlers.h"

namespace moat {

namespace {

// Flags that rt_sigaction keeps; it clears what it does not know, so that programs can probe (SA_UNSUPPORTED).
constexpr uint64_t kKnownActionFlags = SA_NOCLDSTOP | SA_NOCLDWAIT | SA_SIGINFO | SA_ONSTACK | SA_RESTART | SA_NODEFER |
                                       SA_RESETHAND | 0x04000000 /* SA_RESTORER */ | 0x800 /* SA_EXPOSE_TAGBITS */;
constexpr uint64_t kMinAltStack = 2048;  // the kernel's MINSIGSTKSZ

Result<SignalSet> ReadSet(Task& t, UserIn<uint64_t> set, size_t size) {
  if (size != abi::kSigSetSize) return kEINVAL;
  return SignalSet{TRY(set.Read(t.memory()))};
}

}  // namespace

Result<int64_t> SysRtSigaction(Task& t, SignalNum signal, UserIn<abi::KernelSigAction> action,
                               UserOut<abi::KernelSigAction> old, size_t size) {
  if (size != abi::kSigSetSize) return kEINVAL;
  const int signo = Raw(signal);
  abi::KernelSigAction next;
  if (action) next = TRY(action.Read(t.memory()));
  if (!ValidSignal(signo) || (action && kUnblockable.Has(signo))) return kEINVAL;
  RefPtr<SignalActions> actions = t.thread_group().actions();
  abi::KernelSigAction before;
  if (action) {
    next.flags &= kKnownActionFlags;
    next.mask &= ~kUnblockable.bits;
    before = actions->Exchange(signo, next);
    // POSIX: a pending signal that is ignored from now on is thrown away.
    if (actions->Ignores(signo)) {
      ThreadGroup& group = t.thread_group();
      MutexLock lock(group.signal_mutex());
      group.DropPendingLocked(SignalSet::Of(signo));
    }
  } else {
    before = actions->Get(signo);
  }
  if (old) TRY(old.Write(t.memory(), before));
  return 0;
}

Result<int64_t> SysRtSigprocmask(Task& t, int how, UserIn<uint64_t> set, UserOut<uint64_t> old, size_t size) {
  if (size != abi::kSigSetSize) return kEINVAL;
  const SignalSet before = t.signal_mask();
  if (set) {
    SignalSet next{TRY(set.Read(t.memory()))};
    switch (how) {
      case SIG_BLOCK:
        next = before | next;
        break;
      case SIG_UNBLOCK:
        next = before & ~next;
        break;
      case SIG_SETMASK:
        break;
      default:
        return kEINVAL;
    }
    t.SetSignalMask(next);
  }
  if (old) TRY(old.Write(t.memory(), before.bits));
  return 0;
}

Result<int64_t> SysRtSigreturn(Task& t) {
  if (!PopSignalFrame(t).ok()) {
    t.ForceSegv();
    return 0;
  }
  // The dispatcher stores this again as the return value.
  return t.regs().Return();
}

Result<int64_t> SysRtSigpending(Task& t, UserOut<uint64_t> set, size_t size) {
  if (size > abi::kSigSetSize) return kEINVAL;
  SignalSet pending;
  {
    MutexLock lock(t.thread_group().signal_mutex());
    pending = (t.signals().pending.set() | t.thread_group().shared_pending().set()) & t.signal_mask();
  }
  if (t.memory().CopyOut(set.addr(), &pending.bits, size) != size) return kEFAULT;
  return 0;
}

Result<int64_t> SysRtSigtimedwait(Task& t, UserIn<uint64_t> set, UserOut<abi::SigInfo> info_at,
                                  UserIn<abi::Timespec> timeout, size_t size) {
  SignalSet wanted = TRY(ReadSet(t, set, size)) & ~kUnblockable;
  Deadline deadline = kNoDeadline;
  bool poll = false;
  if (timeout) {
    const Nanos wait = TRY(ToNanos(TRY(timeout.Read(t.memory()))));
    poll = wait == 0;
    deadline = DeadlineAfter(wait);
  }
  SigInfo info;
  int signo = DequeueSignal(t, wanted, &info);
  if (signo == 0 && !poll) {
    Mutex& mu = t.thread_group().signal_mutex();
    {
      MutexLock lock(mu);
      t.signals().waiting_for = wanted;
      t.UpdateInterruptLocked();
    }
    // A wanted signal that comes wakes us as an interrupt, whatever the mask says.
    Result<void> parked = ParkInterruptible(t, deadline);
    {
      MutexLock lock(mu);
      t.signals().waiting_for = {};
      t.UpdateInterruptLocked();
    }
    signo = DequeueSignal(t, wanted, &info);
    if (signo == 0) return !parked.ok() && parked.error() == kETIMEDOUT ? kEAGAIN : kEINTR;
  }
  if (signo == 0) return kEAGAIN;
  if (info_at) TRY(info_at.Write(t.memory(), info));
  return signo;
}

Result<int64_t> SysRtSigsuspend(Task& t, UserIn<uint64_t> set, size_t size) {
  SignalSet mask = TRY(ReadSet(t, set, size));
  t.SetTemporaryMask(mask);
  while (ParkInterruptible(t, kNoDeadline).ok()) {
  }
  return kERESTARTNOHAND;
}

Result<int64_t> SysPause(Task& t) {
  while (ParkInterruptible(t, kNoDeadline).ok()) {
  }
  return kERESTARTNOHAND;
}

Result<int64_t> SysSigaltstack(Task& t, UserIn<abi::SigStack> stack, UserOut<abi::SigStack> old) {
  abi::SigStack& mine = t.signals().alt_stack;
  abi::SigStack before = mine;
  const bool on_stack = SignalDelivery::OnAltStack(t, t.regs().gp.rsp);
  before.flags =
      static_cast<int32_t>((static_cast<uint32_t>(mine.flags) & abi::kSsAutodisarm) | (mine.size == 0 ? SS_DISABLE
                                                                                       : on_stack     ? SS_ONSTACK
                                                                                                      : 0));
  before.pad = 0;
  if (stack) {
    abi::SigStack next = TRY(stack.Read(t.memory()));
    if (on_stack) return kEPERM;
    const uint32_t mode = static_cast<uint32_t>(next.flags) & ~abi::kSsAutodisarm;
    if (mode != SS_DISABLE && mode != SS_ONSTACK && mode != 0) return kEINVAL;
    if (mode == SS_DISABLE) {
      next.size = 0;
      next.sp = 0;
    } else if (next.size < kMinAltStack) {
      return kENOMEM;
    }
    mine = next;
  }
  if (old) TRY(old.Write(t.memory(), before));
  return 0;
}

}  // namespace moat
