// rename(2), renameat2(2). See vfs.h.
#include <fcntl.h>
#include <linux/fs.h>

#include "fs/vfs/notify.h"
#include "fs/vfs/permissions.h"
#include "fs/vfs/special_file.h"
#include "fs/vfs/vfs.h"

namespace moat::vfs {
namespace {

struct Ends {
  ParentAndName from, to;
  RefPtr<Dentry> source, target;  // the target may be negative
};

// What one side must allow: its name taken away, or put there. `taken` comes to stand in `dir`.
Result<void> CheckSide(const VfsContext& ctx, Inode& dir, Inode* victim, Inode& arriving) {
  if (victim == nullptr) return MayCreate(ctx, dir);
  TRY(MayDelete(ctx, dir, *victim, arriving.is_dir()));
  return {};
}

// Called with both directories locked.
Result<void> RenameLocked(const VfsContext& ctx, Ends& e, unsigned flags) {
  Dentry& from_dir = *e.from.parent.dentry;
  Dentry& to_dir = *e.to.parent.dentry;
  bool exchange = (flags & RENAME_EXCHANGE) != 0;
  e.source = TRY(from_dir.LookupChildLocked(ctx, e.from.name));
  Inode* moved = e.source->inode_ptr();
  if (moved == nullptr) return kENOENT;
  e.target = TRY(to_dir.LookupChildLocked(ctx, e.to.name));
  Inode* replaced = e.target->inode_ptr();
  if ((flags & RENAME_NOREPLACE) != 0 && replaced != nullptr) return kEEXIST;
  if (exchange && replaced == nullptr) return kENOENT;
  if (!moved->is_dir() && !exchange) {
    if (e.from.trailing_slash || e.to.trailing_slash) return kENOTDIR;
  }
  if (exchange && !replaced->is_dir() && e.to.trailing_slash) return kENOTDIR;
  // A directory cannot go below itself, nor replace one that it is in.
  if (e.source->IsAncestorOf(to_dir)) return kEINVAL;
  if (e.target->IsAncestorOf(from_dir)) return exchange ? kEINVAL : kENOTEMPTY;
  TRY(WantWrite(e.from.parent));
  if (from_dir.IsDetached() || to_dir.IsDetached()) return kENOENT;
  if (moved == replaced) return {};  // two names of one file: nothing happens
  Inode& from_inode = *from_dir.inode_ptr();
  Inode& to_inode = *to_dir.inode_ptr();
  TRY(MayDelete(ctx, from_inode, *moved, moved->is_dir()));
  if (exchange) {
    TRY(MayDelete(ctx, to_inode, *replaced, replaced->is_dir()));
  } else {
    TRY(CheckSide(ctx, to_inode, replaced, *moved));
  }
  // Another parent means another "..": that is a write to the directory itself. Compared by inode: where nothing is
  // cached, one directory has a dentry for each way that led to it.
  if (&from_inode != &to_inode) {
    if (moved->is_dir()) TRY(moved->CheckPermission(ctx, kMayWrite));
    if (exchange && replaced->is_dir()) TRY(replaced->CheckPermission(ctx, kMayWrite));
  }
  if (e.source->mount_count.load() != 0 || e.target->mount_count.load() != 0) return kEBUSY;
  TRY(from_inode.Rename(ctx, e.from.name, *moved, to_inode, e.to.name, replaced,
                        flags & (RENAME_EXCHANGE | RENAME_WHITEOUT)));
  if (exchange) {
    Dentry::Exchange(*e.source, *e.target);
    return {};
  }
  if (replaced != nullptr) e.target->MarkUnlinked();
  Dentry::Move(*e.source, to_dir, e.to.name);
  return {};
}

void NotifyMoved(Ends& e, Inode* replaced, bool exchange) {
  if (!notify::AnyWatch()) return;
  Inode& from_dir = *e.from.parent.dentry->inode_ptr();
  Inode& to_dir = *e.to.parent.dentry->inode_ptr();
  auto moved = [](Inode& a, std::string_view a_name, Inode& b, std::string_view b_name, Inode& what) {
    uint32_t dir = what.is_dir() ? IN_ISDIR : 0;
    uint32_t cookie = notify::NextCookie();
    notify::EmitEvent(a, IN_MOVED_FROM | dir | (&a == &b ? notify::kRenamedWithin : 0), cookie, a_name);
    notify::EmitEvent(b, IN_MOVED_TO | dir, cookie, b_name);
    notify::EmitEvent(what, IN_MOVE_SELF);
  };
  moved(from_dir, e.from.name, to_dir, e.to.name, *e.source->inode_ptr());
  if (replaced == nullptr) return;
  if (exchange) {
    moved(to_dir, e.to.name, from_dir, e.from.name, *replaced);
  } else if (!replaced->is_dir()) {
    notify::EmitEvent(*replaced, IN_ATTRIB);
  }
}

}  // namespace

Result<void> Rename(const VfsContext& ctx, const VfsPath& old_at, std::string_view old_path, const VfsPath& new_at,
                    std::string_view new_path, unsigned flags) {
  if ((flags & ~unsigned{RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT}) != 0) return kEINVAL;
  if ((flags & RENAME_EXCHANGE) != 0 && (flags & (RENAME_NOREPLACE | RENAME_WHITEOUT)) != 0) return kEINVAL;
  if ((flags & RENAME_WHITEOUT) != 0 && !ctx.cred.HasCapability(CAP_MKNOD)) return kEPERM;
  Ends e;
  e.from = TRY(ResolveParent(ctx, old_at, old_path));
  e.to = TRY(ResolveParent(ctx, new_at, new_path));
  if (e.from.parent.mount != e.to.parent.mount) return kEXDEV;
  auto special = [](const std::string& n) { return n == "." || n == ".." || n == "/"; };
  if (special(e.from.name)) return kEBUSY;
  if (special(e.to.name)) return (flags & RENAME_NOREPLACE) != 0 ? kEEXIST : kEBUSY;
  Dentry& from_dir = *e.from.parent.dentry;
  Dentry& to_dir = *e.to.parent.dentry;
  auto rename = [&] {
    MutexLock2 lock(from_dir.dir_mutex(), to_dir.dir_mutex());
    return RenameLocked(ctx, e, flags);
  };
  if (from_dir.inode_ptr() == to_dir.inode_ptr()) {
    TRY(rename());
  } else {
    // One rename between directories at a time: otherwise two could make a loop of directories.
    MutexLock whole(from_dir.inode_ptr()->fs().rename_mutex());
    TRY(rename());
  }
  NotifyMoved(e, e.target->inode_ptr(), (flags & RENAME_EXCHANGE) != 0);
  return {};
}

}  // namespace moat::vfs
