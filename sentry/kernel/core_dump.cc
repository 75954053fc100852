#include "sentry/kernel/core_dump.h"

#include <fcntl.h>
#include <sys/wait.h>

#include <algorithm>

#include "fs/vfs/vfs.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/thread_group.h"

namespace moat {
namespace {

constexpr int kDumpableByUser = 1;  // SUID_DUMP_USER

CoreThread StateOf(Task& t) {
  CoreThread thread;
  if (!t.regs().complete) (void)t.context().Complete(t.regs());
  thread.tid = t.tid();
  thread.regs = t.regs().gp;
  if (Result<ExtendedState> state = t.context().GetExtendedState(); state.ok()) thread.extended = std::move(*state);
  {
    MutexLock lock(t.thread_group().signal_mutex());
    thread.pending = t.signals().pending.set().bits;
  }
  thread.blocked = t.signal_mask().bits;
  return thread;
}

// The file to write to: one that the process could have made itself, and that nothing else stands behind.
Result<RefPtr<File>> OpenCore(const VfsContext& ctx) {
  constexpr uint32_t kMode = 0600;
  RefPtr<File> file = TRY(vfs::Open(ctx, ctx.cwd, "core", {O_CREAT | O_RDWR | O_NOFOLLOW | O_NONBLOCK, kMode}));
  const Kstat attr = TRY(file->GetAttr());
  if (!S_ISREG(attr.mode) || attr.nlink != 1 || attr.uid != ctx.cred.fsuid) return kEPERM;
  AttrChange empty;
  empty.size = 0;
  TRY(file->inode()->SetAttr(ctx, empty));
  return file;
}

}  // namespace

bool CoreDump::Wanted(Task& t) {
  return t.thread_group().rlimits().Soft(RLIMIT_CORE) >= kPageSize && t.memory().dumpable() == kDumpableByUser;
}

void CoreDump::Join(Task& t) {
  if (&t == &dumper_) return;
  CoreThread state = StateOf(t);
  {
    MutexLock lock(mu_);
    if (done_) return;
    others_.push_back(std::move(state));
    waiting_.push_back(&t);
  }
  for (;;) {
    dumper_.parker().Unpark();
    t.Park(kNoDeadline);
    MutexLock lock(mu_);
    if (done_) return;
  }
}

void CoreDump::AwaitOthers() {
  // Threads that were on their way out before do not come here, and tell nobody that they are gone.
  constexpr Nanos kLookAgain = 2'000'000;
  for (;;) {
    {
      MutexLock lock(mu_);
      if (static_cast<int>(others_.size()) + 1 >= dumper_.thread_group().task_count()) return;
    }
    dumper_.Park(DeadlineAfter(kLookAgain));
  }
}

void CoreDump::Run(const SigInfo& info) {
  AwaitOthers();
  std::vector<CoreThread> threads = {StateOf(dumper_)};
  {
    MutexLock lock(mu_);
    std::move(others_.begin(), others_.end(), std::back_inserter(threads));
  }
  bool written = false;
  {
    Task::FsCall fs(dumper_);
    if (Result<RefPtr<File>> file = OpenCore(fs); file.ok()) {
      WriteCoreFile(dumper_, fs, **file, dumper_.thread_group().rlimits().Soft(RLIMIT_CORE), info, threads);
      // However little of it the limit let through: so it is on Linux.
      written = true;
    }
  }
  if (written) {
    // Before the others go: the last thread to leave brings the status along.
    MutexLock lock(dumper_.thread_group().signal_mu_);
    dumper_.thread_group().group_exit_status_ |= WCOREFLAG;
  }
  MutexLock lock(mu_);
  done_ = true;
  for (Task* t : waiting_) t->parker().Unpark();
}

}  // namespace moat
