// Attributes, opening, extended attributes. Names are in overlay_names.cc, copies in overlay_copy_up.cc.
#include "fs/overlay/overlay_inode.h"

#include <fcntl.h>

#include "fs/overlay/overlay_directory.h"
#include "fs/overlay/overlay_file.h"
#include "fs/overlay/overlay_mappable.h"
#include "fs/vfs/dentry.h"
#include "fs/vfs/mount.h"

namespace moat {

VfsPath InnerPath(Inode& inode) { return VfsPath(nullptr, Dentry::CreateAnonymous(RefPtr<Inode>(&inode), "")); }

OverlayInode::OverlayInode(OverlayFs& fs, uint32_t type, uint64_t ino, RefPtr<Inode> upper,
                           std::vector<RefPtr<Inode>> lowers)
    : Inode(fs, type, ino), lowers_(std::move(lowers)), upper_raw_(upper.Leak()) {}

OverlayInode::~OverlayInode() {
  overlay().Drop(*this);
  if (Inode* u = upper()) u->Unref();
}

Result<uint32_t> OverlayInode::LinkCount() {
  if (is_dir()) return removed_.load() ? 0u : 1u;
  if (!lower_born()) return TRY(upper()->GetAttr()).nlink;
  uint32_t lower_count = TRY(lowers_[0]->GetAttr()).nlink;
  MutexLock lock(mu_);
  int64_t count = static_cast<int64_t>(lower_count) + nlink_delta_;
  return static_cast<uint32_t>(std::max<int64_t>(count, 0));
}

Result<Kstat> OverlayInode::GetAttr() {
  Kstat st = TRY(layer().GetAttr());
  st.ino = ino();
  st.dev = fs().device();
  if (!is_dir()) {
    if (lower_born()) st.nlink = TRY(LinkCount());
  } else if (removed_.load()) {
    st.nlink = 0;
  } else if (lowers_.size() + (upper() != nullptr ? 1 : 0) > 1) {
    st.nlink = 1;  // what Linux says of a merged directory: the number of sub-directories is not known
  }
  return st;
}

Result<void> OverlayInode::SetAttr(const VfsContext& ctx, const AttrChange& change) {
  TRY(CopyUp(ctx, change.size && type() == S_IFREG ? *change.size : ~uint64_t{0}));
  return upper()->SetAttr(ctx, change);
}

Result<RefPtr<File>> OverlayInode::Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) {
  if (is_dir()) return RefPtr<File>(MakeRef<OverlayDirectory>(RefPtr<OverlayInode>(this), path, flags));
  if (type() != S_IFREG) return kENXIO;
  if (flags.writable()) TRY(CopyUp(ctx));
  RefPtr<OverlayFile> file = MakeRef<OverlayFile>(RefPtr<OverlayInode>(this), path, flags);
  TRY(file->OpenInner(ctx));
  return RefPtr<File>(file);
}

Result<std::string> OverlayInode::GetXattr(const VfsContext& ctx, std::string_view name) {
  return layer().GetXattr(ctx, name);
}

Result<void> OverlayInode::SetXattr(const VfsContext& ctx, std::string_view name, std::string_view value, int flags) {
  TRY(CopyUp(ctx));
  return upper()->SetXattr(ctx, name, value, flags);
}

Result<void> OverlayInode::RemoveXattr(const VfsContext& ctx, std::string_view name) {
  // Removing what is not there is no reason for a copy.
  TRY(layer().GetXattr(ctx, name));
  TRY(CopyUp(ctx));
  return upper()->RemoveXattr(ctx, name);
}

Result<RefPtr<Mappable>> OverlayInode::GetMappable() {
  if (type() != S_IFREG) return kENODEV;
  RefPtr<OverlayMappable> made = MakeRef<OverlayMappable>(RefPtr<OverlayInode>(this), TRY(layer().GetMappable()));
  {
    MutexLock lock(mappable_mu_);
    if (mappable_ != nullptr && mappable_->TryAddRef()) return RefPtr<Mappable>(AdoptRef<Mappable>(mappable_));
    mappable_ = made.get();
  }
  // A copy-up that ended before the mappable could be found here did not tell it.
  made->SwitchTo(TRY(layer().GetMappable()));
  return RefPtr<Mappable>(made);
}

bool OverlayInode::IsWhiteout(std::string_view name) const {
  if (!has_whiteouts_.load(std::memory_order_acquire)) return false;
  MutexLock lock(mu_);
  return whiteouts_.contains(std::string(name));
}

void OverlayInode::AddWhiteout(std::string_view name) {
  if (lowers_.empty()) return;
  MutexLock lock(mu_);
  whiteouts_.emplace(name);
  has_whiteouts_.store(true, std::memory_order_release);
}

void OverlayInode::NamesChangedBy(const VfsContext& ctx, int delta) {
  if (!lower_born()) return;
  {
    MutexLock lock(mu_);
    nlink_delta_ += delta;
  }
  KeepWhileNamed(ctx);
}

void OverlayInode::DirectoryRemoved(const VfsContext& ctx) {
  removed_.store(true);
  KeepWhileNamed(ctx);
}

void OverlayInode::KeepWhileNamed(const VfsContext& ctx) {
  if (LinkCount().value_or(1) != 0) {
    overlay().Pin(*this);
    return;
  }
  std::string anchor;
  {
    MutexLock lock(mu_);
    anchor = std::move(anchor_);
    anchor_.clear();
  }
  if (!anchor.empty()) DiscardAnchor(ctx, anchor, *upper());
  overlay().Unpin(*this);
}

}  // namespace moat
