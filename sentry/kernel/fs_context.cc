#include "sentry/kernel/fs_context.h"

#include "fs/vfs/dentry.h"
#include "fs/vfs/mount.h"

namespace moat {

RefPtr<FsContext> FsContext::Clone() const {
  MutexLock lock(mu_);
  return MakeRef<FsContext>(root_, cwd_, umask_);
}

VfsPath FsContext::root() const {
  MutexLock lock(mu_);
  return root_;
}

VfsPath FsContext::cwd() const {
  MutexLock lock(mu_);
  return cwd_;
}

uint32_t FsContext::umask() const {
  MutexLock lock(mu_);
  return umask_;
}

// The old path is dropped after the lock: its last reference may reach into the file system.
void FsContext::set_root(VfsPath p) {
  MutexLock lock(mu_);
  std::swap(root_, p);
}

void FsContext::set_cwd(VfsPath p) {
  MutexLock lock(mu_);
  std::swap(cwd_, p);
}

uint32_t FsContext::exchange_umask(uint32_t mask) {
  MutexLock lock(mu_);
  return std::exchange(umask_, mask & 0777);
}

void FsContext::Snapshot(VfsPath& root, VfsPath& cwd, uint32_t& umask) const {
  MutexLock lock(mu_);
  root = root_;
  cwd = cwd_;
  umask = umask_;
}

}  // namespace moat
