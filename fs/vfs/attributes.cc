// access, stat, attribute changes, readlink, extended attributes. See vfs.h.
#include <linux/xattr.h>
#include <sys/mount.h>

#include <cstring>

#include "fs/vfs/file_locks.h"
#include "fs/vfs/filesystem.h"
#include "fs/vfs/notify.h"
#include "fs/vfs/permissions.h"
#include "fs/vfs/posix_acl.h"
#include "fs/vfs/special_file.h"
#include "fs/vfs/vfs.h"

namespace moat::vfs {
namespace {

Result<Inode*> InodeOf(const VfsPath& path) {
  Inode* inode = path.dentry->inode_ptr();
  if (inode == nullptr) return kENOENT;
  return inode;
}

bool Starts(std::string_view name, std::string_view prefix) { return name.starts_with(prefix); }

// xattr_permission(): what the namespace of the name asks of the caller.
Result<void> XattrPermission(const VfsContext& ctx, const VfsPath& path, Inode& inode, std::string_view name,
                             bool write) {
  if (write) TRY(WantWrite(path));
  if (Starts(name, XATTR_SECURITY_PREFIX)) {
    if (!write) return {};
    Inode::Access a = TRY(inode.GetAccess());
    int cap = name == XATTR_NAME_CAPS ? CAP_SETFCAP : CAP_SYS_ADMIN;
    return CapableOver(ctx.cred, a, cap) ? Result<void>() : kEPERM;
  }
  if (Starts(name, XATTR_SYSTEM_PREFIX)) {
    if (!write) return {};
    return OwnerOrCapable(ctx.cred, TRY(inode.GetAccess())) ? Result<void>() : kEPERM;
  }
  if (Starts(name, XATTR_TRUSTED_PREFIX)) {
    bool capable = ctx.cred.HasCapability(CAP_SYS_ADMIN) && ctx.cred.user_ns->parent() == nullptr;
    if (capable) return {};
    return write ? kEPERM : kENODATA;
  }
  if (Starts(name, XATTR_USER_PREFIX)) {
    if (inode.type() != S_IFREG && !inode.is_dir()) return write ? kEPERM : kENODATA;
    if (inode.is_dir() && write) {
      Inode::Access a = TRY(inode.GetAccess());
      if ((a.mode & S_ISVTX) != 0 && !OwnerOrCapable(ctx.cred, a)) return kEPERM;
    }
    return inode.CheckPermission(ctx, write ? kMayWrite : kMayRead);
  }
  return kEOPNOTSUPP;
}

Result<void> CheckXattrName(std::string_view name) {
  if (name.empty() || name.size() > XATTR_NAME_MAX) return kERANGE;
  for (std::string_view prefix : {XATTR_USER_PREFIX, XATTR_TRUSTED_PREFIX, XATTR_SECURITY_PREFIX}) {
    if (name == prefix) return kEINVAL;
  }
  return {};
}

// struct vfs_cap_data: revision 2 or 3 with its own length (cap_convert_nscap).
bool IsFileCapability(std::string_view value) {
  if (value.size() < sizeof(uint32_t)) return false;
  uint32_t magic;
  memcpy(&magic, value.data(), sizeof magic);
  switch (magic & VFS_CAP_REVISION_MASK) {
    case VFS_CAP_REVISION_2:
      return value.size() == XATTR_CAPS_SZ_2;
    case VFS_CAP_REVISION_3:
      return value.size() == XATTR_CAPS_SZ_3;
    default:
      return false;
  }
}

}  // namespace

Result<void> BreakLeases(const VfsContext& ctx, Inode& inode, bool for_write) {
  FileLockList* locks = inode.locks_if_any();
  if (locks == nullptr) return {};
  Result<void> broken = locks->BreakLeases(for_write);
  if (!broken.ok() && ctx.leased != nullptr) *ctx.leased = RefPtr<Inode>(&inode);
  return broken;
}

Result<void> Access(const VfsContext& ctx, const VfsPath& path, int mask) {
  Inode* inode = TRY(InodeOf(path));
  if (mask == 0) return {};
  if ((mask & kMayExec) != 0 && inode->type() == S_IFREG && (path.mount->flags() & MS_NOEXEC) != 0) return kEACCES;
  TRY(inode->CheckPermission(ctx, mask));
  // Special files on a read-only mount can be written to.
  bool on_disk = inode->type() == S_IFREG || inode->is_dir() || inode->is_symlink();
  if ((mask & kMayWrite) != 0 && on_disk) TRY(WantWrite(path));
  return {};
}

Result<Kstat> Stat(const VfsContext&, const VfsPath& path) {
  Inode* inode = TRY(InodeOf(path));
  Kstat st = TRY(inode->GetAttr());
  st.mount_id = path.mount->id();
  st.mount_root = path.dentry == path.mount->root();
  return st;
}

Result<void> SetAttr(const VfsContext& ctx, const VfsPath& path, AttrChange change) {
  Inode* inode = TRY(InodeOf(path));
  TRY(WantWrite(path));
  if (change.size) {
    if (inode->is_dir()) return kEISDIR;
    if (inode->type() != S_IFREG) return kEINVAL;
    if (*change.size > ctx.file_size_limit) return kEFBIG;
    TRY(BreakLeases(ctx, *inode, true));
    TRY(RemovePrivileges(ctx, *inode));
  }
  TRY(PrepareSetAttr(ctx, *inode, change));
  TRY(inode->SetAttr(ctx, change));
  if (notify::AnyWatch()) {
    bool attrib =
        change.mode || change.uid || change.gid || change.atime || change.mtime || change.atime_now || change.mtime_now;
    if (change.size) notify::EmitOnPath(path, IN_MODIFY);
    if (attrib) notify::EmitOnPath(path, IN_ATTRIB);
  }
  return {};
}

Result<std::string> Readlink(const VfsContext& ctx, const VfsPath& path) {
  Inode* inode = TRY(InodeOf(path));
  return inode->Readlink(ctx);
}

namespace {

// set_posix_acl(); null removes.
Result<void> SetAcl(const VfsContext& ctx, Inode& inode, AclKind kind, RefPtr<const PosixAcl> acl) {
  if (inode.is_symlink()) return kEOPNOTSUPP;
  if (kind == AclKind::kDefault && !inode.is_dir()) return acl ? Result<void>(kEACCES) : Result<void>();
  if (!OwnerOrCapable(ctx.cred, TRY(inode.GetAccess()))) return kEPERM;
  if (acl) TRY(acl->Validate(inode.fs().user_ns()));
  return inode.SetAcl(ctx, kind, std::move(acl));
}

}  // namespace

Result<std::string> GetXattr(const VfsContext& ctx, const VfsPath& path, std::string_view name) {
  Inode* inode = TRY(InodeOf(path));
  TRY(CheckXattrName(name));
  if (std::optional<AclKind> kind = AclKindOf(name)) {
    if (inode->is_symlink()) return kEOPNOTSUPP;
    RefPtr<const PosixAcl> acl = TRY(inode->GetAcl(*kind));
    return acl ? Result<std::string>(acl->ToXattr(*ctx.cred.user_ns)) : Result<std::string>(kENODATA);
  }
  TRY(XattrPermission(ctx, path, *inode, name, false));
  return inode->GetXattr(ctx, name);
}

Result<void> SetXattr(const VfsContext& ctx, const VfsPath& path, std::string_view name, std::string_view value,
                      int flags) {
  if ((flags & ~(XATTR_CREATE | XATTR_REPLACE)) != 0) return kEINVAL;
  Inode* inode = TRY(InodeOf(path));
  TRY(CheckXattrName(name));
  if (value.size() > XATTR_SIZE_MAX) return kE2BIG;
  if (std::optional<AclKind> kind = AclKindOf(name)) {
    TRY(WantWrite(path));
    TRY(SetAcl(ctx, *inode, *kind, TRY(PosixAcl::FromXattr(*ctx.cred.user_ns, value))));
    if (notify::AnyWatch()) notify::EmitOnPath(path, IN_ATTRIB);
    return {};
  }
  TRY(XattrPermission(ctx, path, *inode, name, true));
  if (name == XATTR_NAME_CAPS && !IsFileCapability(value)) return kEINVAL;
  TRY(inode->SetXattr(ctx, name, value, flags));
  if (notify::AnyWatch()) notify::EmitOnPath(path, IN_ATTRIB);
  return {};
}

Result<void> RemoveXattr(const VfsContext& ctx, const VfsPath& path, std::string_view name) {
  Inode* inode = TRY(InodeOf(path));
  TRY(CheckXattrName(name));
  if (std::optional<AclKind> kind = AclKindOf(name)) {
    TRY(WantWrite(path));
    TRY(SetAcl(ctx, *inode, *kind, nullptr));
  } else {
    TRY(XattrPermission(ctx, path, *inode, name, true));
    TRY(inode->RemoveXattr(ctx, name));
  }
  if (notify::AnyWatch()) notify::EmitOnPath(path, IN_ATTRIB);
  return {};
}

Result<std::vector<std::string>> ListXattr(const VfsContext& ctx, const VfsPath& path) {
  Inode* inode = TRY(InodeOf(path));
  std::vector<std::string> names = TRY(inode->ListXattr(ctx));
  bool trusted = ctx.cred.HasCapability(CAP_SYS_ADMIN) && ctx.cred.user_ns->parent() == nullptr;
  if (!trusted) std::erase_if(names, [](const std::string& n) { return Starts(n, XATTR_TRUSTED_PREFIX); });
  return names;
}

}  // namespace moat::vfs
