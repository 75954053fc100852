// Task::FsCall: the VfsContext of one call into fs/ on behalf of a task. Make it on the stack of the calling task's
// own carrier:  Task::FsCall fs(t);  vfs::Open(fs, t.DirFd(dirfd), path, ...);
// Valid for one call: the task must not change its credentials or mount namespace meanwhile.
#ifndef MOAT_SENTRY_KERNEL_FS_CALL_H_
#define MOAT_SENTRY_KERNEL_FS_CALL_H_

#include "fs/vfs/mount.h"
#include "sentry/kernel/task.h"

namespace moat {

class Task::FsCall {
 public:
  explicit FsCall(Task& t);
  // With other credentials (access(2) checks with the real ids). `cred` must outlive the call.
  FsCall(Task& t, const Credentials& cred);
  FsCall(const FsCall&) = delete;
  const VfsContext& ctx() const { return ctx_; }
  operator const VfsContext&() const { return ctx_; }  // NOLINT(google-explicit-constructor)

 private:
  VfsContext ctx_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_FS_CALL_H_
