// Files that stand for a namespace: what /proc/<pid>/ns/* lead to and setns(2) takes. Source: namespaces(7),
// ioctl_ns(2).
#ifndef MOAT_SENTRY_KERNEL_NAMESPACE_FILE_H_
#define MOAT_SENTRY_KERNEL_NAMESPACE_FILE_H_

#include "fs/vfs/file.h"

namespace moat {

class Task;

class NamespaceFile final : public File {
 public:
  NamespaceFile(VfsPath path, OpenFlags flags, int kind, RefPtr<RefCounted> ns);
  // Null when `f` is another kind of file.
  static NamespaceFile* Cast(File& f) { return dynamic_cast<NamespaceFile*>(&f); }
  int kind() const { return kind_; }  // CLONE_NEWUSER, CLONE_NEWPID, ...
  // A UserNamespace, PidNamespace, MountNamespace, UtsNamespace, IpcNamespace, NetNamespace or CgroupNamespace.
  const RefPtr<RefCounted>& ns() const { return ns_; }
  Result<int64_t> Ioctl(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg) override;

 private:
  const int kind_;
  const RefPtr<RefCounted> ns_;
};

// Where /proc/<pid>/ns/<name> leads: for FollowMagicLink. `kind` is a CLONE_NEW* bit.
VfsPath NamespacePath(int kind, RefPtr<RefCounted> ns, uint64_t id);
// "uts:[4026531838]", what readlink(2) of the link shows.
std::string NamespaceLinkText(int kind, uint64_t id);

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_NAMESPACE_FILE_H_
