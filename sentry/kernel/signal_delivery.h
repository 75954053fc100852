// What a task does about signals before it goes back to guest code: group stops, default actions, handlers and the
// restart of interrupted calls. Runs on the task's own carrier. Source: signal(7), restart_syscall(2).
#ifndef MOAT_SENTRY_KERNEL_SIGNAL_DELIVERY_H_
#define MOAT_SENTRY_KERNEL_SIGNAL_DELIVERY_H_

#include "sentry/kernel/thread_group.h"

namespace moat {

class SignalDelivery {
 public:
  // Handles everything that is pending. On return the task either has to exit or can enter guest code.
  static void Run(Task& t);
  // sigaltstack(2) for a task whose stack pointer is `sp`: SS_ONSTACK or 0.
  static bool OnAltStack(const Task& t, GuestAddr sp);

 private:
  struct Handler {
    SigInfo info;
    abi::KernelSigAction action;
  };
  // The next signal that has a handler; false when there is none, or when the task must exit.
  static bool Next(Task& t, Handler& out);
  // `group`: the task's own.
  static bool DecideLocked(Task& t, ThreadGroup& group, int signo, Handler& out, int& stop, RefPtr<CoreDump>& core)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(group.signal_mutex());
  static void ParkStopped(Task& t);
  static bool OrphanedStop(Task& t);
  static void Restart(Task& t, const Handler* handler);
  static void RestoreMask(Task& t);
  static void Enter(Task& t, const Handler& h);
};

// --- frames (signal_frame.cc) ---
// Builds the frame of `action` on the guest's stack and points the registers at the handler. `mask` is what
// rt_sigreturn restores. kEFAULT when the stack cannot be written.
Result<void> PushSignalFrame(Task& t, const SigInfo& info, const abi::KernelSigAction& action, SignalSet mask);
// rt_sigreturn(2): restores registers, extended state, mask and alternate stack. kEFAULT or kEINVAL: the guest gets
// SIGSEGV.
Result<void> PopSignalFrame(Task& t);
// What the host gave is not known before the first guest runs: AT_MINSIGSTKSZ.
uint64_t MinSignalStackSize();

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_SIGNAL_DELIVERY_H_
