// Kernel: one sandbox's kernel. Owns the platform, the memory file and the process tree of all its containers.
// Each container is an init process with its own pid, mount, uts, ipc namespaces, made by CreateProcess.
// Thread-safe. Lock: tree_mutex() (kKernel), the outermost of sentry/kernel.
#ifndef MOAT_SENTRY_KERNEL_KERNEL_H_
#define MOAT_SENTRY_KERNEL_KERNEL_H_

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "platform/fiber/timer.h"
#include "sentry/kernel/cpu_share.h"
#include "sentry/kernel/futex.h"
#include "sentry/kernel/start_gate.h"
#include "sentry/kernel/thread_group.h"

namespace moat {

class JobControl;

struct KernelOptions {
  std::unique_ptr<Platform> platform;
  std::unique_ptr<MemoryFile> memory;
  CpuSet cpus = CpuSet::First(1);      // that guests may run on
  uint64_t total_memory = 2ull << 30;  // MemTotal that guests see
  std::string hostname = "moat";       // of the root uts namespace
};

// A process to start: a container's init, or one that `runsc exec` adds.
struct ProcessSpec {
  std::string executable;  // path; searched in PATH of `envp` when it has no '/'
  std::vector<std::string> argv;
  std::vector<std::string> envp;
  std::string cwd = "/";
  uint32_t umask = 022;
  RefPtr<const Credentials> credentials;
  RefPtr<FdTable> files;            // null: an empty table
  RefPtr<MountNamespace> mount_ns;  // its root is the process's root directory, unless `root` says otherwise
  VfsPath root;
  // Null: the kernel's root namespace of that kind. To start a container's init give a fresh child pid namespace;
  // for exec give init's.
  RefPtr<PidNamespace> pid_ns;
  RefPtr<UtsNamespace> uts_ns;
  RefPtr<IpcNamespace> ipc_ns;
  RefPtr<NetNamespace> net_ns;
  RefPtr<CgroupNamespace> cgroup_ns;
  Rlimits rlimits;
  RefPtr<Tty> tty;  // becomes the controlling terminal of the new session
  int oom_score_adj = 0;
  // Null: runs at once. Else the first task calls gate->Wait(parker()) on its own fiber before its first instruction
  // (`runsc create` and `start`). Must outlive the wait.
  StartGate* gate = nullptr;
  // Pid 1 of a pid namespace ignores signals without a handler, as Linux has it. False for `runsc do`, whose command
  // shall die of a signal as it would outside.
  bool protected_init = true;
  OutsideJob* outside_job = nullptr;  // must outlive the process
  SchedState sched;
};

class Kernel {
 public:
  static Result<std::unique_ptr<Kernel>> Create(KernelOptions options);
  // No task may be left: KillAll and WaitForAll first.
  ~Kernel();
  Kernel(const Kernel&) = delete;

  // --- constant ---
  Platform& platform() { return *platform_; }
  MemoryFile& memory_file() { return *memory_; }
  const MmEnvironment& mm_environment() const { return mm_environment_; }
  CommitAccount& commit_account() { return *commit_; }
  // The CPUs that guests may run on, by the host's numbers; a guest sees as many CPUs as the highest of them says.
  const CpuSet& allowed_cpus() const { return allowed_cpus_; }
  int cpus() const { return allowed_cpus_.limit(); }
  CpuShare& cpu_share() { return *cpu_share_; }
  uint64_t total_memory() const { return total_memory_; }
  FutexTable& futexes() { return futexes_; }
  const RefPtr<UserNamespace>& root_user_ns() const { return root_user_ns_; }
  const RefPtr<PidNamespace>& root_pid_ns() const { return root_pid_ns_; }
  const RefPtr<UtsNamespace>& root_uts_ns() const { return root_uts_ns_; }
  const RefPtr<IpcNamespace>& root_ipc_ns() const { return root_ipc_ns_; }
  const RefPtr<NetNamespace>& root_net_ns() const { return root_net_ns_; }
  const RefPtr<CgroupNamespace>& root_cgroup_ns() const { return root_cgroup_ns_; }

  // --- processes ---
  // Loads the executable and starts the process. kENOENT, kEACCES, kENOEXEC, ... as execve(2).
  // The caller waits with WaitForExit and then calls Reap.
  Result<RefPtr<ThreadGroup>> CreateProcess(const ProcessSpec& spec);
  // By id in `ns`; null when there is none. A zombie is found too.
  RefPtr<ThreadGroup> FindThreadGroup(int32_t id, const PidNamespace& ns);
  RefPtr<Task> FindTask(int32_t tid, const PidNamespace& ns);
  RefPtr<Pid> FindPid(int32_t nr, const PidNamespace& ns);
  // All processes that `ns` sees, zombies included.
  std::vector<RefPtr<ThreadGroup>> ThreadGroups(const PidNamespace& ns);
  int task_count() const { return tasks_.load(std::memory_order_relaxed); }
  uint64_t forks_since_boot() const { return forks_.load(std::memory_order_relaxed); }
  uint64_t thread_limit() const { return 32'000; }

  // --- signals from outside of the guest (runsc kill): no permission check. kESRCH, kEINVAL ---
  Result<void> SendSignal(int32_t pid, int signo, const PidNamespace& ns);
  // To every process in `ns` (runsc kill --all).
  void SendSignalToAll(int signo, const PidNamespace& ns);
  // To the process group of `member`, as kill(2) with a negative id.
  void SendSignalToGroupOf(ThreadGroup& member, int signo);
  void KillAll();
  // Blocks the calling thread until no task is left.
  void WaitForAll();
  // The process, or with `process_group` the members of the group, of that id in the root pid namespace.
  std::vector<RefPtr<ThreadGroup>> OwnerGroups(bool process_group, int32_t id);

  // --- for sentry/kernel ---
  Mutex& tree_mutex() ABSL_LOCK_RETURNED(tree_mu_) { return tree_mu_; }
  RefPtr<UserAccount> Account(Kuid uid);
  // load average and the like
  int RunningTasks() const;

  // --strace: each call with decoded arguments goes to the log.
  std::atomic<bool> trace_syscalls{false};

  // A process has ended: what it left for the next one (MemoryFile::AllocateToOverwrite) goes to the host if none
  // comes.
  void TrimMemoryLater();

  // Called with a thread group that has just become a zombie; the control server's hook. Set before the first
  // process; must not block and takes no lock of sentry/kernel.
  absl::AnyInvocable<void(ThreadGroup&)> on_process_exit;

 private:
  friend class TaskCloner;
  friend class TaskExit;
  friend class Task;
  Kernel();

  std::unique_ptr<Platform> platform_;
  std::unique_ptr<MemoryFile> memory_;
  std::unique_ptr<CommitAccount> commit_;
  std::unique_ptr<CodeStore> code_;
  MmEnvironment mm_environment_;
  CpuSet allowed_cpus_;
  std::unique_ptr<CpuShare> cpu_share_;
  uint64_t total_memory_ = 0;  // KernelOptions::total_memory
  FutexTable futexes_;
  RefPtr<UserNamespace> root_user_ns_;
  RefPtr<PidNamespace> root_pid_ns_;
  RefPtr<UtsNamespace> root_uts_ns_;
  RefPtr<IpcNamespace> root_ipc_ns_;
  RefPtr<NetNamespace> root_net_ns_;
  RefPtr<CgroupNamespace> root_cgroup_ns_;

  Mutex tree_mu_{LockRank::kKernel};
  std::unordered_map<Kuid, RefPtr<UserAccount>> accounts_ ABSL_GUARDED_BY(accounts_mu_);
  Mutex accounts_mu_{LockRank::kLeaf};
  std::atomic<int> tasks_{0};
  std::atomic<uint64_t> forks_{0};
  std::atomic<bool> trim_armed_{false};
  FunctionTimer trim_timer_;  // after memory_: it ends first
  std::unique_ptr<JobControl> job_control_;
  WaitQueue idle_queue_;  // EPOLLIN: the last task is gone
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_KERNEL_H_
