// VfsPath: a place in the mount tree: a dentry seen through one mount (Linux's struct path).
#ifndef MOAT_FS_VFS_PATH_H_
#define MOAT_FS_VFS_PATH_H_

#include "platform/base/ref_ptr.h"

namespace moat {

class Dentry;
class Mount;

struct VfsPath {
  RefPtr<Mount> mount;
  RefPtr<Dentry> dentry;

  VfsPath();
  VfsPath(RefPtr<Mount> m, RefPtr<Dentry> d);
  VfsPath(const VfsPath&);
  VfsPath(VfsPath&&) noexcept;
  VfsPath& operator=(const VfsPath&);
  VfsPath& operator=(VfsPath&&) noexcept;
  ~VfsPath();
  explicit operator bool() const;
  bool operator==(const VfsPath& o) const;
};

}  // namespace moat

#endif  // MOAT_FS_VFS_PATH_H_
