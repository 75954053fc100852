// The end of tasks and processes: what they leave, whom they tell, who inherits their children.
// Source: exit(2), exit_group(2), wait(2), prctl(2) PR_SET_CHILD_SUBREAPER, pid_namespaces(7), credentials(7).
#ifndef MOAT_SENTRY_KERNEL_TASK_EXIT_H_
#define MOAT_SENTRY_KERNEL_TASK_EXIT_H_

#include <utility>
#include <vector>

#include "sentry/kernel/thread_group.h"

namespace moat {

// Signals that are decided with the tree mutex held and sent after it is released (declare it before the lock).
class DeferredSignals {
 public:
  ~DeferredSignals() {
    for (auto& [group, info] : signals_) (void)group->SendSignal(info, true);
  }
  void Add(ThreadGroup& group, const SigInfo& info) { signals_.emplace_back(RefPtr<ThreadGroup>(&group), info); }
  void AddToGroup(ProcessGroup& group, int signo) {
    for (ThreadGroup* member : group.members()) Add(*member, KernelSigInfo(signo));
  }

 private:
  std::vector<std::pair<RefPtr<ThreadGroup>, SigInfo>> signals_;
};

class TaskExit {
 public:
  // The last thing that a task's own carrier does for it.
  static void Run(Task& t);
  // Takes a zombie out of the tree. With the tree mutex held; `dropped` is to be destroyed after it is released.
  static void ReleaseLocked(ThreadGroup& group, std::vector<RefPtr<RefCounted>>& dropped);
  // The tracer of `t` ends, a thread of `tracers`: `t` goes on without it, or if it has ended already, its parent hears
  // of that. With the tree mutex held.
  static void TracerGoneLocked(Task& t, ThreadGroup& tracers, DeferredSignals& signals,
                               std::vector<RefPtr<RefCounted>>& dropped);
  // The tracer has waited for a thread that has ended, or for a process that is another's child: the parent's turn.
  // With the tree mutex held.
  static void TracerWaitedLocked(Task& t, DeferredSignals& signals, std::vector<RefPtr<RefCounted>>& dropped);
  // execve and exit: the parent that waits in vfork(2) goes on.
  static void ReleaseVforkParent(Task& t);
  // execve and exit: robust futexes and set_tid_address(2)'s word, in the address space that is left.
  static void LeaveMemory(Task& t);

 private:
  static bool RemoveTask(Task& t);
  static void TellTracers(Task& t, ThreadGroup& tracers);
  static void AddDeathSignals(ThreadGroup& child, DeferredSignals& signals);
  static void EndGroup(Task& t);
  static void EmptyPidNamespace(Task& t);
  static ThreadGroup* FindReaper(ThreadGroup& group);
  static void HandOnChildren(ThreadGroup& group, DeferredSignals& signals, std::vector<RefPtr<RefCounted>>& dropped);
  static void CheckOrphans(ThreadGroup& group, ProcessGroup& changed, const ThreadGroup* without,
                           DeferredSignals& signals);
  // The process has ended and no thread of it is left for a tracer: whoever waits for it hears of it.
  static void AnnounceEnd(ThreadGroup& group, DeferredSignals& signals, std::vector<RefPtr<RefCounted>>& dropped);
  static void ReleaseThreadLocked(Task& t, DeferredSignals& signals, std::vector<RefPtr<RefCounted>>& dropped);
  static bool NotifyParent(ThreadGroup& group, DeferredSignals& signals);
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_TASK_EXIT_H_
