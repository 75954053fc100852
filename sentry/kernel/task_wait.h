// Waiting for children: wait4(2), waitid(2).
#ifndef MOAT_SENTRY_KERNEL_TASK_WAIT_H_
#define MOAT_SENTRY_KERNEL_TASK_WAIT_H_

#include "sentry/kernel/thread_group.h"

namespace moat {

struct WaitRequest {
  enum class Whom : uint8_t { kAny, kPid, kGroup } whom = Whom::kAny;
  RefPtr<Pid> pid;  // with kPid, kGroup; null: no such process
  int options = 0;  // WEXITED, WSTOPPED, WCONTINUED, WNOHANG, WNOWAIT, __WALL, __WCLONE, __WNOTHREAD
};

struct WaitResult {
  int32_t pid = 0;  // in the caller's namespace; 0: nothing to report (WNOHANG)
  uint32_t uid = 0;
  int code = 0;         // CLD_*
  int status = 0;       // exit value or signal, as in siginfo
  int wait_status = 0;  // as wait4 reports it
  ResourceUsage usage;
};

// kECHILD, kERESTARTSYS.
Result<WaitResult> WaitForChild(Task& t, const WaitRequest& request);

class DeferredSignals;

class ChildWaiter {
 public:
  // One look, without waiting: kEAGAIN when a child may yet report, kECHILD.
  static Result<WaitResult> Look(Task& t, const WaitRequest& request);

 private:
  static bool Matches(Task& t, ThreadGroup& child, const WaitRequest& request);
  static bool IsMeant(const Task& child, const WaitRequest& request);
  // What a zombie's status says.
  static void Explain(int status, WaitResult& out);
  static bool TakeStop(Task& t, Task& tracee, int options, WaitResult& out);
  // The same for a tracee of the caller's process, which may be a thread.
  static bool TakeTraced(Task& t, Task& tracee, int options, WaitResult& out, DeferredSignals& signals,
                         std::vector<RefPtr<RefCounted>>& dropped);
  // True when `child` has something to report, which is taken unless WNOWAIT.
  static bool Take(Task& t, ThreadGroup& child, int options, WaitResult& out, std::vector<RefPtr<RefCounted>>& dropped);
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_TASK_WAIT_H_
