#include "fs/vfs/path.h"

#include "fs/vfs/dentry.h"
#include "fs/vfs/mount.h"

namespace moat {

VfsPath::VfsPath() = default;
VfsPath::VfsPath(RefPtr<Mount> m, RefPtr<Dentry> d) : mount(std::move(m)), dentry(std::move(d)) {}
VfsPath::VfsPath(const VfsPath&) = default;
VfsPath::VfsPath(VfsPath&&) noexcept = default;
VfsPath& VfsPath::operator=(const VfsPath&) = default;
VfsPath& VfsPath::operator=(VfsPath&& o) noexcept {
  // Dentry before mount: the mount keeps the dentry's file system alive.
  dentry = std::move(o.dentry);
  mount = std::move(o.mount);
  return *this;
}
VfsPath::~VfsPath() = default;
VfsPath::operator bool() const { return static_cast<bool>(dentry); }
bool VfsPath::operator==(const VfsPath& o) const { return mount == o.mount && dentry == o.dentry; }

}  // namespace moat
