// Who traces whom: how ptrace(2) begins, is inherited and ends. Changes are made with the tree mutex and the tracee's
// signal mutex held. Source: ptrace(2), capabilities(7).
#ifndef MOAT_SENTRY_KERNEL_TRACE_LINK_H_
#define MOAT_SENTRY_KERNEL_TRACE_LINK_H_

#include <vector>

#include "sentry/kernel/thread_group.h"

namespace moat {

class DeferredSignals;

class TraceLink {
 public:
  // PTRACE_TRACEME by `t`. kEPERM: it is traced already, or its parent may not.
  static Result<void> TraceMe(Task& t);
  // PTRACE_ATTACH, or PTRACE_SEIZE with PTRACE_O_* `options` (checked by the caller), by `t`. kEPERM.
  static Result<void> Attach(Task& t, Task& target, bool seize, uint32_t options);
  // PTRACE_DETACH of a tracee that the tracer holds still; it goes on with `signo`, 0: none.
  static void Detach(Task& tracee, int signo);

  // PTRACE_INTERRUPT, in whatever state the tracee is. kESRCH: not a tracee of `t`; kEIO: not a seized one.
  static Result<void> Interrupt(Task& t, Task& tracee);
  static bool Traces(Task& t, Task& tracee);
  // The group of a tracee stops or goes on: a seized one is to say so. With its signal mutex held.
  static void NotifyLocked(Task& tracee);

  // clone(2): `child`, which has not run yet, gets its maker's tracer. With the tree mutex held.
  static void InheritLocked(Task& t, Task& child);
  // The tracee has no tracer any more, and goes on if it is stopped. The tracer's reference to it is the result's. With
  // the tree mutex held.
  static RefPtr<Task> UnlinkLocked(Task& tracee);
  // A task that ends lets go of its tracees. Own carrier, without locks.
  static void TracerExits(Task& t);

  // What an exec may gain under a tracer with the credentials that it had when it began: CAP_SYS_PTRACE there, or no
  // tracer.
  static bool TracerCapable(Task& t, const UserNamespace& ns);
  // The tracer is a thread of the tracee's parent. With the tree mutex held, or by itself.
  static bool TracedByParentLocked(const Task& t);
  static bool TracedByParent(Task& t);
  // 0: not traced, or not visible there.
  static int32_t TracerIdIn(Task& t, const PidNamespace& ns);
  static int32_t AsTracerSees(Task& t, Pid& pid);
  // What a signal says that the tracer has put in the place of another. Own carrier.
  static SigInfo TracerSigInfo(Task& t, int signo);

 private:
  static void LinkLocked(Task& tracer, Task& tracee, RefPtr<const Credentials> cred, bool seized, uint32_t options);
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_TRACE_LINK_H_
