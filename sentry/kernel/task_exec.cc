#include "sentry/kernel/task_exec.h"

#include <linux/personality.h>
#include <sys/ptrace.h>

#include "fs/vfs/dentry.h"
#include "sentry/kernel/blocking.h"
#include "sentry/kernel/file_close.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/process_timers.h"
#include "sentry/kernel/random.h"
#include "sentry/kernel/signal_sender.h"
#include "sentry/kernel/task_exit.h"
#include "sentry/kernel/trace_link.h"
#include "sentry/kernel/trace_stop.h"

namespace moat {

namespace {

// A new program's registers: 64-bit user segments, interrupts on, all else 0.
constexpr uint64_t kUserCs = 0x33, kUserDs = 0x2b, kEflags = 0x202;

Registers FirstRegisters(const LoadedImage& loaded) {
  Registers regs;
  regs.gp.rip = loaded.entry;
  regs.gp.rsp = loaded.stack_pointer;
  regs.gp.cs = kUserCs;
  regs.gp.ss = kUserDs;
  regs.gp.eflags = kEflags;
  regs.gp.orig_rax = ~uint64_t{0};
  return regs;
}

std::string_view BaseName(std::string_view path) {
  const size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? path : path.substr(slash + 1);
}

}  // namespace

Result<TaskExec::NewProgram> TaskExec::Load(Task& t, const VfsContext& ctx, ExecRequest request) {
  Kernel& kernel = t.kernel();
  NewProgram program;
  ImageRequest image{request.file, std::move(request.filename), std::move(request.argv), std::move(request.envp),
                     request.filename_inaccessible};
  const MmLimits limits = t.mm_limits();
  VfsExecutableOpener opener(ctx);
  program.image = TRY(PrepareImage(std::move(image), limits, opener));
  const auto& executable = static_cast<const ExecutableFile&>(*program.image.executable);
  program.credentials =
      TRY(CredentialsForExec(*t.cred_, ctx, *executable.file(), !TraceLink::TracerCapable(t, t.user_ns())));
  const Credentials& cred = *program.credentials.cred;

  RefPtr<AddressSpace> space = TRY(kernel.platform().NewAddressSpace());
  program.mm = MemoryManager::Create(kernel.mm_environment(), std::move(space));
  if (TraceStop::Traced(t)) program.mm->KeepCode();
  ImageIdentity identity;
  identity.uid = cred.user_ns->FromKuid(cred.uid);
  identity.euid = cred.user_ns->FromKuid(cred.euid);
  identity.gid = cred.user_ns->FromKgid(cred.gid);
  identity.egid = cred.user_ns->FromKgid(cred.egid);
  identity.secure = program.credentials.secure;
  identity.randomize = (t.personality & ADDR_NO_RANDOMIZE) == 0;
  FillRandom(identity.random.data(), sizeof identity.random);
  program.loaded = TRY(LoadImage(program.image, identity, *program.mm, limits, nullptr));
  program.mm->set_executable(executable.file());
  program.mm->set_dumpable(program.credentials.secure ? 0 : 1);
  return program;
}

Result<void> TaskExec::Dethread(Task& t) {
  ThreadGroup& group = t.thread_group();
  {
    MutexLock lock(group.signal_mu_);
    // Another exit or execve was first.
    if (group.exiting() || group.exec_task_ || t.IsKilled()) return kEINTR;
    if (group.tasks_.size() == 1) {
      t.signals_.stop_requested = false;
    } else {
      group.exec_task_ = RefPtr<Task>(&t);
      for (const RefPtr<Task>& other : group.tasks_) {
        if (other == &t) continue;
        SignalSender::KillTaskLocked(*other);
      }
    }
  }
  bool killed = false;
  for (;;) {
    {
      MutexLock lock(group.signal_mu_);
      killed = group.exiting();
      if (group.tasks_.size() == 1 || killed) {
        group.exec_task_ = nullptr;
        break;
      }
    }
    t.Park(kNoDeadline);
  }
  if (killed) return kEINTR;
  if (group.leader() != &t) TakeLeadership(t);
  return {};
}

// execve(2): the thread that execs becomes the leader, with the leader's id.
void TaskExec::TakeLeadership(Task& t) {
  ThreadGroup& group = t.thread_group();
  RefPtr<Task> old, dropped;
  RefPtr<Pid> mine;
  MutexLock lock(t.kernel().tree_mutex());
  // Its tracer does not hear of its end.
  dropped = TraceLink::UnlinkLocked(*group.leader_);
  MutexLock signal_lock(group.signal_mu_);
  old = std::move(group.leader_);
  group.leader_ = RefPtr<Task>(&t);
  {
    MutexLock2 both(t.mu_, old->mu_);
    mine = t.pid_;
    t.pid_ = group.pid_;
    old->pid_ = mine;
  }
  group.pid_->task = &t;
  mine->task = nullptr;
  t.tid_.store(group.pid_->nr(), std::memory_order_relaxed);
  t.root_tid_.store(group.pid_->root_nr(), std::memory_order_relaxed);
  t.start_time_ = old->start_time_;
  PidNamespace::ReleaseIfUnused(*mine);
}

void TaskExec::Install(Task& t, NewProgram& program) {
  ThreadGroup& group = t.thread_group();
  TaskExit::LeaveMemory(t);
  {
    RefPtr<MemoryManager> old = program.mm;
    MutexLock lock(t.mu_);
    std::swap(t.mm_, old);
    program.mm = std::move(old);
  }
  t.releases_futexes_.store(false, std::memory_order_seq_cst);
  TaskExit::ReleaseVforkParent(t);

  RefPtr<SignalActions> actions;
  {
    MutexLock lock(group.signal_mu_);
    actions = group.actions_;
  }
  actions = actions->Clone();
  actions->ResetHandlers();
  {
    MutexLock lock(group.signal_mu_);
    std::swap(group.actions_, actions);
  }
  t.signals_.alt_stack = {0, SS_DISABLE, 0, 0};
  group.timers().DeletePosixTimers();
  group.aio().Clear();
  group.exit_signal_.store(SIGCHLD, std::memory_order_relaxed);
  group.did_exec.store(true, std::memory_order_relaxed);
  t.SetComm(BaseName(program.image.filename));
  if (program.credentials.secure) t.personality &= ~static_cast<uint64_t>(PER_CLEAR_ON_SETID);
  if (program.credentials.secure) t.set_parent_death_signal(0);
  if (t.cred_->uid != program.credentials.cred->uid) t.SetAccount(t.kernel().Account(program.credentials.cred->uid));
  t.SetCredentials(program.credentials.cred);

  const uint64_t call = t.regs_.gp.orig_rax;
  t.regs_ = FirstRegisters(program.loaded);
  t.regs_.gp.orig_rax = call;  // for a tracer
  t.context_->ResetExtendedState();
  t.restart_block_ = {};
}

Result<void> TaskExec::Run(Task& t, ExecRequest request) {
  Result<NewProgram> loaded = [&] {
    Task::FsCall fs(t);
    return Load(t, fs, std::move(request));
  }();
  if (!loaded.ok()) return loaded.error();
  RefPtr<Pid> old_id = t.pid();
  TRY(Dethread(t));
  UnshareFdTable(t);
  Install(t, *loaded);
  {
    Task::FsCall fs(t);
    CloseFiles(fs, t.fd_table_->RemoveCloexec());
  }
  if (TraceStop::Traced(t)) {
    t.mm_->KeepCode();
    TraceStop::Event(t, PTRACE_EVENT_EXEC, *old_id);
  }
  return {};
}

Result<void> TaskExec::LoadFirst(Task& t, const VfsContext& ctx, ExecRequest request) {
  NewProgram program = TRY(Load(t, ctx, std::move(request)));
  t.mm_ = program.mm;
  t.cred_ = program.credentials.cred;
  t.regs_ = FirstRegisters(program.loaded);
  t.SetComm(BaseName(program.image.filename));
  return {};
}

}  // namespace moat
