#include "fs/overlay/overlay.h"

#include "fs/overlay/overlay_fs.h"
#include "fs/vfs/mount.h"
#include "fs/vfs/vfs.h"

namespace moat {

Result<RefPtr<FileSystem>> MakePrivateOverlay(RefPtr<FileSystem> lower, std::string options) {
  FileSystemType* tmpfs = vfs::FindFileSystemType("tmpfs");
  if (tmpfs == nullptr) return kENODEV;
  // On behalf of the sandbox itself: there is no task yet.
  RefPtr<UserNamespace> user_ns = UserNamespace::CreateRoot();
  RefPtr<const Credentials> cred = Credentials::CreateRoot(user_ns);
  RefPtr<MountNamespace> mounts = MountNamespace::Create(lower, "none", 0, user_ns);
  VfsPath root = mounts->root();
  VfsContext ctx{.cred = *cred, .mounts = *mounts, .root = root, .cwd = root, .umask = 0};
  RefPtr<FileSystem> upper = TRY(tmpfs->Mount(ctx, MountRequest{"overlay", std::move(options), 0}));
  return RefPtr<FileSystem>(TRY(OverlayFs::Create(ctx, std::move(upper), {std::move(lower)})));
}

}  // namespace moat
