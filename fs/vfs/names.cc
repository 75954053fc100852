// Calls that make and remove names: mkdir, mknod, symlink, link, unlink, rmdir. See vfs.h.
#include <fcntl.h>
#include <sys/mount.h>

#include "fs/vfs/notify.h"
#include "fs/vfs/permissions.h"
#include "fs/vfs/special_file.h"
#include "fs/vfs/vfs.h"
#include "fs/vfs/walk.h"

namespace moat::vfs {
namespace {

bool IsDots(std::string_view name) { return name == "." || name == ".."; }

// filename_create(): the parent, then `make(parent inode)` under its lock. A new directory may end in a slash.
template <typename Make>
Result<VfsPath> MakeName(const VfsContext& ctx, const VfsPath& at, std::string_view path, bool directory,
                         uint32_t event, Make make) {
  ParentAndName p = TRY(ResolveParent(ctx, at, path));
  if (IsDots(p.name) || p.name == "/") return kEEXIST;
  Dentry& dir = *p.parent.dentry;
  Inode& parent = *dir.inode_ptr();
  RefPtr<Dentry> child;
  {
    MutexLock lock(dir.dir_mutex());
    child = TRY(dir.LookupChildLocked(ctx, p.name));
    if (child->inode_ptr() != nullptr) return kEEXIST;
    if (p.trailing_slash && !directory) return kENOENT;
    TRY(WantWrite(p.parent));
    if (dir.IsDetached()) return kENOENT;
    TRY(MayCreate(ctx, parent));
    child->Instantiate(TRY(make(parent, std::string_view(p.name))));
  }
  if (notify::AnyWatch()) notify::EmitEvent(parent, event, 0, p.name);
  return VfsPath(std::move(p.parent.mount), std::move(child));
}

// unlink and rmdir, once the last component is known to be a name.
Result<void> RemoveName(const VfsContext& ctx, const ParentAndName& p, bool directory) {
  Dentry& dir = *p.parent.dentry;
  Inode& parent = *dir.inode_ptr();
  RefPtr<Dentry> child;
  {
    MutexLock lock(dir.dir_mutex());
    child = TRY(dir.LookupChildLocked(ctx, p.name));
    Inode* victim = child->inode_ptr();
    if (victim == nullptr) return kENOENT;
    if (p.trailing_slash && !directory) return victim->is_dir() ? kEISDIR : kENOTDIR;
    TRY(WantWrite(p.parent));
    TRY(MayDelete(ctx, parent, *victim, directory));
    if (child->mount_count.load() != 0) return kEBUSY;
    TRY(directory ? parent.Rmdir(ctx, p.name, *victim) : parent.Unlink(ctx, p.name, *victim));
    child->MarkUnlinked();
  }
  if (notify::AnyWatch()) {
    Inode& victim = *child->inode_ptr();
    if (!victim.is_dir()) notify::EmitEvent(victim, IN_ATTRIB);
    notify::EmitEvent(parent, IN_DELETE | (victim.is_dir() ? IN_ISDIR : 0), 0, p.name);
  }
  return {};
}

}  // namespace

Result<void> Mkdir(const VfsContext& ctx, const VfsPath& at, std::string_view path, uint32_t mode) {
  TRY(MakeName(ctx, at, path, true, IN_CREATE | IN_ISDIR, [&](Inode& dir, std::string_view name) {
    return [&]() -> Result<RefPtr<Inode>> {
      uint32_t m = TRY(ModeForCreate(ctx, dir, S_IFDIR | (mode & 01777)));
      return dir.Mkdir(ctx, name, m & 07777);
    }();
  }));
  return {};
}

Result<void> Mknod(const VfsContext& ctx, const VfsPath& at, std::string_view path, uint32_t mode, DeviceId dev) {
  uint32_t type = mode & S_IFMT;
  if (type == 0) type = S_IFREG;
  if (type == S_IFDIR) return kEPERM;
  if (type != S_IFREG && type != S_IFCHR && type != S_IFBLK && type != S_IFIFO && type != S_IFSOCK) return kEINVAL;
  bool device = type == S_IFCHR || type == S_IFBLK;
  // Overlay whiteouts (0,0) are for everybody.
  bool whiteout = type == S_IFCHR && dev == DeviceId{0, 0};
  TRY(MakeName(ctx, at, path, false, IN_CREATE, [&](Inode& dir, std::string_view name) {
    return [&]() -> Result<RefPtr<Inode>> {
      if (device && !whiteout) {
        bool capable = ctx.cred.HasCapability(CAP_MKNOD) && ctx.cred.user_ns->parent() == nullptr;
        if (!capable) return kEPERM;
      }
      uint32_t m = TRY(ModeForCreate(ctx, dir, type | (mode & 07777))) & 07777;
      return type == S_IFREG ? dir.Create(ctx, name, m) : dir.Mknod(ctx, name, type | m, dev);
    }();
  }));
  return {};
}

Result<VfsPath> MknodSocket(const VfsContext& ctx, const VfsPath& at, std::string_view path, uint32_t mode) {
  return MakeName(ctx, at, path, false, IN_CREATE, [&](Inode& dir, std::string_view name) {
    return [&]() -> Result<RefPtr<Inode>> {
      uint32_t m = TRY(ModeForCreate(ctx, dir, S_IFSOCK | (mode & 07777))) & 07777;
      return dir.Mknod(ctx, name, S_IFSOCK | m, DeviceId{});
    }();
  });
}

Result<void> Symlink(const VfsContext& ctx, std::string_view target, const VfsPath& at, std::string_view path) {
  if (target.empty()) return kENOENT;
  TRY(MakeName(ctx, at, path, false, IN_CREATE,
               [&](Inode& dir, std::string_view name) { return dir.Symlink(ctx, name, target); }));
  return {};
}

Result<void> Link(const VfsContext& ctx, const VfsPath& old_path, const VfsPath& new_at, std::string_view new_path) {
  RefPtr<Inode> inode = old_path.dentry->inode();
  if (!inode || !old_path.dentry->MayBeLinked()) return kENOENT;
  TRY(MakeName(ctx, new_at, new_path, false, IN_CREATE, [&](Inode& dir, std::string_view name) {
    return [&]() -> Result<RefPtr<Inode>> {
      // Hard links stay within a mount, although the file system may be the same.
      if (&dir.fs() != &inode->fs()) return kEXDEV;
      if (inode->is_dir()) return kEPERM;
      TRY(MayLink(ctx, *inode));
      TRY(dir.Link(ctx, name, *inode));
      return inode;
    }();
  }));
  if (notify::AnyWatch()) notify::EmitEvent(*inode, IN_ATTRIB);
  return {};
}

Result<void> Unlink(const VfsContext& ctx, const VfsPath& at, std::string_view path) {
  const ParentAndName p = TRY(ResolveParent(ctx, at, path));
  if (IsDots(p.name) || p.name == "/") return kEISDIR;
  return RemoveName(ctx, p, false);
}

Result<void> Rmdir(const VfsContext& ctx, const VfsPath& at, std::string_view path) {
  const ParentAndName p = TRY(ResolveParent(ctx, at, path));
  if (p.name == "..") return kENOTEMPTY;
  if (p.name == ".") return kEINVAL;
  if (p.name == "/") return kEBUSY;
  return RemoveName(ctx, p, true);
}

}  // namespace moat::vfs
