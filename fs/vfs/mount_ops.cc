#include "fs/vfs/mount_ops.h"

#include <sys/mount.h>

#include <bit>

namespace moat::vfs {
namespace {

constexpr uint64_t kMagic = 0xC0ED0000, kMagicMask = 0xFFFF0000;
constexpr uint64_t kPropagation = MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE;

Result<void> SameKind(const VfsPath& a, const VfsPath& b) {
  if (a.dentry->inode_ptr() == nullptr || b.dentry->inode_ptr() == nullptr) return kENOENT;
  return a.dentry->inode_ptr()->is_dir() == b.dentry->inode_ptr()->is_dir() ? Result<void>() : kENOTDIR;
}

Result<VfsPath> Source(const VfsContext& ctx, const MountArguments& a) {
  if (!a.has_source || a.source.empty()) return kEINVAL;
  return Resolve(ctx, ctx.cwd, a.source);
}

Result<void> BindMount(const VfsContext& ctx, const VfsPath& target, const MountArguments& a) {
  VfsPath source = TRY(Source(ctx, a));
  TRY(SameKind(source, target));
  TRY(ctx.mounts.Bind(target, source, (a.flags & MS_REC) != 0));
  return {};
}

Result<void> ChangePropagation(const VfsContext& ctx, const VfsPath& target, uint64_t flags) {
  // Exactly one kind, and nothing else but MS_REC and MS_SILENT.
  uint64_t type = flags & kPropagation;
  if ((flags & ~(kPropagation | MS_REC | MS_SILENT)) != 0 || std::popcount(type) != 1) return kEINVAL;
  return ctx.mounts.ChangePropagation(target, type, (flags & MS_REC) != 0);
}

}  // namespace

Result<void> CheckMayMount(const VfsContext& ctx) {
  return ctx.cred.HasCapabilityIn(CAP_SYS_ADMIN, ctx.mounts.owner()) ? Result<void>() : kEPERM;
}

Result<RefPtr<FileSystem>> MakeFileSystem(const VfsContext& ctx, std::string_view type, const MountRequest& request) {
  FileSystemType* t = FindFileSystemType(type);
  if (t == nullptr) return kENODEV;
  bool root_ns = ctx.cred.user_ns->parent() == nullptr;
  if (!root_ns && !t->mountable_in_user_ns()) return kEPERM;
  RefPtr<FileSystem> fs = TRY(t->Mount(ctx, request));
  if (!root_ns) fs->set_user_ns(ctx.cred.user_ns);
  return fs;
}

Result<void> Mount(const VfsContext& ctx, const VfsPath& target, const MountArguments& a) {
  TRY(CheckMayMount(ctx));
  MountArguments args = a;
  if ((args.flags & kMagicMask) == kMagic) args.flags &= ~kMagicMask;
  uint64_t flags = args.flags;
  if ((flags & MS_REMOUNT) != 0) return ctx.mounts.Remount(target, flags, (flags & MS_BIND) != 0, args.data);
  if ((flags & MS_BIND) != 0) return BindMount(ctx, target, args);
  if ((flags & kPropagation) != 0) return ChangePropagation(ctx, target, flags);
  if ((flags & MS_MOVE) != 0) {
    VfsPath source = TRY(Source(ctx, args));
    return ctx.mounts.Move(target, source);
  }
  if (!args.has_type) return kEINVAL;
  // What a user namespace mounts has no device nodes of its own.
  bool root_ns = ctx.cred.user_ns->parent() == nullptr;
  if (!root_ns) flags |= MS_NODEV;
  RefPtr<FileSystem> fs = TRY(MakeFileSystem(ctx, args.type, MountRequest{args.source, args.data, flags}));
  TRY(ctx.mounts.MountAt(target, std::move(fs), args.has_source ? args.source : "none", flags));
  return {};
}

Result<void> Umount(const VfsContext& ctx, const VfsPath& target, int flags) {
  // What is mounted on the place itself goes first: umount2(".") after pivot_root(".", ".").
  VfsPath top = target;
  bool covered = ctx.mounts.Descend(top);
  int own = (ctx.root.mount == top.mount) + (ctx.cwd.mount == top.mount) + (covered ? 0 : 1);
  return ctx.mounts.Unmount(top, flags, own);
}

Result<void> PivotRoot(const VfsContext& ctx, const VfsPath& new_root, const VfsPath& put_old) {
  if (!new_root.dentry->inode_ptr()->is_dir() || !put_old.dentry->inode_ptr()->is_dir()) return kENOTDIR;
  const bool on_root_mount = new_root.mount == ctx.root.mount || put_old.mount == ctx.root.mount;
  // A chroot is not a mount point; PivotRoot has other answers that go first.
  if (!on_root_mount && ctx.root.dentry != ctx.root.mount->root()) return kEINVAL;
  return ctx.mounts.PivotRoot(new_root, put_old, ctx.root.mount.get());
}

}  // namespace moat::vfs
