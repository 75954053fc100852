// Names of an overlay directory. What is true between calls: a name that is in the upper directory is hidden or
// missing in the lowers. So a name leads to the upper object if there is one, else to the lowers' unless hidden.
#include <dirent.h>
#include <linux/fs.h>

#include <unordered_set>

#include "fs/overlay/overlay_inode.h"

namespace moat {

Result<RefPtr<Inode>> OverlayInode::LookupUpper(const VfsContext& ctx, std::string_view name) {
  Inode* u = upper();
  if (u == nullptr) return kENOENT;
  return u->Lookup(ctx, name);
}

Result<std::vector<RefPtr<Inode>>> OverlayInode::LookupLowers(const VfsContext& ctx, std::string_view name) {
  std::vector<RefPtr<Inode>> found;
  for (size_t i = 0; i < lowers().size(); ++i) {
    Result<RefPtr<Inode>> one = lowers()[i]->Lookup(ctx, name);
    if (!one.ok()) {
      if (one.error() == kENOENT || one.error() == kENOTDIR) continue;
      return one.error();
    }
    bool last = i + 1 == lowers().size();
    if (!last && (*one)->type() == S_IFCHR && TRY((*one)->GetAttr()).rdev == DeviceId{0, 0}) break;  // a whiteout
    if (!(*one)->is_dir()) {
      if (found.empty()) found.push_back(std::move(*one));
      break;
    }
    found.push_back(*one);
    if (last) break;
    Result<std::string> opaque = (*one)->GetXattr(ctx, "user.overlay.opaque");
    if (!opaque.ok()) opaque = (*one)->GetXattr(ctx, "trusted.overlay.opaque");
    if (opaque.ok() && *opaque == "y") break;
  }
  if (found.empty()) return kENOENT;
  return found;
}

Result<RefPtr<Inode>> OverlayInode::Lookup(const VfsContext& ctx, std::string_view name) {
  if (!is_dir()) return kENOTDIR;
  Result<RefPtr<Inode>> in_upper = LookupUpper(ctx, name);
  if (in_upper.ok()) return RefPtr<Inode>(overlay().InodeOfUpper(std::move(*in_upper)));
  if (in_upper.error() != kENOENT) return in_upper.error();
  if (IsWhiteout(name)) return kENOENT;
  return RefPtr<Inode>(overlay().InodeOfLower(TRY(LookupLowers(ctx, name))));
}

RefPtr<RefCounted> OverlayInode::LookAhead(const VfsContext& ctx, std::span<const std::string_view> names) {
  // Of use where the names lead down one lower; what the upper has, or hides, is found without asking anybody.
  if (!is_dir() || lowers().size() != 1 || IsWhiteout(names[0]) || LookupUpper(ctx, names[0]).ok()) return nullptr;
  return lowers()[0]->LookAhead(ctx, names);
}

Result<RefPtr<Inode>> OverlayInode::AdoptNew(Result<RefPtr<Inode>> made) {
  if (!made.ok()) return made.error();
  return RefPtr<Inode>(overlay().InodeOfUpper(std::move(*made)));
}

Result<RefPtr<Inode>> OverlayInode::Create(const VfsContext& ctx, std::string_view name, uint32_t mode) {
  TRY(CopyUp(ctx));
  return AdoptNew(upper()->Create(ctx, name, mode));
}
Result<RefPtr<Inode>> OverlayInode::Mkdir(const VfsContext& ctx, std::string_view name, uint32_t mode) {
  TRY(CopyUp(ctx));
  return AdoptNew(upper()->Mkdir(ctx, name, mode));
}
Result<RefPtr<Inode>> OverlayInode::Mknod(const VfsContext& ctx, std::string_view name, uint32_t mode, DeviceId dev) {
  TRY(CopyUp(ctx));
  return AdoptNew(upper()->Mknod(ctx, name, mode, dev));
}
Result<RefPtr<Inode>> OverlayInode::Symlink(const VfsContext& ctx, std::string_view name, std::string_view target) {
  TRY(CopyUp(ctx));
  return AdoptNew(upper()->Symlink(ctx, name, target));
}
Result<RefPtr<Inode>> OverlayInode::CreateTemporary(const VfsContext& ctx, uint32_t mode) {
  TRY(CopyUp(ctx));
  return AdoptNew(upper()->CreateTemporary(ctx, mode));
}

Result<void> OverlayInode::Link(const VfsContext& ctx, std::string_view name, Inode& target) {
  if (&target.fs() != &fs()) return kEXDEV;
  OverlayInode& inode = static_cast<OverlayInode&>(target);
  TRY(CopyUp(ctx));
  TRY(inode.CopyUp(ctx));
  TRY(upper()->Link(ctx, name, *inode.upper()));
  inode.NamesChangedBy(ctx, 1);
  return {};
}

Result<void> OverlayInode::Hide(const VfsContext& ctx, std::string_view name) {
  AddWhiteout(name);
  AttrChange change;
  change.mtime_now = true;
  return upper()->SetAttr(ctx, change);
}

Result<void> OverlayInode::RemoveName(const VfsContext& ctx, std::string_view name, OverlayInode& child) {
  TRY(CopyUp(ctx));
  Result<RefPtr<Inode>> in_upper = LookupUpper(ctx, name);
  if (in_upper.ok()) {
    TRY(child.is_dir() ? upper()->Rmdir(ctx, name, **in_upper) : upper()->Unlink(ctx, name, **in_upper));
  } else if (in_upper.error() == kENOENT) {
    TRY(Hide(ctx, name));
  } else {
    return in_upper.error();
  }
  if (child.is_dir()) {
    child.DirectoryRemoved(ctx);
  } else {
    child.NamesChangedBy(ctx, -1);
  }
  return {};
}

Result<void> OverlayInode::Unlink(const VfsContext& ctx, std::string_view name, Inode& child) {
  return RemoveName(ctx, name, static_cast<OverlayInode&>(child));
}

Result<void> OverlayInode::Rmdir(const VfsContext& ctx, std::string_view name, Inode& child) {
  OverlayInode& dir = static_cast<OverlayInode&>(child);
  if (!TRY(dir.IsEmptyDirectory(ctx))) return kENOTEMPTY;
  return RemoveName(ctx, name, dir);
}

Result<void> OverlayInode::Place(const VfsContext& ctx, std::string_view name, OverlayInode& child) {
  if (child.is_dir()) {
    std::string anchor;
    {
      MutexLock lock(child.mu_);
      anchor = child.anchor_;
    }
    // A copied directory without an anchor stands in some upper directory, and then its name was found there.
    if (anchor.empty()) return kEIO;
    TRY(overlay().WithWork(
        [&](Inode& work) { return work.Rename(ctx, anchor, *child.upper(), *upper(), name, nullptr, 0); }));
    MutexLock lock(child.mu_);
    child.anchor_.clear();
  } else {
    TRY(upper()->Link(ctx, name, *child.upper()));
  }
  AddWhiteout(name);
  return {};
}

Result<void> OverlayInode::Rename(const VfsContext& ctx, std::string_view old_name, Inode& child, Inode& new_dir,
                                  std::string_view new_name, Inode* replaced, unsigned flags) {
  if ((flags & RENAME_WHITEOUT) != 0) return kEINVAL;
  bool exchange = (flags & RENAME_EXCHANGE) != 0;
  OverlayInode& moved = static_cast<OverlayInode&>(child);
  OverlayInode& to = static_cast<OverlayInode&>(new_dir);
  OverlayInode* gone = static_cast<OverlayInode*>(replaced);
  if (gone != nullptr && gone->is_dir() && !exchange && !TRY(gone->IsEmptyDirectory(ctx))) return kENOTEMPTY;
  TRY(CopyUp(ctx));
  TRY(to.CopyUp(ctx));
  TRY(moved.CopyUp(ctx));

  // First the child gets its old name in the upper, which changes nothing that can be seen; then the upper renames.
  Result<RefPtr<Inode>> from = LookupUpper(ctx, old_name);
  if (!from.ok()) {
    if (from.error() != kENOENT) return from.error();
    TRY(Place(ctx, old_name, moved));
  }
  RefPtr<Inode> target;
  if (gone != nullptr) {
    Result<RefPtr<Inode>> there = to.LookupUpper(ctx, new_name);
    if (!there.ok() && there.error() != kENOENT) return there.error();
    if (!there.ok() && exchange) {
      TRY(gone->CopyUp(ctx));
      TRY(to.Place(ctx, new_name, *gone));
      there = to.LookupUpper(ctx, new_name);
      if (!there.ok()) return there.error();
    }
    if (there.ok()) target = std::move(*there);
  }
  TRY(upper()->Rename(ctx, old_name, *moved.upper(), *to.upper(), new_name, target.get(), flags));
  if (gone == nullptr || exchange) return {};
  if (!target) to.AddWhiteout(new_name);
  if (gone->is_dir()) {
    gone->DirectoryRemoved(ctx);
  } else {
    gone->NamesChangedBy(ctx, -1);
  }
  return {};
}

Result<std::vector<LayerEntry>> OverlayInode::MergedNames(const VfsContext& ctx) {
  OverlayFs& fs = overlay();
  std::vector<LayerEntry> merged;
  bool several = lowers().size() + (upper() != nullptr ? 1 : 0) > 1;
  std::unordered_set<std::string> seen;
  if (Inode* u = upper()) {
    for (LayerEntry& e : TRY(ListLayer(ctx, *u))) {
      e.ino = fs.InoOfUpperEntry(e.ino);
      if (several) seen.insert(e.name);
      merged.push_back(std::move(e));
    }
  }
  for (size_t i = 0; i < lowers().size(); ++i) {
    Inode& lower = *lowers()[i];
    bool last = i + 1 == lowers().size();
    for (LayerEntry& e : TRY(ListLayer(ctx, lower))) {
      if (several && !seen.insert(e.name).second) continue;
      if (IsWhiteout(e.name)) continue;
      if (!last && e.type == DT_CHR) {
        // A lower layer's whiteout is a character device 0/0: its name stays seen and hides those below.
        Result<RefPtr<Inode>> inode = lower.Lookup(ctx, e.name);
        Result<Kstat> st = inode.ok() ? (*inode)->GetAttr() : Result<Kstat>(inode.error());
        if (st.ok() && st->rdev == DeviceId{0, 0}) continue;
      }
      e.ino = fs.LowerIno(fs.LayerOf(lower), e.ino);
      merged.push_back(std::move(e));
    }
  }
  return merged;
}

Result<bool> OverlayInode::IsEmptyDirectory(const VfsContext& ctx) {
  std::vector<LayerEntry> entries = TRY(MergedNames(ctx));
  return entries.empty();
}

}  // namespace moat
