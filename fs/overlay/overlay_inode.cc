// Attributes, extended attributes, hidden names. Names are in overlay_names.cc, copies in overlay_copy_up.cc.
#include "fs/overlay/overlay_inode.h"

namespace moat {

OverlayInode::OverlayInode(OverlayFs& fs, uint32_t type, uint64_t ino, RefPtr<Inode> upper,
                           std::vector<RefPtr<Inode>> lowers)
    : LayeredInode(fs, type, ino, std::move(upper), std::move(lowers)) {}

OverlayInode::~OverlayInode() { overlay().Drop(*this); }

Result<uint32_t> OverlayInode::LinkCount() {
  if (is_dir()) return removed_.load() ? 0u : 1u;
  if (!lower_born()) return TRY(upper()->GetAttr()).nlink;
  uint32_t lower_count = TRY(lowers()[0]->GetAttr()).nlink;
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
  } else if (lowers().size() + (upper() != nullptr ? 1 : 0) > 1) {
    st.nlink = 1;  // what Linux says of a merged directory: the number of sub-directories is not known
  }
  return st;
}

Result<void> OverlayInode::SetAttr(const VfsContext& ctx, const AttrChange& change) {
  TRY(CopyUp(ctx, change.size && type() == S_IFREG ? *change.size : ~uint64_t{0}));
  return upper()->SetAttr(ctx, change);
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

bool OverlayInode::IsWhiteout(std::string_view name) const {
  if (!has_whiteouts_.load(std::memory_order_acquire)) return false;
  MutexLock lock(mu_);
  return whiteouts_.contains(std::string(name));
}

void OverlayInode::AddWhiteout(std::string_view name) {
  if (lowers().empty()) return;
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
