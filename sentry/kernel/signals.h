// Signals as data: sets, actions, queues of pending signals and what a task keeps about them. Who sends and who
// receives is in thread_group.h; frames and delivery in signal_delivery.cc, signal_frame.cc.
// Source: signal(7), sigaction(2), rt_sigqueueinfo(2).
#ifndef MOAT_SENTRY_KERNEL_SIGNALS_H_
#define MOAT_SENTRY_KERNEL_SIGNALS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>

#include "platform/abi/signal.h"
#include "platform/base/mutex.h"
#include "platform/base/ref_ptr.h"
#include "platform/fiber/parker.h"

namespace moat {

class UserAccount;

// A set of signals, 1..64.
struct SignalSet {
  uint64_t bits = 0;
  static constexpr uint64_t Bit(int signo) { return uint64_t{1} << (signo - 1); }
  static constexpr SignalSet Of(int signo) { return {Bit(signo)}; }
  constexpr bool Has(int signo) const { return (bits & Bit(signo)) != 0; }
  constexpr void Add(int signo) { bits |= Bit(signo); }
  constexpr void Remove(int signo) { bits &= ~Bit(signo); }
  constexpr bool empty() const { return bits == 0; }
  constexpr SignalSet operator|(SignalSet o) const { return {bits | o.bits}; }
  constexpr SignalSet operator&(SignalSet o) const { return {bits & o.bits}; }
  constexpr SignalSet operator~() const { return {~bits}; }
  constexpr bool operator==(const SignalSet&) const = default;
};

inline constexpr SignalSet kUnblockable{SignalSet::Bit(SIGKILL) | SignalSet::Bit(SIGSTOP)};
inline constexpr SignalSet kStopSignals{SignalSet::Bit(SIGSTOP) | SignalSet::Bit(SIGTSTP) | SignalSet::Bit(SIGTTIN) |
                                        SignalSet::Bit(SIGTTOU)};
// Delivered before all others: they belong to the instruction that is about to run.
inline constexpr SignalSet kSynchronous{SignalSet::Bit(SIGSEGV) | SignalSet::Bit(SIGBUS) | SignalSet::Bit(SIGILL) |
                                        SignalSet::Bit(SIGTRAP) | SignalSet::Bit(SIGFPE) | SignalSet::Bit(SIGSYS)};
inline constexpr bool ValidSignal(int signo) { return signo >= 1 && signo <= abi::kSignalCount; }

enum class DefaultAction : uint8_t { kTerminate, kCore, kStop, kContinue, kIgnore };
DefaultAction DefaultActionOf(int signo);

// --- siginfo of each source ---
using SigInfo = abi::SigInfo;
inline SigInfo MakeSigInfo(int signo, int code) {
  SigInfo info;
  memset(&info, 0, sizeof info);
  info.si_signo = signo;
  info.si_code = code;
  return info;
}
// kill(2) and the like: the sender's ids as the receiver sees them.
inline SigInfo UserSigInfo(int signo, int code, int32_t pid, uint32_t uid) {
  SigInfo info = MakeSigInfo(signo, code);
  info.si_pid = pid;
  info.si_uid = uid;
  return info;
}
inline SigInfo KernelSigInfo(int signo) { return MakeSigInfo(signo, SI_KERNEL); }
SigInfo FaultSigInfo(int signo, int code, uint64_t address);

// --- actions (shared by CLONE_SIGHAND) ---
class SignalActions : public RefCounted {
 public:
  SignalActions() = default;
  RefPtr<SignalActions> Clone() const;
  abi::KernelSigAction Get(int signo) const {
    MutexLock lock(mu_);
    return actions_[signo - 1];
  }
  abi::KernelSigAction Exchange(int signo, const abi::KernelSigAction& action) {
    MutexLock lock(mu_);
    abi::KernelSigAction old = actions_[signo - 1];
    actions_[signo - 1] = action;
    return old;
  }
  // SA_RESETHAND: takes the action and leaves SIG_DFL behind.
  abi::KernelSigAction Take(int signo);
  // execve: handlers become SIG_DFL, ignored ones stay. `all`: CLONE_CLEAR_SIGHAND, the same.
  void ResetHandlers();
  // Ignored explicitly or by default.
  bool Ignores(int signo) const;
  SignalSet IgnoredSet() const;  // SIG_IGN, for /proc/<pid>/status
  SignalSet CaughtSet() const;

 private:
  mutable Mutex mu_{LockRank::kSignalActions};
  std::array<abi::KernelSigAction, abi::kSignalCount> actions_ ABSL_GUARDED_BY(mu_){};
};

// --- pending signals; guarded by the thread group's signal mutex ---
struct QueuedSignal {
  SigInfo info;
  RefPtr<UserAccount> account;  // whose RLIMIT_SIGPENDING it counts against; null: not counted
  QueuedSignal* next = nullptr;
};

class PendingSignals {
 public:
  PendingSignals() = default;
  ~PendingSignals();
  PendingSignals(const PendingSignals&) = delete;

  SignalSet set() const { return set_; }
  // True when a standard signal of that number is pending already (the new one is dropped then).
  bool HasStandard(int signo) const { return signo < abi::kFirstRealtime && set_.Has(signo); }
  // Takes ownership. A null `q` (no memory or over the limit) marks the signal pending without its siginfo.
  void Push(int signo, QueuedSignal* q);
  // Takes the next signal outside of `blocked`: synchronous ones first, then the lowest number, in order of arrival.
  // 0 when there is none.
  int Pop(SignalSet blocked, SigInfo* info);
  // Takes one of `wanted`.
  int PopOf(SignalSet wanted, SigInfo* info) { return Pop(~wanted, info); }
  void RemoveAll(SignalSet which);
  int CountOf(int signo) const;
  // The queue, oldest first; pending signals without a siginfo are not in it.
  const QueuedSignal* first() const { return head_; }

 private:
  SignalSet set_;
  QueuedSignal* head_ = nullptr;
  QueuedSignal* tail_ = nullptr;
};

// What one task keeps. `mask` and `pending` are changed with the thread group's signal mutex held; the mask only by
// the task itself, so that it reads it without. The rest is the task's own.
struct TaskSignals {
  std::atomic<uint64_t> mask{0};
  PendingSignals pending;
  // Signals that rt_sigtimedwait waits for; under the signal mutex.
  SignalSet waiting_for;
  bool stop_requested = false;  // a group stop wants this task to park; under the signal mutex
  bool stopped = false;         // it has; under the signal mutex
  bool counted = false;         // it counts as stopped, though a tracer may let it run; under the signal mutex
  bool killed = false;          // must exit at the next chance; under the signal mutex

  // The mask to restore after the handler that ends sigsuspend, ppoll, pselect, epoll_pwait.
  SignalSet saved_mask;
  bool has_saved_mask = false;
  abi::SigStack alt_stack{0, SS_DISABLE, 0, 0};
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_SIGNALS_H_
