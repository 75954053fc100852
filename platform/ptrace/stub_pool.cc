#include "platform/ptrace/stub_pool.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>

#include "platform/base/log.h"
#include "platform/stub/liveness.h"
#include "platform/stub/zygote.h"

namespace moat::ptrace_platform {
namespace {

constexpr Nanos kLookPeriod = 500'000'000;

}  // namespace

Result<std::unique_ptr<StubPool>> StubPool::Create(const sock_fprog* filter) {
  std::unique_ptr<StubPool> pool(new StubPool);
  // Stops of stubs are waited for; a signal for each would only cost.
  struct sigaction action = {};
  action.sa_handler = SIG_DFL;
  action.sa_flags = SA_NOCLDSTOP;
  sigaction(SIGCHLD, &action, nullptr);
  const size_t size = size_t{kMaxStubs} * 4096;
  pool->commands_fd_ = ScopedFd(memfd_create("moat-commands", MFD_CLOEXEC));
  if (!pool->commands_fd_.valid() || ftruncate(pool->commands_fd_.get(), static_cast<off_t>(size)) != 0) {
    return HostErrno();
  }
  void* p = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, pool->commands_fd_.get(), 0);
  if (p == MAP_FAILED) return HostErrno();
  pool->commands_ = static_cast<stub::Command*>(p);
  pool->zygote_pid_ = TRY(stub::StartZygote(filter));
  StubPool* raw = pool.get();
  pool->thread_ = TRY(HostThread::Start("stub-pool", [raw] { raw->Run(); }));
  // The first stub proves that all of it works here.
  ReadyStub first = TRY(pool->Take());
  MutexLock lock(pool->mu_);
  pool->in_use_.erase(first.pid);
  pool->ready_.push_back(first);
  return pool;
}

StubPool::~StubPool() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
  }
  parker_.Unpark();
  if (thread_.joinable()) thread_.Join();
  // While the zygote lives, its stubs need nobody to reap them.
  {
    MutexLock lock(mu_);
    for (const ReadyStub& s : ready_) syscall(SYS_tgkill, s.pid, s.pid, SIGKILL);
    ready_.clear();
  }
  if (zygote_pid_ != 0) {
    kill(zygote_pid_, SIGKILL);  // its stubs follow it
    waitpid(zygote_pid_, nullptr, __WALL);
  }
  if (commands_ != nullptr) munmap(commands_, size_t{kMaxStubs} * 4096);
}

stub::Command* StubPool::CommandsAt(uint32_t page) const {
  // In bytes: a page is no multiple of a command.
  return reinterpret_cast<stub::Command*>(reinterpret_cast<std::byte*>(commands_) + size_t{page} * 4096);
}

Result<ReadyStub> StubPool::Make() {
  uint32_t page;
  {
    MutexLock lock(mu_);
    if (!free_pages_.empty()) {
      page = free_pages_.back();
      free_pages_.pop_back();
    } else if (next_page_ < kMaxStubs) {
      page = next_page_++;
    } else {
      return kEAGAIN;
    }
  }
  // These reach the child as they are: offset and descriptor of its command page, and its parent.
  user_regs_struct regs;
  TRY(zygote_.GetRegisters(regs));
  regs.r12 = uint64_t{page} * 4096;
  regs.r13 = static_cast<uint64_t>(commands_fd_.get());
  regs.r14 = static_cast<uint64_t>(zygote_pid_);
  TRY(zygote_.SetRegisters(regs));
  Result<int64_t> pid =
      zygote_.Call(stub::TrampolineEntries().clone_process, SYS_clone, {CLONE_FILES | SIGCHLD, 0, 0, 0, 0, 0});
  if (pid.ok() && *pid > 0) return ReadyStub{static_cast<pid_t>(*pid), page, CommandsAt(page)};
  Return(page);
  return pid.ok() ? static_cast<Errno>(-*pid) : pid.error();
}

void StubPool::Run() {
  zygote_ = Tracee(zygote_pid_, zygote_pid_);
  Result<void> attached = zygote_.Attach();
  for (;;) {
    bool full;
    {
      MutexLock lock(mu_);
      if (!attached.ok()) failure_ = attached.error();
      if (stopping_) break;
      full = (ready_.size() >= kAhead && waiters_.empty()) || failure_ == kESRCH;
    }
    if (full) {
      if (!parker_.Park(DeadlineAfter(kLookPeriod))) LookForDeadStubs();
      continue;
    }
    Result<ReadyStub> made = Make();
    std::vector<Parker*> wake;
    {
      MutexLock lock(mu_);
      if (made.ok()) {
        ready_.push_back(*made);
        failure_ = Errno::kOK;
      } else {
        failure_ = made.error();
      }
      wake.swap(waiters_);
      for (Parker* p : wake) p->Unpark();
    }
    // The host is out of processes: ask again when somebody wants one.
    if (!made.ok()) parker_.Park();
  }
}

void StubPool::LookForDeadStubs() {
  std::vector<pid_t> pids;
  {
    MutexLock lock(mu_);
    pids.assign(in_use_.begin(), in_use_.end());
    for (const ReadyStub& s : ready_) pids.push_back(s.pid);
  }
  std::erase_if(pids, [](pid_t pid) { return !stub::IsDead(pid); });
  for (pid_t pid : pids) {
    if (std::find(suspects_.begin(), suspects_.end(), pid) == suspects_.end()) continue;
    MOAT_LOG(kError, "stub {} was killed from outside: the sandbox ends", pid);
    syscall(SYS_tgkill, zygote_pid_, zygote_pid_, SIGKILL);
  }
  suspects_ = std::move(pids);
}

void StubPool::Forget(pid_t stub) {
  MutexLock lock(mu_);
  in_use_.erase(stub);
}

Result<ReadyStub> StubPool::Take() {
  Parker self;
  for (bool first = true;; first = false) {
    {
      MutexLock lock(mu_);
      if (!ready_.empty()) {
        ReadyStub stub = ready_.back();
        ready_.pop_back();
        in_use_.insert(stub.pid);
        if (ready_.size() < kAhead / 2) parker_.Unpark();
        return stub;
      }
      if (!first && failure_ != Errno::kOK) return failure_;
      if (failure_ == kESRCH) return failure_;
      waiters_.push_back(&self);
    }
    parker_.Unpark();
    self.Park();
    MutexLock lock(mu_);
    waiters_.erase(std::remove(waiters_.begin(), waiters_.end(), &self), waiters_.end());
  }
}

void StubPool::Return(uint32_t page) {
  MutexLock lock(mu_);
  free_pages_.push_back(page);
}

}  // namespace moat::ptrace_platform
