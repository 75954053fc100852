// FsContext: root, working directory and umask of a task (shared by CLONE_FS; Linux's fs_struct).
#ifndef MOAT_SENTRY_KERNEL_FS_CONTEXT_H_
#define MOAT_SENTRY_KERNEL_FS_CONTEXT_H_

#include "fs/vfs/path.h"
#include "platform/base/mutex.h"
#include "platform/base/ref_ptr.h"

namespace moat {

class FsContext : public RefCounted {
 public:
  FsContext(VfsPath root, VfsPath cwd, uint32_t umask) : root_(root), cwd_(cwd), umask_(umask) {}
  RefPtr<FsContext> Clone() const;
  VfsPath root() const;
  VfsPath cwd() const;
  uint32_t umask() const;
  // All three at once.
  void Snapshot(VfsPath& root, VfsPath& cwd, uint32_t& umask) const;
  void set_root(VfsPath p);
  void set_cwd(VfsPath p);
  uint32_t exchange_umask(uint32_t mask);

 private:
  mutable Mutex mu_{LockRank::kFsContext};
  VfsPath root_ ABSL_GUARDED_BY(mu_);
  VfsPath cwd_ ABSL_GUARDED_BY(mu_);
  uint32_t umask_ ABSL_GUARDED_BY(mu_);
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_FS_CONTEXT_H_
