// Resolve, ResolveParent, Open, OpenPath: see vfs.h.
#include <fcntl.h>
#include <sys/mount.h>

#include "fs/vfs/file_locks.h"
#include "fs/vfs/notify.h"
#include "fs/vfs/permissions.h"
#include "fs/vfs/special_file.h"
#include "fs/vfs/vfs.h"
#include "fs/vfs/walk.h"

namespace moat::vfs {
namespace {

constexpr int kTmpfileBit = 020000000;  // __O_TMPFILE; O_TMPFILE carries O_DIRECTORY too

bool WantsTemporary(int flags) { return (flags & kTmpfileBit) != 0; }

int AccessMask(int flags) {
  int mask = 0;
  switch (flags & O_ACCMODE) {
    case O_RDONLY:
      mask = kMayRead;
      break;
    case O_WRONLY:
      mask = kMayWrite;
      break;
    default:  // O_RDWR, and 3, which asks for both permissions
      mask = kMayRead | kMayWrite;
  }
  if ((flags & O_TRUNC) != 0) mask |= kMayWrite;
  return mask;
}

// may_open(): `created`: the caller made the file just now, and may open it whatever its mode says.
Result<void> MayOpen(const VfsContext& ctx, const VfsPath& path, int flags, bool created) {
  Inode& inode = *path.dentry->inode_ptr();
  int mask = AccessMask(flags);
  switch (inode.type()) {
    case S_IFLNK:
      return kELOOP;
    case S_IFDIR:
      if ((mask & kMayWrite) != 0 || (flags & O_CREAT) != 0) return kEISDIR;
      break;
    case S_IFCHR:
    case S_IFBLK:
      if ((path.mount->flags() & MS_NODEV) != 0) return kEACCES;
      break;
    case S_IFSOCK:
      return kENXIO;
    case S_IFREG:
      if ((mask & kMayWrite) != 0) TRY(WantWrite(path));
      break;
    default:
      break;
  }
  if (created) return {};
  TRY(inode.CheckPermission(ctx, mask));
  if ((flags & O_NOATIME) != 0 && !OwnerOrCapable(ctx.cred, TRY(inode.GetAccess()))) return kEPERM;
  return {};
}

Result<RefPtr<File>> Finish(const VfsContext& ctx, const VfsPath& path, int flags, bool created) {
  Inode& inode = *path.dentry->inode_ptr();
  if ((flags & O_DIRECTORY) != 0 && !inode.is_dir() && !WantsTemporary(flags)) return kENOTDIR;
  TRY(MayOpen(ctx, path, flags, created));
  OpenFlags open_flags{flags & ~kTmpfileBit};
  bool regular = inode.type() == S_IFREG;
  bool write = regular && ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0);
  if (regular) {
    TRY(BreakLeases(ctx, inode, write));
  }
  bool holds = false;
  if (write) {
    TRY(inode.GetWriteAccess());
    holds = true;
  }
  auto open = [&]() -> Result<RefPtr<File>> {
    if (regular && (flags & O_TRUNC) != 0 && !created) {
      TRY(RemovePrivileges(ctx, inode));
      AttrChange change;
      change.size = 0;
      TRY(inode.SetAttr(ctx, change));
      if (notify::AnyWatch()) notify::EmitOnPath(path, IN_MODIFY);
    }
    if (regular || inode.is_dir() || inode.opens_itself()) return inode.Open(ctx, path, open_flags);
    return OpenSpecial(ctx, path, open_flags);
  };
  Result<RefPtr<File>> file = open();
  if (!file.ok()) {
    if (holds) inode.PutWriteAccess();
    return file.error();
  }
  // A read-only description that only truncated does not keep executions out.
  bool keeps = holds && open_flags.writable();
  if (holds && !keeps) inode.PutWriteAccess();
  // A driver may hand out a description of something else (/dev/tty, /dev/ptmx): that has no claim of this inode's.
  if ((*file)->path() == path)
    (*file)->MarkOpened(keeps, created && !WantsTemporary(flags));
  else if (keeps)
    inode.PutWriteAccess();
  if (notify::AnyWatch()) notify::EmitOnPath(path, IN_OPEN);
  return file;
}

Result<RefPtr<File>> OpenTemporary(const VfsContext& ctx, const VfsPath& at, std::string_view path,
                                   const OpenOptions& o) {
  if (!OpenFlags{o.flags}.writable()) return kEINVAL;
  ResolveOptions r;
  r.resolve = o.resolve;
  r.directory_only = true;
  r.follow_last = (o.flags & O_NOFOLLOW) == 0;
  VfsPath dir = TRY(Resolve(ctx, at, path, r));
  TRY(WantWrite(dir));
  Inode& parent = *dir.dentry->inode_ptr();
  TRY(MayCreate(ctx, parent));
  uint32_t mode = TRY(ModeForCreate(ctx, parent, S_IFREG | (o.mode & 07777)));
  RefPtr<Inode> inode = TRY(parent.CreateTemporary(ctx, mode & 07777));
  std::string name = "#" + std::to_string(inode->ino());
  VfsPath place(dir.mount, Dentry::CreateUnlinked(*dir.dentry, std::move(inode), std::move(name)));
  if ((o.flags & O_EXCL) != 0) place.dentry->ForbidLink();
  return Finish(ctx, place, o.flags & ~(O_CREAT | O_TRUNC), true);
}

// The last name does not exist: makes it. kEAGAIN when somebody else made it first and the walk must look again.
Result<RefPtr<File>> CreateAndOpen(const VfsContext& ctx, const VfsPath& dir, std::string_view name,
                                   const OpenOptions& o) {
  Inode& parent = *dir.dentry->inode_ptr();
  TRY(WantWrite(dir));
  TRY(MayCreate(ctx, parent));
  uint32_t mode = TRY(ModeForCreate(ctx, parent, S_IFREG | (o.mode & 07777)));
  RefPtr<Dentry> child;
  {
    MutexLock lock(dir.dentry->dir_mutex());
    if (dir.dentry->IsDetached()) return kENOENT;
    child = TRY(dir.dentry->LookupChildLocked(ctx, name));
    if (child->inode_ptr() != nullptr) return kEAGAIN;
    child->Instantiate(TRY(parent.Create(ctx, name, mode & 07777)));
  }
  if (notify::AnyWatch()) notify::EmitEvent(parent, IN_CREATE, 0, name);
  return Finish(ctx, VfsPath(dir.mount, std::move(child)), o.flags & ~(O_CREAT | O_TRUNC), true);
}

Result<RefPtr<File>> OpenCreate(const VfsContext& ctx, const VfsPath& at, std::string_view path, const OpenOptions& o) {
  if ((o.flags & O_DIRECTORY) != 0) return kEINVAL;
  ResolveOptions r;
  r.resolve = o.resolve;
  r.follow_last = (o.flags & (O_EXCL | O_NOFOLLOW)) == 0;
  for (;;) {
    Walk walk(ctx, r);
    TRY(walk.Run(at, path, Walk::Goal::kCreate));
    RefPtr<Dentry> child = walk.child();
    if (!child) return (o.flags & O_EXCL) != 0 ? kEEXIST : kEISDIR;  // "/", "." or ".."
    if (child->inode_ptr() == nullptr) {
      if (walk.trailing_slash()) return kEISDIR;
      Result<RefPtr<File>> made = CreateAndOpen(ctx, walk.place(), walk.last(), o);
      if (!made.ok() && made.error() == kEAGAIN) continue;
      return made;
    }
    if ((o.flags & O_EXCL) != 0) return kEEXIST;
    VfsPath place = walk.place();
    if (walk.last() != "/") {
      Inode& parent = *place.dentry->inode_ptr();
      place.dentry = child;
      ctx.mounts.Descend(place);
      Inode& inode = *place.dentry->inode_ptr();
      if (inode.is_dir()) return kEISDIR;
      if (walk.trailing_slash()) return kENOTDIR;
      TRY(MayOpenExistingInSticky(ctx, parent, inode));
    }
    return Finish(ctx, place, o.flags, false);
  }
}

}  // namespace

Result<VfsPath> Resolve(const VfsContext& ctx, const VfsPath& at, std::string_view path, const ResolveOptions& o) {
  Walk walk(ctx, o);
  TRY(walk.Run(at, path, Walk::Goal::kPlace));
  return std::move(walk.place());
}

Result<ParentAndName> ResolveParent(const VfsContext& ctx, const VfsPath& at, std::string_view path,
                                    const ResolveOptions& o) {
  Walk walk(ctx, o);
  TRY(walk.Run(at, path, Walk::Goal::kParent));
  std::string name(walk.last());
  if (name.size() > 255) return kENAMETOOLONG;
  return ParentAndName{std::move(walk.place()), std::move(name), walk.trailing_slash()};
}

Result<RefPtr<File>> OpenPath(const VfsContext& ctx, const VfsPath& path, const OpenOptions& o) {
  if (path.dentry->inode_ptr() == nullptr) return kENOENT;
  if ((o.flags & O_PATH) != 0) {
    if ((o.flags & O_DIRECTORY) != 0 && !path.dentry->inode_ptr()->is_dir()) return kENOTDIR;
    return MakePathFile(path, OpenFlags{o.flags});
  }
  return Finish(ctx, path, o.flags, false);
}

Result<RefPtr<File>> Open(const VfsContext& ctx, const VfsPath& at, std::string_view path, const OpenOptions& o) {
  if ((o.flags & O_PATH) == 0) {
    if (WantsTemporary(o.flags)) return OpenTemporary(ctx, at, path, o);
    if ((o.flags & O_CREAT) != 0) return OpenCreate(ctx, at, path, o);
  }
  ResolveOptions r;
  r.resolve = o.resolve;
  r.follow_last = (o.flags & O_NOFOLLOW) == 0;
  r.directory_only = (o.flags & O_DIRECTORY) != 0;
  VfsPath place = TRY(Resolve(ctx, at, path, r));
  return OpenPath(ctx, place, o);
}

}  // namespace moat::vfs
