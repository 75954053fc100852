#include "sentry/kernel/signals.h"

#include <bit>

#include "sentry/kernel/rlimits.h"

namespace moat {

DefaultAction DefaultActionOf(int signo) {
  switch (signo) {
    case SIGCHLD:
    case SIGURG:
    case SIGWINCH:
      return DefaultAction::kIgnore;
    case SIGCONT:
      return DefaultAction::kContinue;
    case SIGSTOP:
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU:
      return DefaultAction::kStop;
    case SIGQUIT:
    case SIGILL:
    case SIGTRAP:
    case SIGABRT:
    case SIGBUS:
    case SIGFPE:
    case SIGSEGV:
    case SIGSYS:
    case SIGXCPU:
    case SIGXFSZ:
      return DefaultAction::kCore;
    default:
      return DefaultAction::kTerminate;
  }
}

SigInfo FaultSigInfo(int signo, int code, uint64_t address) {
  SigInfo info = MakeSigInfo(signo, code);
  info.si_addr = reinterpret_cast<void*>(address);  // only a number in the structure's layout
  return info;
}

RefPtr<SignalActions> SignalActions::Clone() const {
  RefPtr<SignalActions> copy = MakeRef<SignalActions>();
  MutexLock2 lock(mu_, copy->mu_);
  copy->actions_ = actions_;
  return copy;
}

abi::KernelSigAction SignalActions::Take(int signo) {
  MutexLock lock(mu_);
  abi::KernelSigAction& slot = actions_[signo - 1];
  abi::KernelSigAction action = slot;
  if ((action.flags & SA_RESETHAND) != 0) slot.handler = 0;
  return action;
}

void SignalActions::ResetHandlers() {
  MutexLock lock(mu_);
  for (abi::KernelSigAction& a : actions_) {
    const uint64_t handler = a.handler == 1 ? 1 : 0;
    a = {};
    a.handler = handler;
  }
}

bool SignalActions::Ignores(int signo) const {
  const uint64_t handler = Get(signo).handler;
  return handler == 1 || (handler == 0 && DefaultActionOf(signo) == DefaultAction::kIgnore);
}

SignalSet SignalActions::IgnoredSet() const {
  SignalSet set;
  MutexLock lock(mu_);
  for (int i = 0; i < abi::kSignalCount; ++i) {
    if (actions_[i].handler == 1) set.Add(i + 1);
  }
  return set;
}

SignalSet SignalActions::CaughtSet() const {
  SignalSet set;
  MutexLock lock(mu_);
  for (int i = 0; i < abi::kSignalCount; ++i) {
    if (actions_[i].handler > 1) set.Add(i + 1);
  }
  return set;
}

namespace {

void Free(QueuedSignal* q) {
  if (q->account) q->account->queued_signals.fetch_sub(1, std::memory_order_relaxed);
  delete q;
}

}  // namespace

PendingSignals::~PendingSignals() { RemoveAll({~uint64_t{0}}); }

void PendingSignals::Push(int signo, QueuedSignal* q) {
  set_.Add(signo);
  if (q == nullptr) return;
  q->next = nullptr;
  (tail_ != nullptr ? tail_->next : head_) = q;
  tail_ = q;
}

int PendingSignals::Pop(SignalSet blocked, SigInfo* info) {
  SignalSet ready = set_ & ~blocked;
  if (ready.empty()) return 0;
  SignalSet first = ready & kSynchronous;
  const int signo = std::countr_zero(first.empty() ? ready.bits : first.bits) + 1;
  QueuedSignal* found = nullptr;
  bool more = false;
  QueuedSignal* found_before = nullptr;
  QueuedSignal* before = nullptr;
  for (QueuedSignal* q = head_; q != nullptr; before = q, q = q->next) {
    if (q->info.si_signo != signo) continue;
    if (found != nullptr) {
      more = true;
      break;
    }
    found = q;
    found_before = before;
  }
  if (!more) set_.Remove(signo);
  if (found == nullptr) {
    // Pending without a siginfo: it could not be queued.
    *info = MakeSigInfo(signo, SI_USER);
    return signo;
  }
  (found_before != nullptr ? found_before->next : head_) = found->next;
  if (tail_ == found) tail_ = found_before;
  *info = found->info;
  Free(found);
  return signo;
}

void PendingSignals::RemoveAll(SignalSet which) {
  if ((set_ & which).empty()) return;
  set_ = set_ & ~which;
  QueuedSignal** link = &head_;
  QueuedSignal* last = nullptr;
  while (*link != nullptr) {
    QueuedSignal* q = *link;
    if (which.Has(q->info.si_signo)) {
      *link = q->next;
      Free(q);
    } else {
      last = q;
      link = &q->next;
    }
  }
  tail_ = last;
}

int PendingSignals::CountOf(int signo) const {
  int count = 0;
  for (QueuedSignal* q = head_; q != nullptr; q = q->next) count += q->info.si_signo == signo;
  return count == 0 && set_.Has(signo) ? 1 : count;
}

}  // namespace moat
