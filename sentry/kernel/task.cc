#include "sentry/kernel/task.h"

#include <fcntl.h>

#include <cstring>

#include "fs/vfs/dentry.h"
#include "fs/vfs/file.h"
#include "fs/vfs/mount.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/seccomp_filter.h"

namespace moat {

Task::Task(Kernel& kernel) : kernel_(kernel) {}
Task::~Task() = default;

int32_t Task::TidIn(const PidNamespace& ns) const { return pid()->NrIn(ns); }
int32_t Task::TgidIn(const PidNamespace& ns) const { return thread_group_->IdIn(ns); }

RefPtr<Pid> Task::pid() const {
  MutexLock lock(mu_);
  return pid_;
}

MmLimits Task::mm_limits() const {
  const Rlimits& r = thread_group_->rlimits();
  MmLimits limits;
  limits.as = r.Soft(RLIMIT_AS);
  limits.data = r.Soft(RLIMIT_DATA);
  limits.stack = r.Soft(RLIMIT_STACK);
  limits.memlock = r.Soft(RLIMIT_MEMLOCK);
  limits.can_lock = cred_->HasCapability(CAP_IPC_LOCK);
  return limits;
}

RefPtr<MemoryManager> Task::mm() const {
  MutexLock lock(mu_);
  return mm_;
}
RefPtr<FdTable> Task::fd_table() const {
  MutexLock lock(mu_);
  return fd_table_;
}
RefPtr<FsContext> Task::fs_context() const {
  MutexLock lock(mu_);
  return fs_context_;
}
RefPtr<const Credentials> Task::credentials() const {
  MutexLock lock(mu_);
  return cred_;
}
RefPtr<MountNamespace> Task::mount_ns() const {
  MutexLock lock(mu_);
  return mount_ns_;
}
RefPtr<PidNamespace> Task::pid_ns() const { return RefPtr<PidNamespace>(&pid()->ns()); }
RefPtr<PidNamespace> Task::pid_ns_for_children() const {
  MutexLock lock(mu_);
  return pid_ns_for_children_;
}
RefPtr<UtsNamespace> Task::uts_ns() const {
  MutexLock lock(mu_);
  return uts_ns_;
}
RefPtr<IpcNamespace> Task::ipc_ns() const {
  MutexLock lock(mu_);
  return ipc_ns_;
}
RefPtr<NetNamespace> Task::net_ns() const {
  MutexLock lock(mu_);
  return net_ns_;
}
RefPtr<CgroupNamespace> Task::cgroup_ns() const {
  MutexLock lock(mu_);
  return cgroup_ns_;
}
RefPtr<UserAccount> Task::account() const {
  MutexLock lock(mu_);
  return account_;
}
RefPtr<SeccompFilter> Task::seccomp_filter() const {
  MutexLock lock(mu_);
  return seccomp_filter_;
}

// Each setter swaps under the lock and drops the old object after it.
void Task::SetCredentials(RefPtr<const Credentials> cred) {
  MutexLock lock(mu_);
  std::swap(cred_, cred);
  if (context_ != nullptr) context_->Withdraw();
}
void Task::SetSeccompMode(int mode) {
  seccomp_mode_.store(mode, std::memory_order_relaxed);
  WithdrawIdentity();
}
void Task::SetFdTable(RefPtr<FdTable> t) {
  MutexLock lock(mu_);
  std::swap(fd_table_, t);
}
void Task::SetFsContext(RefPtr<FsContext> fs) {
  MutexLock lock(mu_);
  std::swap(fs_context_, fs);
}
void Task::SetMountNs(RefPtr<MountNamespace> ns) {
  MutexLock lock(mu_);
  std::swap(mount_ns_, ns);
}
void Task::SetPidNsForChildren(RefPtr<PidNamespace> ns) {
  MutexLock lock(mu_);
  std::swap(pid_ns_for_children_, ns);
}
void Task::SetUtsNs(RefPtr<UtsNamespace> ns) {
  MutexLock lock(mu_);
  std::swap(uts_ns_, ns);
}
void Task::SetIpcNs(RefPtr<IpcNamespace> ns) {
  MutexLock lock(mu_);
  std::swap(ipc_ns_, ns);
}
void Task::SetNetNs(RefPtr<NetNamespace> ns) {
  MutexLock lock(mu_);
  std::swap(net_ns_, ns);
}
void Task::SetCgroupNs(RefPtr<CgroupNamespace> ns) {
  MutexLock lock(mu_);
  std::swap(cgroup_ns_, ns);
}
void Task::SetSeccompFilter(RefPtr<SeccompFilter> f) {
  MutexLock lock(mu_);
  std::swap(seccomp_filter_, f);
}
void Task::SetAccount(RefPtr<UserAccount> account) {
  if (account) account->processes.fetch_add(1, std::memory_order_relaxed);
  MutexLock lock(mu_);
  std::swap(account_, account);
  if (account) account->processes.fetch_sub(1, std::memory_order_relaxed);
}

std::string Task::comm() const {
  MutexLock lock(mu_);
  return comm_;
}

void Task::SetComm(std::string_view name) {
  MutexLock lock(mu_);
  memset(comm_, 0, sizeof comm_);
  memcpy(comm_, name.data(), std::min(name.size(), sizeof comm_ - 1));
}

SchedState Task::sched() const {
  MutexLock lock(mu_);
  return sched_;
}

void Task::SetSched(const SchedState& s) {
  MutexLock lock(mu_);
  sched_ = s;
}

void Task::SetAffinity(const CpuSet& cpus) {
  // Under the lock, so that two callers cannot leave one set shown and the other one in force.
  MutexLock lock(mu_);
  sched_.affinity = cpus;
  if (context_ != nullptr) context_->SetAffinity(cpus);
}

char Task::StateLetter() const {
  if (exited()) return 'Z';
  {
    MutexLock lock(thread_group_->signal_mutex());
    if (trace_.in_stop) return 't';
    if (signals_.stopped) return 'T';
  }
  // Who is woken is running for all others, before it has a CPU.
  return parked_.load(std::memory_order_relaxed) && parker_.asleep() ? 'S' : 'R';
}

CpuTimes Task::cpu_times() const {
  CpuTimes times{user_time_.load(std::memory_order_relaxed), system_time_.load(std::memory_order_relaxed)};
  if (exited() || parked_.load(std::memory_order_relaxed)) return times;
  const Nanos running = kernel_.cpu_share().Now() - clock_mark_.load(std::memory_order_relaxed);
  if (running > 0 && clock_mark_.load(std::memory_order_relaxed) != 0)
    (in_guest_.load(std::memory_order_relaxed) ? times.user : times.system) += running;
  return times;
}

Result<RefPtr<File>> Task::GetFile(int fd) const {
  RefPtr<File> file = fd_table_->GetOwn(fd);
  if (!file) return kEBADF;
  return file;
}

Result<RefPtr<File>> Task::GetFileNotPath(int fd) const {
  RefPtr<File> file = fd_table_->GetOwn(fd);
  if (!file || (file->flags() & O_PATH) != 0) return kEBADF;
  return file;
}

Result<int> Task::InstallFd(RefPtr<File> file, bool cloexec, int min) {
  return fd_table_->Install(std::move(file), cloexec, thread_group_->rlimits().Soft(RLIMIT_NOFILE), min);
}

Result<VfsPath> Task::DirFd(int dirfd) const {
  if (dirfd == AT_FDCWD) return fs_context_->cwd();
  RefPtr<File> file = TRY(GetFile(dirfd));
  return file->path();
}

bool Task::MayAccess(Task& target, bool real_ids) const {
  if (target.thread_group_ == thread_group_) return true;
  const Credentials& mine = *cred_;
  RefPtr<const Credentials> theirs = target.credentials();
  const Kuid uid = real_ids ? mine.uid : mine.fsuid;
  const Kgid gid = real_ids ? mine.gid : mine.fsgid;
  const bool same = uid == theirs->euid && uid == theirs->suid && uid == theirs->uid && gid == theirs->egid &&
                    gid == theirs->sgid && gid == theirs->gid;
  if (!same && !mine.HasCapabilityIn(CAP_SYS_PTRACE, *theirs->user_ns)) return false;
  RefPtr<MemoryManager> mm = target.mm();
  if (mm && mm->dumpable() != 1 && !mine.HasCapabilityIn(CAP_SYS_PTRACE, *theirs->user_ns)) return false;
  if (mine.user_ns == theirs->user_ns && theirs->permitted.IsSubsetOf(mine.permitted)) return true;
  return mine.HasCapabilityIn(CAP_SYS_PTRACE, *theirs->user_ns);
}

void Task::Kick() {
  interrupt_.store(true, std::memory_order_seq_cst);
  parker_.Unpark();
  if (in_guest_.load(std::memory_order_seq_cst)) context_->Interrupt();
}

void Task::RequestExit(int status) {
  exit_requested_ = true;
  exit_status_ = status;
  interrupt_.store(true, std::memory_order_seq_cst);
}

void Task::RequestGroupExit(int status) {
  thread_group_->Kill(status);
  RequestExit(status);
}

}  // namespace moat
