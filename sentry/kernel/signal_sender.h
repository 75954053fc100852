// Making a signal pending for a task or a thread group. Source: signal(7), kill(2), pid_namespaces(7).
#ifndef MOAT_SENTRY_KERNEL_SIGNAL_SENDER_H_
#define MOAT_SENTRY_KERNEL_SIGNAL_SENDER_H_

#include "sentry/kernel/thread_group.h"

namespace moat {

class SignalSender {
 public:
  // `target`: one task of `group`, or null for the group. Never blocks. True when the signal is now pending
  // (or ended the group), false when it was ignored or pending before. kEAGAIN: see Task::SendSignal.
  static Result<bool> Send(ThreadGroup& group, Task* target, const SigInfo& info, bool from_outside);
  // Tells every task to exit; the first status stays.
  static void KillLocked(ThreadGroup& group, int status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(group.signal_mu_);
  // The task must exit, and leave whatever stop it is in.
  static void KillTaskLocked(Task& t);
  // The stop of a group begins: all its tasks are to park. A traced one's (`again`) may begin while another is in
  // effect.
  static void StopLocked(ThreadGroup& group, int signo, bool again) ABSL_EXCLUSIVE_LOCKS_REQUIRED(group.signal_mu_);

 private:
  static bool Ignored(ThreadGroup& group, Task& target, int signo, bool from_outside)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(group.signal_mu_);
  static bool Continue(ThreadGroup& group) ABSL_EXCLUSIVE_LOCKS_REQUIRED(group.signal_mu_);
  static bool Wants(const Task& t, int signo);
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_SIGNAL_SENDER_H_
