// Attributes, permissions, extended attributes. Names are in guest_overlay_names.cc, copies in
// guest_overlay_copy_up.cc.
#include "fs/overlay/guest_overlay_inode.h"

#include <sys/stat.h>

#include "fs/vfs/permissions.h"

namespace moat {
namespace {

bool IsSpecial(uint32_t type) { return type != S_IFREG && type != S_IFDIR && type != S_IFLNK; }

}  // namespace

GuestOverlayInode::GuestOverlayInode(GuestOverlayFs& fs, uint32_t type, uint64_t ino, RefPtr<Dentry> upper,
                                     Lowers lowers, RefPtr<GuestOverlayInode> parent, std::string_view name)
    : LayeredInode(fs, type, ino, upper ? upper->inode() : RefPtr<Inode>(), std::move(lowers.inodes),
                   fs.directory_rank()),
      layers_(std::move(lowers.layers)),
      lower_path_(std::move(lowers.path)),
      parent_(std::move(parent)),
      name_(name),
      upper_dentry_(std::move(upper)) {}

GuestOverlayInode::~GuestOverlayInode() {
  overlay().Drop(*this);
  // A chain of parents may be longer than the stack is deep: the outermost destructor works it off.
  thread_local std::vector<RefPtr<GuestOverlayInode>>* worklist = nullptr;
  if (worklist != nullptr) {
    if (parent_) worklist->push_back(std::move(parent_));
    return;
  }
  std::vector<RefPtr<GuestOverlayInode>> mine;
  worklist = &mine;
  mine.push_back(std::move(parent_));
  while (!mine.empty()) {
    RefPtr<GuestOverlayInode> next = std::move(mine.back());
    mine.pop_back();
  }
  worklist = nullptr;
}

VfsPath GuestOverlayInode::UpperPath() const {
  MutexLock lock(mu_);
  return overlay().UpperPlace(upper_dentry_);
}

Result<AsMounter> GuestOverlayInode::AsOwner(const VfsContext& ctx) {
  Access dir = TRY(GetAccess());
  return AsMounter(overlay(), ctx, ctx.cred.fsuid, GroupForCreate(ctx.cred, dir));
}

Result<Kstat> GuestOverlayInode::GetAttr() {
  Kstat st = TRY(layer().GetAttr());
  st.ino = ino();
  st.dev = fs().device();
  if (removed()) {
    if (is_dir() || upper() == nullptr) st.nlink = 0;
  } else if (is_dir() && lowers().size() + (upper() != nullptr ? 1 : 0) > 1) {
    st.nlink = 1;  // merged: the number of sub-directories is not known
  }
  return st;
}

Result<void> GuestOverlayInode::SetAttr(const VfsContext& ctx, const AttrChange& change) {
  TRY(CopyUp(ctx, change.size && type() == S_IFREG ? *change.size : ~uint64_t{0}));
  return vfs::SetAttr(AsMounter(overlay(), ctx), UpperPath(), change);
}

Result<void> GuestOverlayInode::CheckPermission(const VfsContext& ctx, int mask) {
  TRY(layer().CheckPermission(ctx, mask));
  // A write to what is still in a lower will read that one and write the copy.
  if (upper() == nullptr && (mask & kMayWrite) != 0 && !IsSpecial(type())) mask = (mask & ~kMayWrite) | kMayRead;
  return layer().CheckPermission(AsMounter(overlay(), ctx), mask);
}

namespace {

// "trusted.overlay.x" is ours; a guest's own of that name is stored as "trusted.overlay.overlay.x".
bool IsOurs(std::string_view name, std::string_view prefix) { return name.starts_with(prefix); }
std::string Stored(std::string_view name, std::string_view prefix) {
  if (!IsOurs(name, prefix)) return std::string(name);
  return std::string(prefix) + "overlay." + std::string(name.substr(prefix.size()));
}

}  // namespace

Result<std::string> GuestOverlayInode::GetXattr(const VfsContext& ctx, std::string_view name) {
  return layer().GetXattr(ctx, Stored(name, overlay().xattr_prefix_));
}

Result<void> GuestOverlayInode::SetXattr(const VfsContext& ctx, std::string_view name, std::string_view value,
                                         int flags) {
  TRY(CopyUp(ctx));
  return upper()->SetXattr(ctx, Stored(name, overlay().xattr_prefix_), value, flags);
}

Result<void> GuestOverlayInode::RemoveXattr(const VfsContext& ctx, std::string_view name) {
  std::string stored = Stored(name, overlay().xattr_prefix_);
  // Removing what is not there is no reason for a copy.
  TRY(layer().GetXattr(ctx, stored));
  TRY(CopyUp(ctx));
  return upper()->RemoveXattr(ctx, stored);
}

Result<std::vector<std::string>> GuestOverlayInode::ListXattr(const VfsContext& ctx) {
  const std::string& prefix = overlay().xattr_prefix_;
  const std::string escaped = prefix + "overlay.";
  std::vector<std::string> names;
  for (std::string& name : TRY(layer().ListXattr(ctx))) {
    if (!IsOurs(name, prefix)) {
      names.push_back(std::move(name));
    } else if (name.starts_with(escaped)) {
      names.push_back(prefix + name.substr(escaped.size()));
    }
  }
  return names;
}

}  // namespace moat
