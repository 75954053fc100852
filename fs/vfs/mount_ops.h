// The mount system calls on resolved places: permissions and the many meanings of mount(2)'s flags.
// Source: mount(2), umount2(2), pivot_root(2), mount_setattr(2), move_mount(2).
#ifndef MOAT_FS_VFS_MOUNT_OPS_H_
#define MOAT_FS_VFS_MOUNT_OPS_H_

#include <string>

#include "fs/vfs/vfs.h"

namespace moat {

struct MountArguments {
  std::string source, type, data;
  bool has_source = false, has_type = false;
  uint64_t flags = 0;  // MS_* as the guest gave them
};

namespace vfs {

// CAP_SYS_ADMIN in the user namespace that owns the caller's mount namespace; kEPERM.
Result<void> CheckMayMount(const VfsContext& ctx);

// mount(2): a new mount, a bind, a move, a remount or a change of propagation, as the flags say.
Result<void> Mount(const VfsContext& ctx, const VfsPath& target, const MountArguments& a);
Result<void> Umount(const VfsContext& ctx, const VfsPath& target, int flags);
// kEINVAL, kEBUSY, kENOTDIR. Moving the processes' root directories is the caller's.
Result<void> PivotRoot(const VfsContext& ctx, const VfsPath& new_root, const VfsPath& put_old);

// A new instance of a type by name. kENODEV; kEPERM in a user namespace that may not mount it.
Result<RefPtr<FileSystem>> MakeFileSystem(const VfsContext& ctx, std::string_view type, const MountRequest& request);

}  // namespace vfs
}  // namespace moat

#endif  // MOAT_FS_VFS_MOUNT_OPS_H_
