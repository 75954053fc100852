// What a name of a guest's overlay leads to: the upper object, and what it merges with in the lowers. Source:
// Documentation/filesystems/overlayfs.rst, "Merging directories", "whiteouts and opaque directories", "redirect_dir".
#include <dirent.h>
#include <limits.h>

#include <unordered_set>

#include "fs/overlay/guest_overlay_inode.h"
#include "platform/base/log.h"

namespace moat {
namespace {

constexpr size_t kMaxRedirect = 256;  // OVL_REDIRECT_MAX

}  // namespace

// A search goes down the layers with a path that redirects change on the way.
struct GuestOverlayInode::Search {
  std::string path;       // below each layer's directory; absolute: below each layer's root
  bool absolute = false;  // a redirect said so
  bool directories_only;  // something above merges: a file below it is hidden
  bool done = false;      // nothing below this layer counts
  Lowers found = {};
};

Result<bool> GuestOverlayInode::IsWhiteout(const VfsContext& ctx, Inode& inode) const {
  if (inode.type() == S_IFCHR) return TRY(inode.GetAttr()).rdev == DeviceId{0, 0};
  if (inode.type() != S_IFREG || TRY(inode.GetAttr()).size != 0) return false;
  return overlay().reads_xattrs_ && inode.GetXattr(ctx, overlay().XattrName("whiteout")).ok();
}

std::string GuestOverlayInode::OwnXattr(const VfsContext& ctx, Inode& inode, std::string_view name) const {
  if (!overlay().reads_xattrs_) return {};
  return inode.GetXattr(ctx, overlay().XattrName(name)).value_or(std::string());
}

Result<RefPtr<Dentry>> GuestOverlayInode::UpperChild(const VfsContext& ctx, std::string_view name) const {
  if (upper() == nullptr) return RefPtr<Dentry>();
  VfsPath dir = UpperPath();
  if (dir.dentry->IsDetached()) return RefPtr<Dentry>();
  RefPtr<Dentry> child = TRY(dir.dentry->LookupChild(ctx, name));
  return child->inode_ptr() != nullptr ? child : RefPtr<Dentry>();
}

namespace {

// What a redirect makes of `path`, of whose component [begin, end) it was found: "x" another name there, "/x" another
// place. False: not a redirect that can be followed.
bool ApplyRedirect(std::string& path, size_t begin, size_t end, const std::string& redirect, bool& absolute) {
  std::string rest = path.substr(end);
  if (redirect[0] == '/') {
    path = redirect + rest;
    absolute = true;
  } else if (redirect.find('/') == redirect.npos) {
    path = path.substr(0, begin) + redirect + rest;
  } else {
    return false;
  }
  return path.size() <= PATH_MAX;
}

}  // namespace

Result<void> GuestOverlayInode::SearchLayer(const VfsContext& ctx, Inode& base, size_t layer, Search& s) {
  // The redirects of this layer count for those below it, whether the path leads to its end here or not.
  const std::string path = s.path;
  RefPtr<Inode> at(&base);
  for (size_t begin = path.find_first_not_of('/'), end; begin != path.npos && begin < path.size();
       begin = end == path.npos ? end : path.find_first_not_of('/', end)) {
    end = std::min(path.find('/', begin), path.size());
    bool last = path.find_first_not_of('/', end) == path.npos;
    Result<RefPtr<Inode>> child = at->Lookup(ctx, std::string_view(path).substr(begin, end - begin));
    if (!child.ok()) {
      if (child.error() == kENOENT || child.error() == kENOTDIR || child.error() == kENAMETOOLONG) return {};
      return child.error();
    }
    at = std::move(*child);
    if (TRY(IsWhiteout(ctx, *at))) {
      s.done = true;
      return {};
    }
    if (!at->is_dir()) {
      s.done = true;
      if (!last || s.directories_only) return {};
      if (!OwnXattr(ctx, *at, "metacopy").empty()) {
        MOAT_LOG_ONCE("overlay: a metacopy file in a lower layer; metacopy is not offered");
        return kEPERM;
      }
      break;
    }
    std::string redirect = OwnXattr(ctx, *at, "redirect");
    if (OwnXattr(ctx, *at, "opaque") == "y") {
      s.done = true;
    } else if (!redirect.empty()) {
      if (overlay().options_.redirect == GuestOverlayOptions::Redirect::kNoFollow) return kEPERM;
      size_t shift = s.path.size() - path.size();  // what stands behind is the same in both
      if (!ApplyRedirect(s.path, begin + shift, end + shift, redirect, s.absolute)) return kEINVAL;
      if (redirect[0] == '/') s.done = false;  // an opaque directory above hides nothing of another place
    }
  }
  s.found.inodes.push_back(at);
  s.found.layers.push_back(static_cast<uint16_t>(layer));
  if (!at->is_dir()) s.done = true;
  s.directories_only = true;
  return {};
}

Result<GuestOverlayInode::Lowers> GuestOverlayInode::FindInLowers(const VfsContext& ctx, std::string_view name,
                                                                  Inode* upper_child) {
  Search s{.path = std::string(name), .directories_only = upper_child != nullptr};
  if (upper_child != nullptr) {
    if (!upper_child->is_dir() || OwnXattr(ctx, *upper_child, "opaque") == "y") return Lowers();
    std::string redirect = OwnXattr(ctx, *upper_child, "redirect");
    if (!redirect.empty()) {
      if (overlay().options_.redirect == GuestOverlayOptions::Redirect::kNoFollow) return kEPERM;
      if (!ApplyRedirect(s.path, 0, s.path.size(), redirect, s.absolute)) return kEINVAL;
    }
  }
  // A redirect to here would be followed from the topmost layer on, as this search is.
  if (s.absolute || lower_path_) s.found.path = s.absolute ? s.path : *lower_path_ + "/" + s.path;
  if (s.found.path && s.found.path->size() > kMaxRedirect) s.found.path.reset();
  size_t next = 0;  // an index of lowers() while the path is relative, of a layer from then on
  for (; !s.done && !s.absolute && next < lowers().size(); ++next) {
    TRY(SearchLayer(ctx, *lowers()[next], layers_[next], s));
  }
  if (s.done || !s.absolute) return std::move(s.found);
  size_t layer = next == 0 ? 0 : size_t{layers_[next - 1]} + 1;
  for (; !s.done && layer < overlay().lowers_.size(); ++layer) {
    TRY(SearchLayer(ctx, *overlay().lowers_[layer].dentry->inode_ptr(), layer, s));
  }
  return std::move(s.found);
}

Result<RefPtr<Inode>> GuestOverlayInode::Lookup(const VfsContext& caller, std::string_view name) {
  if (!is_dir()) return kENOTDIR;
  AsMounter ctx(overlay(), caller);
  RefPtr<Dentry> in_upper = TRY(UpperChild(ctx, name));
  if (in_upper && TRY(IsWhiteout(ctx, *in_upper->inode_ptr()))) return kENOENT;
  Lowers below = TRY(FindInLowers(ctx, name, in_upper ? in_upper->inode_ptr() : nullptr));
  if (in_upper) {
    if (RefPtr<GuestOverlayInode> copied = overlay().AtPlace(*this, name)) return RefPtr<Inode>(copied);
    return RefPtr<Inode>(overlay().InodeOfUpper(std::move(in_upper), std::move(below)));
  }
  if (below.inodes.empty()) return kENOENT;
  return RefPtr<Inode>(overlay().InodeOfLower(RefPtr<GuestOverlayInode>(this), name, std::move(below)));
}

Result<bool> GuestOverlayInode::LowerHas(const VfsContext& ctx, std::string_view name) {
  for (const RefPtr<Inode>& lower : lowers()) {
    Result<RefPtr<Inode>> child = lower->Lookup(ctx, name);
    if (child.ok()) return !TRY(IsWhiteout(ctx, **child));
    if (child.error() != kENOENT && child.error() != kENOTDIR) return child.error();
  }
  return false;
}

Result<std::vector<LayerEntry>> GuestOverlayInode::MergedNames(const VfsContext& caller) {
  AsMounter ctx(overlay(), caller);
  std::vector<LayerEntry> merged;
  std::unordered_set<std::string> seen;
  // A name counts in the uppermost layer that has it, be it as a whiteout.
  auto add = [&](Inode& dir, bool is_upper, size_t layer) -> Result<void> {
    bool marked_files = OwnXattr(ctx, dir, "opaque") == "x";  // whiteouts may be marked files
    for (LayerEntry& e : TRY(ListLayer(ctx, dir))) {
      if (!seen.insert(e.name).second) continue;
      if (e.type == DT_CHR || (marked_files && e.type == DT_REG)) {
        Result<RefPtr<Inode>> inode = dir.Lookup(ctx, e.name);
        if (!inode.ok() || TRY(IsWhiteout(ctx, **inode))) continue;
      }
      if (!is_upper) {
        e.ino = overlay().LowerIno(layer, e.ino);
      } else if (e.type == DT_DIR) {
        // A merged directory has its lower's number; what it merges with may be elsewhere.
        Result<RefPtr<Inode>> inode = Lookup(caller, e.name);
        e.ino = inode.ok() ? (*inode)->ino() : overlay().InoOfUpper(e.ino);
      } else {
        e.ino = overlay().InoOfUpper(e.ino);
      }
      merged.push_back(std::move(e));
    }
    return {};
  };
  if (upper() != nullptr) TRY(add(*upper(), true, 0));
  for (size_t i = 0; i < lowers().size(); ++i) TRY(add(*lowers()[i], false, layers_[i]));
  return merged;
}

Result<bool> GuestOverlayInode::IsEmptyDirectory(const VfsContext& ctx) { return TRY(MergedNames(ctx)).empty(); }

}  // namespace moat
