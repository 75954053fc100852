// Names: lookup, creation, removal, renames.
#include <fcntl.h>
#include <linux/fs.h>

#include "fs/hostfs/host_inode.h"
#include "fs/hostfs/host_look_ahead.h"

namespace moat {

Result<RefPtr<Inode>> HostInode::Lookup(const VfsContext&, std::string_view name) {
  if (!is_dir()) return kENOTDIR;
  if (std::optional<Result<RefPtr<Inode>>> known = HostLookAhead::Take(*this, name)) return *std::move(known);
  if (host_fs().exclusive()) return LookupAmongSiblings(name);
  GoferClient::Walked walked = TRY(host_fs().client().Walk(handle_, std::span(&name, 1)));
  if (walked.steps.empty()) return walked.error == Errno::kOK ? kEIO : walked.error;
  const gofer::WalkStep& step = walked.steps[0];
  return RefPtr<Inode>(host_fs().InodeOf(step.handle, step.attr, std::move(walked.target)));
}

RefPtr<RefCounted> HostInode::LookAhead(const VfsContext&, std::span<const std::string_view> names) {
  if (!is_dir()) return nullptr;
  {
    MutexLock lock(mu_);
    if (scan_ && scan_->IsMissing(names[0])) return nullptr;
  }
  return MakeRef<HostLookAhead>(RefPtr<HostInode>(this), names);
}

Result<GoferClient::NewOwner> HostInode::OwnerOfNew(const VfsContext& ctx, uint32_t mode) {
  if (host_fs().read_only_mount()) return kEROFS;
  Access dir = TRY(GetAccess());
  GoferClient::NewOwner owner{mode, ctx.cred.fsuid, ctx.cred.fsgid};
  // inode(7): in a set-gid directory, new objects get its group, and new directories the bit too.
  if ((dir.mode & S_ISGID) != 0) {
    owner.gid = dir.gid;
    if ((mode & S_IFMT) == S_IFDIR) owner.mode |= S_ISGID;
  }
  return owner;
}

RefPtr<Inode> HostInode::AdoptNew(std::string_view name, GoferClient::Object object, std::string target) {
  NamesChanged(name);
  RefPtr<HostInode> made = host_fs().InodeOf(object.handle, object.attr, std::move(target));
  if (object.fd.valid()) {
    MutexLock lock(made->mu_);
    if (!made->write_fd_.valid()) made->write_fd_ = std::move(object.fd);
    made->bytes_may_change_.store(true, std::memory_order_relaxed);
  }
  return made;
}

Result<RefPtr<Inode>> HostInode::Create(const VfsContext& ctx, std::string_view name, uint32_t mode) {
  GoferClient::NewOwner owner = TRY(OwnerOfNew(ctx, (mode & 07777) | S_IFREG));
  return AdoptNew(name, TRY(host_fs().client().Create(handle_, name, owner)));
}

Result<RefPtr<Inode>> HostInode::CreateTemporary(const VfsContext& ctx, uint32_t mode) {
  GoferClient::NewOwner owner = TRY(OwnerOfNew(ctx, (mode & 07777) | S_IFREG));
  return AdoptNew({}, TRY(host_fs().client().CreateTemporary(handle_, owner)));
}

Result<RefPtr<Inode>> HostInode::Mkdir(const VfsContext& ctx, std::string_view name, uint32_t mode) {
  GoferClient::NewOwner owner = TRY(OwnerOfNew(ctx, (mode & 07777) | S_IFDIR));
  return AdoptNew(name, TRY(host_fs().client().Mkdir(handle_, name, owner)));
}

Result<RefPtr<Inode>> HostInode::Mknod(const VfsContext& ctx, std::string_view name, uint32_t mode, DeviceId) {
  uint32_t type = mode & S_IFMT;
  if (type == S_IFREG) return Create(ctx, name, mode);
  // The sandbox makes no device nodes on the host.
  if (type != S_IFIFO && type != S_IFSOCK) return kEPERM;
  GoferClient::NewOwner owner = TRY(OwnerOfNew(ctx, mode));
  return AdoptNew(name, TRY(host_fs().client().Mknod(handle_, name, owner)));
}

Result<RefPtr<Inode>> HostInode::Symlink(const VfsContext& ctx, std::string_view name, std::string_view target) {
  GoferClient::NewOwner owner = TRY(OwnerOfNew(ctx, S_IFLNK | 0777));
  return AdoptNew(name, TRY(host_fs().client().Symlink(handle_, name, target, owner)), std::string(target));
}

Result<void> HostInode::Link(const VfsContext&, std::string_view name, Inode& target) {
  if (host_fs().read_only_mount()) return kEROFS;
  if (&target.fs() != &fs()) return kEXDEV;
  HostInode& inode = static_cast<HostInode&>(target);
  uint64_t before = inode.generation();
  gofer::Attr attr = TRY(host_fs().client().Link(handle_, name, inode.handle_));
  inode.Refresh(host_fs().ToKstat(attr), before);
  NamesChanged(name);
  return {};
}

Result<void> HostInode::RemoveName(std::string_view name, Inode& child, bool directory) {
  if (host_fs().read_only_mount()) return kEROFS;
  HostInode& inode = static_cast<HostInode&>(child);
  uint64_t before = inode.generation();
  gofer::Attr attr = TRY(host_fs().client().Unlink(handle_, name, inode.handle_, directory));
  inode.Refresh(host_fs().ToKstat(attr), before);
  NamesChanged(name);
  return {};
}

Result<void> HostInode::Unlink(const VfsContext&, std::string_view name, Inode& child) {
  return RemoveName(name, child, false);
}

Result<void> HostInode::Rmdir(const VfsContext&, std::string_view name, Inode& child) {
  return RemoveName(name, child, true);
}

Result<void> HostInode::Rename(const VfsContext&, std::string_view old_name, Inode& child, Inode& new_dir,
                               std::string_view new_name, Inode* replaced, unsigned flags) {
  if (host_fs().read_only_mount()) return kEROFS;
  if ((flags & RENAME_WHITEOUT) != 0) return kEINVAL;
  HostInode& to = static_cast<HostInode&>(new_dir);
  TRY(host_fs().client().Rename(handle_, old_name, to.handle_, new_name, flags));
  NamesChanged(old_name);
  to.NamesChanged(new_name);
  static_cast<HostInode&>(child).MarkStale();
  if (replaced != nullptr) static_cast<HostInode*>(replaced)->MarkStale();
  return {};
}

}  // namespace moat
