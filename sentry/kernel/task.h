// Task: one guest thread. Thread groups, process groups and sessions are in files of their own.
// Fields in groups: constant after construction; owned by the task's own carrier (no lock: only the task
// itself touches them); shared (each with its lock). Source: clone(2), credentials(7), proc(5).
#ifndef MOAT_SENTRY_KERNEL_TASK_H_
#define MOAT_SENTRY_KERNEL_TASK_H_

#include <sched.h>

#include <atomic>
#include <memory>
#include <string>

#include "fs/vfs/context.h"
#include "platform/cred/credentials.h"
#include "platform/fiber/parker.h"
#include "platform/platform.h"
#include "sentry/kernel/fd_table.h"
#include "sentry/kernel/fs_context.h"
#include "sentry/kernel/io_counts.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/rlimits.h"
#include "sentry/kernel/signals.h"
#include "sentry/kernel/trace_state.h"
#include "sentry/mm/memory_manager.h"

namespace moat {

class Kernel;
class SeccompFilter;
class ThreadGroup;
struct CloneRequest;

// The task whose fiber runs on the calling thread; null on other threads.
Task* CurrentTask();
void SetCurrentTask(Task* t);

// What an interrupted call needs to go on by restart_syscall(2).
struct RestartBlock {
  enum class Kind : uint8_t { kNone, kNanosleep, kPoll, kFutexWait };
  Kind kind = Kind::kNone;
  int32_t clock = 0;
  Deadline deadline = 0;
  GuestAddr arg0 = 0;
  uint64_t arg1 = 0, arg2 = 0, arg3 = 0;
};

// Scheduling attributes that guests set and read back; the host's scheduler does the scheduling.
struct SchedState {
  int32_t policy = SCHED_OTHER;
  int32_t priority = 0;
  int32_t nice = 0;
  bool reset_on_fork = false;
  int32_t ioprio = 0;
  uint64_t runtime = 0, deadline = 0, period = 0;  // SCHED_DEADLINE
  CpuSet affinity;                                 // empty: every CPU
};

// rseq(2), in sentry/kernel/rseq.h.
struct RseqRegistration {
  GuestAddr area = 0;  // 0: none
  uint32_t length = 0, signature = 0;
};

struct CpuTimes {
  Nanos user = 0;
  Nanos system = 0;
  Nanos total() const { return user + system; }
};

// The last exception of the guest, for signal frames (sigcontext's trapno, err, cr2).
struct LastFault {
  uint64_t trapno = 0, error_code = 0, address = 0;
};

class Task : public RefCounted {
 public:
  ~Task() override;

  // --- constant after construction ---
  Kernel& kernel() const { return kernel_; }
  ThreadGroup& thread_group() const { return *thread_group_; }
  Nanos start_time() const { return start_time_; }  // CLOCK_BOOTTIME
  // Ids as seen in the task's own pid namespace, and in the root one. (execve by another thread than the leader
  // gives that thread the leader's id.)
  int32_t tid() const { return tid_.load(std::memory_order_relaxed); }
  int32_t tgid() const { return tgid_; }
  int32_t TidIn(const PidNamespace& ns) const;  // 0: not visible there
  int32_t TgidIn(const PidNamespace& ns) const;
  int32_t RootTid() const { return root_tid_.load(std::memory_order_relaxed); }
  int32_t RootTgid() const { return root_tgid_; }
  RefPtr<Pid> pid() const;  // its identity

  // --- the task's own: call these only on the task's carrier ---
  Registers& regs() { return regs_; }
  Context& context() { return *context_; }
  Parker& parker() { return parker_; }
  // Guest memory of the current address space.
  MemoryManager& memory() { return *mm_; }
  FdTable& fds() { return *fd_table_; }
  FsContext& fs() { return *fs_context_; }
  const Credentials& cred() const { return *cred_; }
  MmLimits mm_limits() const;
  const LastFault& last_fault() const { return last_fault_; }
  RestartBlock& restart_block() { return restart_block_; }
  // For an interrupted call: remembers `block` and answers kERESTART_RESTARTBLOCK.
  Errno SetRestart(const RestartBlock& block) {
    restart_block_ = block;
    return kERESTART_RESTARTBLOCK;
  }
  // set_tid_address(2), set_robust_list(2).
  GuestAddr clear_child_tid = 0;
  GuestAddr robust_list = 0;
  RseqRegistration rseq;
  uint64_t personality = 0;
  // While a call runs with a temporary signal mask (sigsuspend, ppoll, pselect, epoll_pwait): the old one comes back
  // when the call ends, or after the handler that ended it. `set` loses SIGKILL and SIGSTOP.
  void SetTemporaryMask(SignalSet set);

  // --- shared; each returns a reference or a copy taken under the lock ---
  RefPtr<MemoryManager> mm() const;      // null once exited
  RefPtr<FdTable> fd_table() const;      // null once exited
  RefPtr<FsContext> fs_context() const;  // null once exited
  RefPtr<const Credentials> credentials() const;
  RefPtr<MountNamespace> mount_ns() const;
  RefPtr<PidNamespace> pid_ns() const;  // its own, not that for children
  RefPtr<PidNamespace> pid_ns_for_children() const;
  RefPtr<UtsNamespace> uts_ns() const;
  RefPtr<IpcNamespace> ipc_ns() const;
  RefPtr<NetNamespace> net_ns() const;
  RefPtr<CgroupNamespace> cgroup_ns() const;
  UserNamespace& user_ns() const { return *cred_->user_ns; }  // own carrier; others: credentials()->user_ns
  std::string comm() const;                                   // at most 15 bytes
  void SetComm(std::string_view name);
  SchedState sched() const;
  void SetSched(const SchedState& s);
  // sched_setaffinity(2), by any task: `cpus` is within Kernel::allowed_cpus and not empty.
  void SetAffinity(const CpuSet& cpus);
  // State letter of /proc/<pid>/stat: R, S, D, T, t, Z, X.
  char StateLetter() const;
  CpuTimes cpu_times() const;
  uint64_t voluntary_switches() const { return parks_.load(std::memory_order_relaxed); }
  uint64_t syscall_count() const { return syscalls_.load(std::memory_order_relaxed); }
  IoCounter& io() { return io_; }  // counted by the task itself
  bool exited() const { return exited_.load(std::memory_order_acquire); }
  // It has told its joiner (set_tid_address(2)) that it is gone.
  bool leaving() const { return leaving_.load(std::memory_order_acquire); }
  // It releases its futexes, or has: who waits for it from now on may go unseen.
  bool releases_futexes() const { return releases_futexes_.load(std::memory_order_seq_cst); }
  int parent_death_signal() const { return parent_death_signal_.load(std::memory_order_relaxed); }
  void set_parent_death_signal(int s) { parent_death_signal_.store(s, std::memory_order_relaxed); }
  uint64_t timer_slack() const { return timer_slack_.load(std::memory_order_relaxed); }
  // What PR_SET_TIMERSLACK of 0 goes back to: the maker's slack at the time of the clone.
  uint64_t default_timer_slack() const { return default_timer_slack_.load(std::memory_order_relaxed); }
  void set_timer_slack(uint64_t ns) { timer_slack_.store(ns, std::memory_order_relaxed); }
  // 0, SECCOMP_MODE_STRICT, SECCOMP_MODE_FILTER.
  int seccomp_mode() const { return seccomp_mode_.load(std::memory_order_relaxed); }
  // The last call that the task made and its state, for /proc/<pid>/syscall and stack.
  uint64_t last_syscall() const { return last_syscall_.load(std::memory_order_relaxed); }

  // Setters: by the task itself (its own carrier).
  void SetCredentials(RefPtr<const Credentials> cred);
  void SetFdTable(RefPtr<FdTable> t);
  void SetFsContext(RefPtr<FsContext> fs);
  void SetMountNs(RefPtr<MountNamespace> ns);
  void SetPidNsForChildren(RefPtr<PidNamespace> ns);
  void SetUtsNs(RefPtr<UtsNamespace> ns);
  void SetIpcNs(RefPtr<IpcNamespace> ns);
  void SetNetNs(RefPtr<NetNamespace> ns);
  void SetCgroupNs(RefPtr<CgroupNamespace> ns);
  void SetAccount(RefPtr<UserAccount> account);
  RefPtr<UserAccount> account() const;
  void SetSeccompMode(int mode);
  // What calls that only concern the caller answer has changed: they come to the sentry again. After the change; any
  // thread.
  void WithdrawIdentity() { context_->Withdraw(); }
  RefPtr<SeccompFilter> seccomp_filter() const;
  void SetSeccompFilter(RefPtr<SeccompFilter> f);

  // The descriptor's file; kEBADF. GetFileNotPath also refuses O_PATH descriptors. Own carrier only.
  Result<RefPtr<File>> GetFile(int fd) const;
  Result<RefPtr<File>> GetFileNotPath(int fd) const;
  // RLIMIT_NOFILE applied.
  Result<int> InstallFd(RefPtr<File> file, bool cloexec, int min = 0);
  // For a call into fs/; valid while the task does not change its credentials or fs context (one call).
  class FsCall;  // sentry/kernel/fs_call.h: holds the references that a VfsContext points to
  // The directory that a relative path starts from: AT_FDCWD or a directory descriptor. kEBADF, kENOTDIR.
  Result<VfsPath> DirFd(int dirfd) const;
  // The one place where a result becomes the return register (called by the dispatcher). A restart code stays for
  // signal delivery; a temporary signal mask ends unless the call was interrupted.
  void FinishSyscall(const Result<int64_t>& result);
  // rt_sigreturn: the registers are the restored ones, and no restart applies to them.
  void SkipRestart() { interrupted_call_ = false; }

  // ptrace_may_access(): may this task look into `target` (procfs, process_vm_readv, kcmp, pidfd_getfd)?
  // `real_ids`: check with the real ids (a system call), else the fs ids (procfs).
  bool MayAccess(Task& target, bool real_ids) const;

  // A deliverable signal (or a stop, an exit) is pending: blocking calls give up with a restart code.
  bool HasPendingInterrupt() const { return interrupt_.load(std::memory_order_acquire); }
  // The task must exit; waits that only a kill may end look at this.
  bool IsKilled() const { return killed_.load(std::memory_order_acquire); }
  // Whether guest code may be running, and how often the task has entered it; for membarrier(2). Racy.
  bool in_guest() const { return in_guest_.load(std::memory_order_seq_cst); }
  uint64_t guest_entries() const { return guest_entries_.load(std::memory_order_acquire); }
  // Own carrier: a short sleep, for the rare loops that wait for another task's next step.
  void SleepBriefly();
  // Makes the task look for signals: wakes it if it is parked, interrupts its guest code if it runs. Any thread.
  void Kick();

  // --- signals (signals.h); the lock is thread_group().signal_mutex() ---
  TaskSignals& signals() { return signals_; }
  SignalSet signal_mask() const { return {signals_.mask.load(std::memory_order_relaxed)}; }
  // Own carrier: replaces the mask (SIGKILL and SIGSTOP are taken out).
  void SetSignalMask(SignalSet mask);
  // Sets interrupt_ from the pending signals and requests. With the signal mutex held.
  void UpdateInterruptLocked();
  // To this very task. Never blocks.
  // kEAGAIN: a real-time signal over RLIMIT_SIGPENDING. `from_outside`: the sender is in an outer pid namespace or is
  // the kernel, so that SIGKILL reaches a namespace's init.
  Result<void> SendSignal(const SigInfo& info, bool from_outside = false);
  // A synchronous fault of the task itself: when it is blocked or ignored the task dies of it.
  void ForceSignal(const SigInfo& info);
  void ForceSegv(int code = SI_KERNEL, GuestAddr address = 0);

  // --- life ---
  // Starts the fiber that runs the task. After this the task lives by itself until it exits.
  Result<void> Start();
  // The rest of the process's life: to be called by the task itself; the run loop then ends the task.
  // `status` as wait(2) reports it.
  void RequestExit(int status);       // this thread only
  void RequestGroupExit(int status);  // every thread

 private:
  friend class Kernel;
  friend class CoreDump;
  friend class ThreadGroup;
  friend class TaskCloner;
  friend class TaskExec;
  friend class TaskExit;
  friend class SignalDelivery;
  friend class ChildWaiter;
  friend class SignalSender;
  friend class StoppedTracee;
  friend class TraceLink;
  friend class TraceStop;
  friend Result<void> ParkInterruptible(Task& t, Deadline deadline);
  friend Result<void> ParkKillable(Task& t, Deadline deadline);
  explicit Task(Kernel& kernel);

  void Run();
  Event EnterGuest();
  bool StepIntoCall();
  // Own carrier: lets the platform answer getpid(2) and its like.
  void PublishIdentity();
  void HandleFault(const FaultEvent& fault);
  void Exit();
  bool Park(Deadline deadline);

  // --- constant after construction ---
  Kernel& kernel_;
  RefPtr<ThreadGroup> thread_group_;
  Nanos start_time_ = 0;
  int32_t tgid_ = 0;
  int32_t root_tgid_ = 0;
  std::atomic<int32_t> tid_{0};
  std::atomic<int32_t> root_tid_{0};

  // --- the task's own ---
  Registers regs_;
  std::unique_ptr<Context> context_;
  Parker parker_;
  RestartBlock restart_block_;
  GuestAddr set_child_tid_ = 0;
  class StartGate* gate_ = nullptr;  // of a container's init, until it is started
  int exit_status_ = 0;
  bool exit_requested_ = false;
  bool interrupted_call_ = false;  // the return register holds a restart code
  LastFault last_fault_;
  std::atomic<Nanos> clock_mark_{0};  // when the task last crossed between guest, kernel and sleep

  // --- shared; changed by the task itself with mu_ held, read by it without ---
  mutable Mutex mu_{LockRank::kTask};
  RefPtr<Pid> pid_;
  RefPtr<MemoryManager> mm_;
  RefPtr<FdTable> fd_table_;
  RefPtr<FsContext> fs_context_;
  RefPtr<const Credentials> cred_;
  RefPtr<MountNamespace> mount_ns_;
  RefPtr<PidNamespace> pid_ns_for_children_;
  RefPtr<UtsNamespace> uts_ns_;
  RefPtr<IpcNamespace> ipc_ns_;
  RefPtr<NetNamespace> net_ns_;
  RefPtr<CgroupNamespace> cgroup_ns_;
  RefPtr<UserAccount> account_;
  RefPtr<SeccompFilter> seccomp_filter_;
  SchedState sched_ ABSL_GUARDED_BY(mu_);
  char comm_[16] ABSL_GUARDED_BY(mu_) = {};

  // --- signals ---
  TaskSignals signals_;
  std::atomic<bool> interrupt_{false};
  std::atomic<bool> killed_{false};
  std::atomic<bool> in_guest_{false};
  std::atomic<uint64_t> guest_entries_{0};
  std::atomic<bool> parked_{false};
  std::atomic<bool> exited_{false};
  std::atomic<bool> leaving_{false};
  std::atomic<bool> releases_futexes_{false};

  TraceState trace_;  // ptrace(2)

  // --- counters and small shared values ---
  std::atomic<Nanos> user_time_{0};
  std::atomic<Nanos> system_time_{0};
  std::atomic<uint64_t> parks_{0};
  std::atomic<uint64_t> syscalls_{0};
  IoCounter io_;
  std::atomic<uint64_t> last_syscall_{~uint64_t{0}};
  std::atomic<int> parent_death_signal_{0};
  std::atomic<uint64_t> timer_slack_{50'000};
  std::atomic<uint64_t> default_timer_slack_{50'000};
  std::atomic<int> seccomp_mode_{0};
  RefPtr<Task> vfork_parent_;  // under the tree mutex: who waits for this task's exec or exit
  bool vfork_done_ = false;    // under the tree mutex: of the parent's wait
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_TASK_H_
