// The tracee's side of ptrace(2): where a task stops for its tracer. All on the task's own carrier; trace_state.h says
// how a stop begins and ends. Source: ptrace(2), "Stopped states".
#ifndef MOAT_SENTRY_KERNEL_TRACE_STOP_H_
#define MOAT_SENTRY_KERNEL_TRACE_STOP_H_

#include <optional>

#include "sentry/kernel/thread_group.h"

namespace moat {

class TraceStop {
 public:
  static bool Traced(const Task& t) { return t.trace_.Has(TraceState::kTraced); }
  // A system call of a traced task, with the stops before and behind it.
  static void Call(Task& t);
  // PTRACE_EVENT_*: whether the tracer asked for a stop there, and the stop if so. After execve also the SIGTRAP that a
  // tracer without the option gets.
  static bool Wants(Task& t, int event);
  static void Event(Task& t, int event, uint64_t message);
  // For an event that names another task, as the tracer sees it.
  static void Event(Task& t, int event, Pid& message);
  // Signal-delivery-stop: the signal to act upon, with `info` for it; 0: none.
  static int Signal(Task& t, SigInfo& info);
  // What PTRACE_INTERRUPT and group stops ask for.
  static void JobControl(Task& t);
  // Single steps stop at the first instruction of a signal's handler; called with the frame in place.
  static void Handler(Task& t);
  // PTRACE_EVENT_EXIT, by a task that ends with `status`.
  static void Exit(Task& t, int status);
  // Takes the tracer's trap flag out of the registers.
  static void TakeTrapFlag(Task& t);

 private:
  struct Report {
    int code;               // a signal, and above it the event
    int why = CLD_TRAPPED;  // or CLD_STOPPED
    uint64_t message = 0;
    bool delivery = false;
  };
  // `info`: the siginfo that the tracer sees and may change; null: none. The signal that the tracer gives, 0: none.
  // nullopt: nobody traces the task (any more), or it is being killed.
  static std::optional<int> Stop(Task& t, const Report& report, SigInfo* info);
  // With a siginfo that says why.
  static int Notify(Task& t, const Report& report);
  static void CallStop(Task& t, uint64_t which);
  // Makes the registers complete. False: the task ends.
  static bool Settle(Task& t);
  static void GiveTrapFlag(Task& t);
  static bool Begin(Task& t, const Report& report, const SigInfo* info);
  static void TellTracer(Task& t, int code, int why);
  static int End(Task& t, SigInfo* info);
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_TRACE_STOP_H_
