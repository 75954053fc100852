#include "fs/vfs/permissions.h"

#include "fs/vfs/filesystem.h"
#include "fs/vfs/posix_acl.h"

namespace moat {
namespace {

bool MappedIn(const Credentials& cred, const Inode::Access& inode) {
  return cred.user_ns->HasMapping(inode.uid, inode.gid);
}

bool Executable(uint32_t mode) { return (mode & (S_IXUSR | S_IXGRP | S_IXOTH)) != 0; }

// should_remove_suid(): which bits a content or owner change takes away.
uint32_t PrivilegeBits(uint32_t mode) {
  uint32_t bits = mode & S_ISUID;
  if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP)) bits |= S_ISGID;
  return bits;
}

}  // namespace

bool CapableOver(const Credentials& cred, const Inode::Access& inode, int cap) {
  return cred.HasCapability(cap) && MappedIn(cred, inode);
}

bool OwnerOrCapable(const Credentials& cred, const Inode::Access& inode) {
  return cred.fsuid == inode.uid || CapableOver(cred, inode, CAP_FOWNER);
}

Result<void> GenericPermission(const Credentials& cred, const Inode::Access& a, int mask, const PosixAcl* acl) {
  uint32_t mode = a.mode;
  if (cred.fsuid == a.uid) {
    mode >>= 6;
  } else if (acl != nullptr && (mode & S_IRWXG) != 0) {
    // With an empty mask the bits for others are as good.
    mode = acl->Check(cred, a.gid, mask).ok() ? 7 : 0;
  } else if (((mode >> 3) & 7) != (mode & 7) && cred.InGroup(a.gid)) {
    mode >>= 3;
  }
  mask &= 7;
  if ((mask & ~mode & 7) == 0) return {};
  if (S_ISDIR(a.mode)) {
    if ((mask & kMayWrite) == 0 && CapableOver(cred, a, CAP_DAC_READ_SEARCH)) return {};
    return CapableOver(cred, a, CAP_DAC_OVERRIDE) ? Result<void>() : kEACCES;
  }
  if (mask == kMayRead && CapableOver(cred, a, CAP_DAC_READ_SEARCH)) return {};
  // Execution needs an execute bit for somebody, even for root.
  if (((mask & kMayExec) == 0 || Executable(a.mode)) && CapableOver(cred, a, CAP_DAC_OVERRIDE)) return {};
  return kEACCES;
}

Result<void> MayCreate(const VfsContext& ctx, Inode& dir) {
  TRY(dir.CheckPermission(ctx, kMayWrite | kMayExec));
  // A new inode must have ids that the namespace which mounted the file system can name (fsuidgid_has_mapping).
  UserNamespace* ns = dir.fs().user_ns();
  if (ns != nullptr && !ns->HasMapping(ctx.cred.fsuid, ctx.cred.fsgid)) return kEOVERFLOW;
  return {};
}

Result<void> MayDelete(const VfsContext& ctx, Inode& dir, Inode& victim, bool is_dir) {
  TRY(dir.CheckPermission(ctx, kMayWrite | kMayExec));
  Inode::Access d = TRY(dir.GetAccess());
  if ((d.mode & S_ISVTX) != 0 && ctx.cred.fsuid != d.uid) {
    Inode::Access v = TRY(victim.GetAccess());
    if (ctx.cred.fsuid != v.uid && !CapableOver(ctx.cred, v, CAP_FOWNER)) return kEPERM;
  }
  if (is_dir) return victim.is_dir() ? Result<void>() : kENOTDIR;
  return victim.is_dir() ? kEISDIR : Result<void>();
}

Result<void> MayFollowSymlink(const VfsContext& ctx, Inode& dir, Inode& link) {
  if (ProtectedNames::symlinks.load(std::memory_order_relaxed) == 0) return {};
  Inode::Access d = TRY(dir.GetAccess());
  if ((d.mode & (S_ISVTX | S_IWOTH)) != (S_ISVTX | S_IWOTH)) return {};
  Inode::Access l = TRY(link.GetAccess());
  if (l.uid == ctx.cred.fsuid || l.uid == d.uid) return {};
  return kEACCES;
}

Result<void> MayLink(const VfsContext& ctx, Inode& source) {
  Inode::Access a = TRY(source.GetAccess());
  if (ProtectedNames::hardlinks.load(std::memory_order_relaxed) == 0 || OwnerOrCapable(ctx.cred, a)) return {};
  bool safe = source.type() == S_IFREG && (a.mode & S_ISUID) == 0 &&
              (a.mode & (S_ISGID | S_IXGRP)) != (S_ISGID | S_IXGRP) &&
              source.CheckPermission(ctx, kMayRead | kMayWrite).ok();
  return safe ? Result<void>() : kEPERM;
}

Result<void> MayOpenExistingInSticky(const VfsContext& ctx, Inode& dir, Inode& inode) {
  int level = inode.type() == S_IFIFO   ? ProtectedNames::fifos.load(std::memory_order_relaxed)
              : inode.type() == S_IFREG ? ProtectedNames::regular.load(std::memory_order_relaxed)
                                        : 0;
  if (level == 0) return {};
  Inode::Access d = TRY(dir.GetAccess());
  if ((d.mode & S_ISVTX) == 0) return {};
  Inode::Access a = TRY(inode.GetAccess());
  if (a.uid == d.uid || a.uid == ctx.cred.fsuid) return {};
  if ((d.mode & S_IWOTH) != 0 || (level >= 2 && (d.mode & S_IWGRP) != 0)) return kEACCES;
  return {};
}

Result<void> PrepareSetAttr(const VfsContext& ctx, Inode& inode, AttrChange& c) {
  Inode::Access a = TRY(inode.GetAccess());
  const Credentials& cred = ctx.cred;
  if (c.uid) {
    bool same = cred.fsuid == a.uid && *c.uid == a.uid;
    if (!same && !CapableOver(cred, a, CAP_CHOWN)) return kEPERM;
  }
  if (c.gid) {
    bool own = cred.fsuid == a.uid && (*c.gid == a.gid || cred.InGroup(*c.gid));
    if (!own && !CapableOver(cred, a, CAP_CHOWN)) return kEPERM;
  }
  if (c.mode) {
    if (!OwnerOrCapable(cred, a)) return kEPERM;
    Kgid gid = c.gid.value_or(a.gid);
    if (!cred.InGroup(gid) && !CapableOver(cred, a, CAP_FSETID)) *c.mode &= ~uint32_t{S_ISGID};
  }
  bool now = c.atime_now || c.mtime_now;
  if (c.atime || c.mtime || now) {
    if (!OwnerOrCapable(cred, a)) {
      // Setting both to now needs no more than write permission.
      bool only_now = !c.atime && !c.mtime && c.atime_now && c.mtime_now;
      if (!only_now) return kEPERM;
      TRY(inode.CheckPermission(ctx, kMayWrite));
    }
  }
  if ((c.uid || c.gid) && !inode.is_dir()) {
    uint32_t drop = PrivilegeBits(a.mode);
    if (drop != 0) c.mode = (c.mode.value_or(a.mode & 07777)) & ~drop;
  }
  return {};
}

Kgid GroupForCreate(const Credentials& cred, const Inode::Access& dir) {
  return (dir.mode & S_ISGID) != 0 ? dir.gid : cred.fsgid;
}

Result<uint32_t> ModeForCreate(const VfsContext& ctx, Inode& inode, uint32_t mode) {
  Inode::Access dir = TRY(inode.GetAccess());
  const uint32_t masked = inode.HasDefaultAcl() ? mode : mode & ~(ctx.umask & 0777);
  if ((dir.mode & S_ISGID) == 0) return masked;
  if (S_ISDIR(mode)) return masked | S_ISGID;
  // A set-group-id executable for a group that the creator is not in would hand out the group. What the mask takes
  // away counts: the owner may give it back.
  if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP) && !ctx.cred.InGroup(dir.gid) &&
      !CapableOver(ctx.cred, dir, CAP_FSETID)) {
    return masked & ~uint32_t{S_ISGID};
  }
  return masked;
}

Result<void> RemovePrivileges(const VfsContext& ctx, Inode& inode) {
  if (inode.type() != S_IFREG) return {};
  Inode::Access a = TRY(inode.GetAccess());
  uint32_t drop = PrivilegeBits(a.mode);
  if (drop == 0 || CapableOver(ctx.cred, a, CAP_FSETID)) return {};
  AttrChange change;
  change.mode = (a.mode & 07777) & ~drop;
  return inode.SetAttr(ctx, change);
}

}  // namespace moat
