#include "sentry/kernel/fs_call.h"

#include "sentry/kernel/thread_group.h"

namespace moat {

Task::FsCall::FsCall(Task& t) : FsCall(t, *t.cred_) {}

Task::FsCall::FsCall(Task& t, const Credentials& cred) : ctx_{cred, *t.mount_ns_, {}, {}} {
  t.fs_context_->Snapshot(ctx_.root, ctx_.cwd, ctx_.umask);
  ctx_.file_size_limit = t.thread_group().rlimits().Soft(RLIMIT_FSIZE);
  ctx_.pid = t.RootTgid();
  ctx_.tid = t.RootTid();
  ctx_.task = &t;
}

}  // namespace moat
