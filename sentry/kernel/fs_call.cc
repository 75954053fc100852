#include "sentry/kernel/fs_call.h"

#include <sys/epoll.h>

#include "fs/vfs/file_locks.h"
#include "sentry/kernel/blocking.h"
#include "sentry/kernel/thread_group.h"

namespace moat {

Task::FsCall::FsCall(Task& t) : FsCall(t, *t.cred_) {}

Task::FsCall::FsCall(Task& t, const Credentials& cred) : ctx_{cred, *t.mount_ns_, {}, {}} {
  t.fs_context_->Snapshot(ctx_.root, ctx_.cwd, ctx_.umask);
  ctx_.file_size_limit = t.thread_group().rlimits().Soft(RLIMIT_FSIZE);
  ctx_.pid = t.RootTgid();
  ctx_.tid = t.RootTid();
  ctx_.task = &t;
  ctx_.leased = &leased_;
}

Result<void> AwaitLeases(Task& t, Inode& inode) {
  FileLockList& locks = inode.locks();
  Deadline deadline;
  (void)locks.BreakPending(&deadline);
  Result<void> waited = BlockingOp(t, locks.wait_queue(), EPOLLIN, deadline, [&]() -> Result<void> {
    Deadline next;
    return locks.BreakPending(&next) ? Result<void>(kEAGAIN) : Result<void>();
  });
  return !waited.ok() && waited.error() == kETIMEDOUT ? Result<void>() : waited;
}

}  // namespace moat
