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
  // After kEAGAIN: the inode whose leases were in the way; null when it was something else. Once.
  RefPtr<Inode> TakeLeased() { return std::exchange(leased_, nullptr); }

 private:
  VfsContext ctx_;
  RefPtr<Inode> leased_;
};

// Waits until nobody who was asked to give up a lease of `inode` has time left for it. kERESTARTSYS.
Result<void> AwaitLeases(Task& t, Inode& inode);

// Runs `op` until no lease is in its way any more: what blocks in open(2) and truncate(2).
template <typename Op>
auto AfterLeases(Task& t, Task::FsCall& fs, Op op) -> decltype(op()) {
  for (;;) {
    auto result = op();
    if (result.ok() || result.error() != kEAGAIN) return result;
    RefPtr<Inode> leased = fs.TakeLeased();
    if (!leased) return result;
    Result<void> waited = AwaitLeases(t, *leased);
    if (!waited.ok()) return waited.error();
  }
}

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_FS_CALL_H_
