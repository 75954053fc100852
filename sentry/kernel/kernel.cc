#include "sentry/kernel/kernel.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include "fs/anon/signal_source.h"
#include "fs/vfs/mount.h"
#include "fs/vfs/vfs.h"
#include "sentry/kernel/job_control.h"
#include "sentry/kernel/process_timers.h"
#include "sentry/kernel/signal_source.h"
#include "sentry/kernel/task_clone.h"
#include "sentry/kernel/task_exec.h"
#include "sentry/loader/vdso.h"

namespace moat {

Kernel::Kernel()
    : trim_timer_([this] {
        trim_armed_.store(false, std::memory_order_relaxed);
        memory_->Trim();
      }) {}

Result<std::unique_ptr<Kernel>> Kernel::Create(KernelOptions options) {
  std::unique_ptr<Kernel> kernel(new Kernel);
  kernel->platform_ = std::move(options.platform);
  kernel->memory_ = std::move(options.memory);
  kernel->commit_ = std::make_unique<CommitAccount>(options.total_memory);
  kernel->allowed_cpus_ = std::move(options.cpus);
  kernel->cpu_share_ = std::make_unique<CpuShare>(kernel->allowed_cpus_.count());
  kernel->total_memory_ = options.total_memory;
  MmEnvironment& env = kernel->mm_environment_;
  env.memory = kernel->memory_.get();
  env.commit = kernel->commit_.get();
  env.min_address = std::max<GuestAddr>(kernel->platform_->min_address(), env.min_address);
  env.max_address = kernel->platform_->max_address();
  env.pinned = kernel->platform_->pins_carrier();
  const Platform::CallTables tables = kernel->platform_->call_tables();
  env.call_tables = tables.start;
  env.call_tables_length = tables.length;
  if (CodePatcher* patcher = kernel->platform_->code_patcher()) {
    kernel->code_ = TRY(CodeStore::Create(*patcher, *kernel->memory_, tables.start, tables.shared));
    env.code = kernel->code_.get();
  }
  TRY(MakeVdso(&env));
  kernel->root_user_ns_ = UserNamespace::CreateRoot();
  const RefPtr<UserNamespace>& owner = kernel->root_user_ns_;
  kernel->root_pid_ns_ = PidNamespace::CreateRoot(owner);
  kernel->root_uts_ns_ = MakeRef<UtsNamespace>(owner, options.hostname);
  kernel->root_ipc_ns_ = MakeRef<IpcNamespace>(owner);
  kernel->root_net_ns_ = MakeRef<NetNamespace>(owner);
  kernel->root_cgroup_ns_ = MakeRef<CgroupNamespace>(owner);
  kernel->job_control_ = std::make_unique<JobControl>(*kernel);
  tty_job_control = kernel->job_control_.get();
  InstallSignalSource();
  return kernel;
}

Kernel::~Kernel() {
  if (tty_job_control == job_control_.get()) tty_job_control = nullptr;
}

void Kernel::TrimMemoryLater() {
  constexpr Nanos kUnused = 1'000'000'000;
  if (!trim_armed_.exchange(true, std::memory_order_relaxed)) trim_timer_.Arm(DeadlineAfter(kUnused));
}

RefPtr<UserAccount> Kernel::Account(Kuid uid) {
  MutexLock lock(accounts_mu_);
  RefPtr<UserAccount>& account = accounts_[uid];
  if (!account) account = MakeRef<UserAccount>(uid);
  return account;
}

namespace {

// execvp(3)'s search, for a command without a slash.
Result<VfsPath> FindExecutable(const VfsContext& ctx, const ProcessSpec& spec, std::string* found) {
  if (spec.executable.find('/') != std::string::npos) {
    *found = spec.executable;
    return vfs::Resolve(ctx, ctx.cwd, spec.executable);
  }
  std::string_view path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  for (const std::string& e : spec.envp) {
    if (e.starts_with("PATH=")) path = std::string_view(e).substr(5);
  }
  Errno result = kENOENT;
  for (;;) {
    const size_t colon = path.find(':');
    std::string candidate(path.substr(0, colon));
    if (candidate.empty()) candidate = ".";
    candidate += "/" + spec.executable;
    Result<VfsPath> place = vfs::Resolve(ctx, ctx.cwd, candidate);
    if (place.ok() && vfs::Access(ctx, *place, 1).ok() && place->dentry->inode()->type() == S_IFREG) {
      *found = candidate;
      return place;
    }
    if (place.ok() || place.error() == kEACCES) result = kEACCES;
    if (colon == std::string_view::npos) return result;
    path.remove_prefix(colon + 1);
  }
}

}  // namespace

Result<RefPtr<ThreadGroup>> Kernel::CreateProcess(const ProcessSpec& spec) {
  RefPtr<Task> task = TaskCloner::NewTask(*this);
  Task& t = *task;
  auto group = MakeRef<ThreadGroup>(*this, MakeRef<SignalActions>(), spec.rlimits);
  group->unkillable_init_ = spec.protected_init;
  group->outside_job_ = spec.outside_job;
  group->oom_score_adj.store(spec.oom_score_adj, std::memory_order_relaxed);
  t.thread_group_ = group;
  t.cred_ = spec.credentials ? spec.credentials : Credentials::CreateRoot(root_user_ns_);
  t.mount_ns_ = spec.mount_ns;
  RefPtr<PidNamespace> pid_ns = spec.pid_ns ? spec.pid_ns : root_pid_ns_;
  t.pid_ns_for_children_ = pid_ns;
  t.uts_ns_ = spec.uts_ns ? spec.uts_ns : root_uts_ns_;
  t.ipc_ns_ = spec.ipc_ns ? spec.ipc_ns : root_ipc_ns_;
  t.net_ns_ = spec.net_ns ? spec.net_ns : root_net_ns_;
  t.cgroup_ns_ = spec.cgroup_ns ? spec.cgroup_ns : root_cgroup_ns_;
  t.fd_table_ = spec.files ? spec.files : FdTable::Create();
  t.start_time_ = ReadHostClock(CLOCK_BOOTTIME);
  t.gate_ = spec.gate;
  t.SetSched(spec.sched);

  VfsPath root = spec.root ? spec.root : spec.mount_ns->root();
  VfsContext ctx{*t.cred_, *t.mount_ns_, {}, {}};
  ctx.root = root;
  ctx.cwd = root;
  ctx.umask = spec.umask;
  ctx.cwd = TRY(vfs::Resolve(ctx, root, spec.cwd, {.directory_only = true}));
  t.fs_context_ = MakeRef<FsContext>(root, ctx.cwd, spec.umask);

  ExecRequest request;
  VfsPath place = TRY(FindExecutable(ctx, spec, &request.filename));
  request.file = TRY(ExecutableFile::Open(ctx, place));
  request.argv = spec.argv;
  request.envp = spec.envp;
  TRY(TaskExec::LoadFirst(t, ctx, std::move(request)));
  t.context_ = TRY(platform_->NewContext());
  {
    MutexLock lock(tree_mu_);
    TRY(TaskCloner::LinkLocked(t, group, nullptr, *pid_ns, {}));
    RefPtr<Session> session = MakeRef<Session>(group->pid_);
    session->leader = group.get();
    group->process_group_ = MakeRef<ProcessGroup>(group->pid_, std::move(session));
    group->process_group_->Add(*group);
  }
  if (spec.tty) job_control_->SetControllingTty(*group, spec.tty);
  TRY(TaskCloner::Start(t));
  group->timers().UpdateCpuLimit();
  return group;
}

RefPtr<ThreadGroup> Kernel::FindThreadGroup(int32_t id, const PidNamespace& ns) {
  MutexLock lock(tree_mu_);
  Pid* pid = ns.Find(id);
  return pid == nullptr ? nullptr : RefPtr<ThreadGroup>(pid->thread_group);
}

RefPtr<Task> Kernel::FindTask(int32_t tid, const PidNamespace& ns) {
  MutexLock lock(tree_mu_);
  Pid* pid = ns.Find(tid);
  return pid == nullptr ? nullptr : RefPtr<Task>(pid->task);
}

RefPtr<Pid> Kernel::FindPid(int32_t nr, const PidNamespace& ns) {
  MutexLock lock(tree_mu_);
  return RefPtr<Pid>(ns.Find(nr));
}

std::vector<RefPtr<ThreadGroup>> Kernel::ThreadGroups(const PidNamespace& ns) {
  std::vector<RefPtr<ThreadGroup>> groups;
  MutexLock lock(tree_mu_);
  for (int32_t nr : ns.ThreadGroupIds()) groups.emplace_back(ns.Find(nr)->thread_group);
  return groups;
}

Result<void> Kernel::SendSignal(int32_t pid, int signo, const PidNamespace& ns) {
  if (signo < 0 || signo > abi::kSignalCount) return kEINVAL;
  RefPtr<ThreadGroup> group = FindThreadGroup(pid, ns);
  if (!group) return kESRCH;
  if (signo == 0) return {};
  return group->SendSignal(UserSigInfo(signo, SI_USER, 0, 0), true);
}

void Kernel::SendSignalToAll(int signo, const PidNamespace& ns) {
  for (RefPtr<ThreadGroup>& group : ThreadGroups(ns)) (void)group->SendSignal(UserSigInfo(signo, SI_USER, 0, 0), true);
}

void Kernel::SendSignalToGroupOf(ThreadGroup& member, int signo) {
  std::vector<RefPtr<ThreadGroup>> targets;
  {
    MutexLock lock(tree_mu_);
    for (ThreadGroup* g : member.process_group_->members()) targets.emplace_back(g);
  }
  for (RefPtr<ThreadGroup>& group : targets) (void)group->SendSignal(UserSigInfo(signo, SI_USER, 0, 0), true);
}

void Kernel::KillAll() {
  for (RefPtr<ThreadGroup>& group : ThreadGroups(*root_pid_ns_)) group->Kill(SIGKILL);
}

void Kernel::WaitForAll() {
  Parker parker;
  ParkerWaiter waiter(EPOLLIN, parker);
  idle_queue_.Add(waiter);
  while (tasks_.load(std::memory_order_acquire) != 0) parker.Park();
  idle_queue_.Remove(waiter);
}

std::vector<RefPtr<ThreadGroup>> Kernel::OwnerGroups(bool process_group, int32_t id) {
  std::vector<RefPtr<ThreadGroup>> groups;
  if (!process_group) {
    if (RefPtr<ThreadGroup> group = FindThreadGroup(id, *root_pid_ns_)) groups.push_back(std::move(group));
    return groups;
  }
  MutexLock lock(tree_mu_);
  Pid* pid = root_pid_ns_->Find(id);
  if (pid != nullptr && pid->process_group != nullptr) {
    for (ThreadGroup* g : pid->process_group->members()) groups.emplace_back(g);
  }
  return groups;
}

int Kernel::RunningTasks() const {
  int running = 0;
  MutexLock lock(const_cast<Mutex&>(tree_mu_));
  for (int32_t nr : root_pid_ns_->ThreadGroupIds()) {
    for (const RefPtr<Task>& t : root_pid_ns_->Find(nr)->thread_group->tasks_) {
      running += !t->exited() && !t->parked_.load(std::memory_order_relaxed);
    }
  }
  return running;
}

}  // namespace moat
