// ThreadGroup: a process: its tasks, place in the process tree, signals and limits.
// Locks: the kernel's tree mutex (kKernel) for the tree; signal_mutex() (kSignal) for signals. The list of tasks
// changes with both held, so that either is enough to read it. Source: clone(2), wait(2), signal(7), credentials(7).
#ifndef MOAT_SENTRY_KERNEL_THREAD_GROUP_H_
#define MOAT_SENTRY_KERNEL_THREAD_GROUP_H_

#include <memory>
#include <vector>

#include "platform/abi/process.h"
#include "platform/fiber/timer.h"
#include "sentry/kernel/aio.h"
#include "sentry/kernel/core_dump.h"
#include "sentry/kernel/process_group.h"
#include "sentry/kernel/task.h"

namespace moat {

class ProcessTimers;

// Sums over tasks and waited-for children; times in nanoseconds.
struct ResourceUsage {
  Nanos user = 0, system = 0;
  uint64_t max_rss = 0;  // bytes
  uint64_t minor_faults = 0, major_faults = 0;
  uint64_t voluntary_switches = 0, involuntary_switches = 0;
  IoCounts io;
  void Add(const ResourceUsage& o);
  abi::Rusage ToRusage() const;
};

// Told once when the last thread of a process has ended, before its parent hears of it: state of other folders that is
// given back then (System V semaphore adjustments). Called without locks.
class ProcessExitHook : public RefCounted {
 public:
  virtual void OnProcessExit(ThreadGroup& group) = 0;
};

// What stands outside of the sandbox for a process without a parent in it: a job of some shell there.
class OutsideJob {
 public:
  // `orphaned`: no shell watches it, so a terminal's stop signals have no effect on it either.
  explicit OutsideJob(bool orphaned) : orphaned_(orphaned) {}
  bool orphaned() const { return orphaned_; }
  // All threads of the process have stopped. Must not block and may take leaf locks only.
  virtual void OnStop() = 0;

 protected:
  ~OutsideJob() = default;

 private:
  const bool orphaned_;
};

class ThreadGroup : public RefCounted {
 public:
  ThreadGroup(Kernel& kernel, RefPtr<SignalActions> actions, const Rlimits& rlimits);
  ~ThreadGroup() override;

  // --- constant ---
  Kernel& kernel() const { return kernel_; }
  Pid& pid() const { return *pid_; }
  PidNamespace& pid_ns() const { return pid_->ns(); }
  int32_t IdIn(const PidNamespace& ns) const { return pid_->NrIn(ns); }
  int32_t RootId() const { return pid_->root_nr(); }
  Rlimits& rlimits() { return rlimits_; }
  ProcessTimers& timers() { return *timers_; }
  AioContexts& aio() { return aio_; }

  // --- the tree: each takes the tree mutex, unless it says Locked ---
  // The leader; it stays until the process is waited for, even when its thread has exited.
  RefPtr<Task> leader() const;
  // Live tasks, the leader first when it lives.
  std::vector<RefPtr<Task>> tasks() const;
  int task_count() const { return live_tasks_.load(std::memory_order_relaxed); }
  RefPtr<Task> FindTask(int32_t tid, const PidNamespace& ns) const;
  RefPtr<Task> leader_locked() const { return leader_; }
  ProcessGroup& process_group_locked() const { return *process_group_; }
  ThreadGroup* parent_locked() const { return parent_; }
  ResourceUsage UsageLocked() const;
  void SetReportsLocked(int stop_signo, bool continued) {
    stop_report_ = stop_signo;
    continue_report_ = continued;
  }
  // Null for an init whose parent is the sandbox.
  RefPtr<ThreadGroup> parent() const;
  int32_t ParentIdIn(const PidNamespace& ns) const;  // getppid: 0 when not visible
  std::vector<RefPtr<ThreadGroup>> children() const;
  int32_t ProcessGroupIdIn(const PidNamespace& ns) const;
  int32_t SessionIdIn(const PidNamespace& ns) const;
  RefPtr<ProcessGroup> process_group() const;
  RefPtr<Session> session() const;
  // The device of the controlling terminal and its foreground process group: tty_nr and tpgid of /proc/<pid>/stat.
  RefPtr<Tty> controlling_tty() const;
  int32_t ForegroundGroupIdIn(const PidNamespace& ns) const;  // -1: no terminal
  OutsideJob* outside_job() const { return outside_job_; }
  bool IsZombie() const { return zombie_.load(std::memory_order_acquire); }
  // wait(2)'s status word; of a zombie.
  int exit_status() const { return exit_status_.load(std::memory_order_relaxed); }
  int exit_signal() const { return exit_signal_.load(std::memory_order_relaxed); }

  Result<void> SetSession(int32_t* new_id);                                      // setsid(2)
  static Result<void> SetProcessGroup(Task& caller, int32_t pid, int32_t pgid);  // setpgid(2)

  // Host threads (runsc's control server) and pidfds wait for the end here: EPOLLIN on pid().wait_queue().
  // Blocks the calling host thread or fiber until the process is a zombie; its wait status.
  int WaitForExit();
  // Lets a process without a parent in the sandbox (a container's init, an exec'd one) go once its status is read.
  void Reap();

  // prctl(PR_SET_CHILD_SUBREAPER), oom_score_adj, ...
  std::atomic<bool> child_subreaper{false};
  std::atomic<bool> has_child_subreaper{false};  // an ancestor is one
  std::atomic<bool> did_exec{false};
  std::atomic<int> oom_score_adj{0};
  std::atomic<bool> membarrier_registered{false}, membarrier_rseq_registered{false};

  void AddExitHook(RefPtr<ProcessExitHook> hook) {
    MutexLock lock(exit_hooks_mu_);
    exit_hooks_.push_back(std::move(hook));
  }
  void RunExitHooks();  // by the last thread

  // --- resource usage ---
  ResourceUsage Usage() const;          // the process, exited threads included
  ResourceUsage ChildrenUsage() const;  // waited-for children
  CpuTimes cpu_times() const;

  // --- signals ---
  Mutex& signal_mutex() const ABSL_LOCK_RETURNED(signal_mu_) { return signal_mu_; }
  RefPtr<SignalActions> actions() const;
  // To the process: any thread that does not block it takes it. Permission is the caller's check. Never blocks.
  // kEAGAIN and `from_outside` as in Task::SendSignal.
  Result<void> SendSignal(const SigInfo& info, bool from_outside = false);
  PendingSignals& shared_pending() { return shared_pending_; }  // under signal_mutex()
  SignalSet SharedPendingSet() const;
  int StopSignal() const;  // 0: not stopped, nor about to
  // Throws pending signals away, the tasks' own too. Under signal_mutex().
  void DropPendingLocked(SignalSet which);
  // Every thread is told to exit with `status`; the first caller's status counts. Any thread.
  void Kill(int status);
  bool exiting() const { return exiting_.load(std::memory_order_acquire); }
  // Parents wait here for children's changes: EPOLLIN.
  WaitQueue& child_queue() { return child_queue_; }

 private:
  friend class CoreDump;
  friend class Kernel;
  friend class ProcessGroup;
  friend class Task;
  friend class TaskCloner;
  friend class TaskExec;
  friend class TaskExit;
  friend class SignalDelivery;
  friend class SignalSender;
  friend class ChildWaiter;
  friend class JobControl;
  friend class StoppedTracee;
  friend class TraceLink;
  friend class TraceStop;

  // --- constant after construction ---
  Kernel& kernel_;
  RefPtr<Pid> pid_;
  Rlimits rlimits_;
  std::unique_ptr<ProcessTimers> timers_;
  AioContexts aio_;

  // --- guarded by the tree mutex ---
  RefPtr<Task> leader_;
  ThreadGroup* parent_ = nullptr;  // the parent lives longer than its children: they are handed on at its exit
  RefPtr<Task> parent_task_;       // the thread that made us (PDEATHSIG, __WNOTHREAD)
  std::vector<RefPtr<ThreadGroup>> children_;
  RefPtr<ProcessGroup> process_group_;
  bool reaped_ = false;
  std::atomic<bool> zombie_{false};
  std::atomic<int> exit_status_{0};
  std::atomic<int> exit_signal_{SIGCHLD};
  // Changes of state that wait(2) reports.
  int stop_report_ = 0;  // signo while a stop is not yet waited for
  bool continue_report_ = false;
  // Threads that have ended and that their tracer has not waited for: before that nobody can wait for the process.
  int traced_zombies_ = 0;
  ResourceUsage dead_tasks_usage_;
  ResourceUsage children_usage_;

  // CPU time has a lock of its own at the very bottom: timers ask for it with theirs held.
  mutable Mutex times_mu_{LockRank::kLeaf};
  std::vector<const Task*> timed_tasks_ ABSL_GUARDED_BY(times_mu_);
  CpuTimes dead_times_ ABSL_GUARDED_BY(times_mu_);

  // --- guarded by both mutexes for changes ---
  void AddTaskLocked(Task& t);
  void RemoveTaskLocked(Task& t);
  std::vector<RefPtr<Task>> tasks_;
  std::atomic<int> live_tasks_{0};
  std::atomic<int> unexited_tasks_{0};  // those of tasks_ that have not begun to end

  // --- guarded by signal_mu_ ---
  mutable Mutex signal_mu_{LockRank::kSignal};
  RefPtr<SignalActions> actions_ ABSL_GUARDED_BY(signal_mu_);
  PendingSignals shared_pending_;
  // `t` counts as stopped. The signal to report when it was the last one that runs, else 0.
  int TakePartInStopLocked(Task& t) ABSL_EXCLUSIVE_LOCKS_REQUIRED(signal_mu_);
  int StopIsCompleteLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(signal_mu_);
  int stop_signal_ = 0;  // of the group stop in progress or complete; 0: running
  bool stop_reported_ = false;
  uint64_t continue_count_ = 0;  // SIGCONTs so far
  std::atomic<bool> exiting_{false};
  int group_exit_status_ = 0;
  RefPtr<CoreDump> core_dump_;         // set with exiting_: the others wait for it on their way out
  OutsideJob* outside_job_ = nullptr;  // constant
  bool unkillable_init_ = true;        // constant: as pid 1 of a namespace it becomes
  bool unkillable_ = false;            // init of a pid namespace: default actions do not end it
  RefPtr<Task> exec_task_;             // the thread that runs execve and waits for the others to go

  Mutex exit_hooks_mu_{LockRank::kLeaf};
  std::vector<RefPtr<ProcessExitHook>> exit_hooks_ ABSL_GUARDED_BY(exit_hooks_mu_);
  WaitQueue child_queue_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_THREAD_GROUP_H_
