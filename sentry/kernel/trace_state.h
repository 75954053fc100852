// What a task keeps for ptrace(2): about the tasks that it traces, and about its own tracer.
//
// A tracee stops in TraceStop::Stop, on its own carrier: it publishes its registers (regs_, made complete) and extended
// state, sets `in_stop`, tells the tracer and parks. From then on both belong to the tracer, which holds the tracee
// still for each request (`frozen`, StoppedTracee) and lets it go by clearing `in_stop`. SIGKILL sets `fatal` and wakes
// it: it leaves the stop as soon as it is not frozen. A group stop does not keep it and SIGCONT does not wake it; both
// only ask a seized one for another stop (`notify`).
//
// Who traces whom changes with the tree mutex and the tracee's signal mutex held. A task that is not traced pays one
// relaxed load of `flags` for each call; everything else is reached by way of HasPendingInterrupt.
// Source: ptrace(2).
#ifndef MOAT_SENTRY_KERNEL_TRACE_STATE_H_
#define MOAT_SENTRY_KERNEL_TRACE_STATE_H_

#include <atomic>
#include <cstdint>
#include <vector>

#include "platform/base/ref_ptr.h"
#include "platform/cred/credentials.h"
#include "platform/registers.h"
#include "sentry/kernel/signals.h"

namespace moat {

class Task;

struct TraceState {
  enum Flag : uint32_t {
    kTraced = 1,
    kSyscallStops = 2,  // resumed by PTRACE_SYSCALL
    kEmulate = 4,       // by PTRACE_SYSEMU
    kStep = 8,          // by PTRACE_SINGLESTEP, PTRACE_SYSEMU_SINGLESTEP
  };
  // 0: not traced. Changed with the signal mutex held; the task itself reads it without.
  std::atomic<uint32_t> flags{0};
  bool Has(Flag f) const { return (flags.load(std::memory_order_relaxed) & f) != 0; }

  // --- tree mutex ---
  std::vector<RefPtr<Task>> tracees;
  bool leaving = false;                   // as a tracer: it has let go of its tracees and gets no more
  bool zombie = false;                    // has ended, is not its group's leader, and the tracer has not waited for it
  RefPtr<const Credentials> tracer_cred;  // as they were when the tracing began

  // --- tree mutex and signal mutex for changes ---
  Task* tracer = nullptr;

  // --- signal mutex ---
  bool seized = false;
  uint32_t options = 0;         // PTRACE_O_*
  bool fatal = false;           // a SIGKILL that a stop must not outlast
  bool trap_requested = false;  // PTRACE_INTERRUPT, or a first stop
  bool trapping = false;        // who attached to it while it was stopped waits for its first stop
  bool notify = false;          // of a seized one: the group's stop has begun or ended
  int stop_signo = 0;           // of the group stop that the task takes part in
  bool in_stop = false;
  bool listening = false;  // PTRACE_LISTEN
  bool frozen = false;     // the tracer is at a request
  bool delivery = false;   // the stop is for a signal
  // In a stop: what wait(2) reports, 0 once it has; when the task goes on: the signal that the tracer gives.
  int code = 0;
  uint64_t message = 0;  // PTRACE_GETEVENTMSG
  bool has_info = false;
  SigInfo info;

  // --- in a stop the tracer's, which has it frozen; else the task's own ---
  ExtendedState extended;  // empty: not known
  bool extended_changed = false;
  bool trap_flag = false;  // the trap flag in the registers is there for the tracer
  uint64_t debug_address[4] = {};
  uint64_t debug_status = 0;
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_TRACE_STATE_H_
