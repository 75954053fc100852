#include "fs/vfs/walk.h"

#include <limits.h>
#include <linux/openat2.h>

#include <memory>

#include "fs/vfs/permissions.h"

#ifndef RESOLVE_CACHED
#define RESOLVE_CACHED 0x20
#endif

namespace moat::vfs {
namespace {

constexpr int kMaxLinks = 40;
constexpr uint64_t kNoSymFollow = 256;  // MS_NOSYMFOLLOW

}  // namespace

bool Walk::RestIsEmpty() const {
  auto empty = [](std::string_view s) { return s.find_first_not_of('/') == s.npos; };
  if (!empty(rest_)) return false;
  for (const Link& l : links_) {
    if (!empty(l.outer_rest)) return false;
  }
  return true;
}

Result<void> Walk::CheckSearch() {
  Inode* dir = cur_.dentry->inode_ptr();
  if (dir == nullptr) return kENOENT;
  if (!dir->is_dir()) return kENOTDIR;
  return dir->CheckPermission(ctx_, kMayExec);
}

Result<void> Walk::Start(const VfsPath& at, std::string_view path) {
  rest_ = path;
  root_ = &ctx_.root;
  if ((options_.resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT)) != 0) {
    scoped_root_ = at;
    root_ = &scoped_root_;
  }
  if (!path.empty() && path[0] == '/') {
    if ((options_.resolve & RESOLVE_BENEATH) != 0) return kEXDEV;
    if ((options_.resolve & RESOLVE_NO_XDEV) != 0 && at.mount != root_->mount) return kEXDEV;
    cur_ = *root_;
  } else {
    cur_ = at;
  }
  return {};
}

Result<void> Walk::Run(const VfsPath& at, std::string_view path, Goal goal) {
  goal_ = goal;
  if (path.empty()) {
    if (!options_.allow_empty) return kENOENT;
    cur_ = at;
    return {};
  }
  TRY(Start(at, path));
  bool finished = false;
  while (!finished) {
    size_t begin = rest_.find_first_not_of('/');
    if (begin == rest_.npos) {
      // The end of a link's text: its storage goes, the text around it goes on.
      if (links_.empty()) break;
      rest_ = links_.back().outer_rest;
      links_.pop_back();
      continue;
    }
    rest_.remove_prefix(begin);
    size_t end = std::min(rest_.find('/'), rest_.size());
    std::string_view name = rest_.substr(0, end);
    rest_.remove_prefix(end);
    bool last = rest_.find_first_not_of('/') == rest_.npos && RestIsEmpty();
    if (last) {
      trailing_slash_ = !rest_.empty();
      for (const Link& l : links_) trailing_slash_ |= !l.outer_rest.empty();
    }
    TRY(CheckSearch());
    if (last && goal_ == Goal::kParent) {
      last_ = name;
      return {};
    }
    TRY(Component(name, last));
    finished = last && child_;
  }
  if (goal_ != Goal::kPlace) {
    if (last_.empty()) last_ = "/";
    return {};
  }
  Inode* inode = cur_.dentry->inode_ptr();
  if (inode == nullptr) return kENOENT;
  if ((options_.directory_only || trailing_slash_) && !inode->is_dir()) return kENOTDIR;
  return {};
}

Result<void> Walk::Component(std::string_view name, bool last) {
  if (name == ".") {
    if (last) last_ = ".";
    return {};
  }
  if (name == "..") {
    if (last) last_ = "..";
    return DotDot();
  }
  if (name.size() > NAME_MAX) return kENAMETOOLONG;
  RefPtr<Dentry> child = TRY(Child(name));
  Inode* inode = child->inode_ptr();
  bool create = last && goal_ == Goal::kCreate;
  if (inode == nullptr) {
    if (!create) return kENOENT;
    last_ = name;
    child_ = std::move(child);
    return {};
  }
  if (inode->is_symlink() && (!last || options_.follow_last || (trailing_slash_ && !create))) {
    return FollowLink(*inode, last);
  }
  if (create) {
    last_ = name;
    child_ = std::move(child);
    return {};
  }
  return Enter(std::move(child));
}

Result<RefPtr<Dentry>> Walk::Child(std::string_view name) {
  if (RefPtr<Dentry> child = cur_.dentry->CachedChild(name)) [[likely]]
    return child;
  if ((options_.resolve & RESOLVE_CACHED) != 0) return kEAGAIN;
  LookAhead(name);
  return cur_.dentry->LookupChild(ctx_, name);
}

void Walk::LookAhead(std::string_view name) {
  if (ahead_left_ > 0) {
    --ahead_left_;
    return;
  }
  std::string_view names[kMaxAhead] = {name};
  size_t count = 1;
  std::string_view rest = rest_;
  while (count < kMaxAhead) {
    size_t begin = rest.find_first_not_of('/');
    if (begin == rest.npos) break;
    rest.remove_prefix(begin);
    size_t end = std::min(rest.find('/'), rest.size());
    std::string_view next = rest.substr(0, end);
    if (next == "." || next == ".." || next.size() > NAME_MAX) break;
    names[count++] = next;
    rest.remove_prefix(end);
  }
  // The last name of kParent is looked up by the caller, under the directory's lock.
  if (goal_ == Goal::kParent && rest.find_first_not_of('/') == rest.npos) --count;
  if (count < 2) return;
  ahead_.reset();
  ahead_ = cur_.dentry->inode_ptr()->LookAhead(ctx_, std::span(names, count));
  ahead_left_ = count - 1;
}

Result<void> Walk::Enter(RefPtr<Dentry> child) {
  cur_.dentry = std::move(child);
  if (cur_.dentry->mount_count.load(std::memory_order_relaxed) != 0 && ctx_.mounts.Descend(cur_)) {
    if ((options_.resolve & RESOLVE_NO_XDEV) != 0) return kEXDEV;
  }
  return {};
}

Result<void> Walk::DotDot() {
  for (;;) {
    if (cur_ == *root_) {
      return (options_.resolve & RESOLVE_BENEATH) != 0 ? Result<void>(kEXDEV) : Result<void>();
    }
    if (cur_.dentry != cur_.mount->root()) break;
    if (!ctx_.mounts.Ascend(cur_)) return {};  // the top of a namespace or of a detached tree
    if ((options_.resolve & RESOLVE_NO_XDEV) != 0) return kEXDEV;
  }
  RefPtr<Dentry> parent = cur_.dentry->parent();
  if (!parent) return {};
  return Enter(std::move(parent));
}

Result<void> Walk::FollowLink(Inode& link, bool last) {
  if (++links_followed_ > kMaxLinks) return kELOOP;
  ahead_left_ = 0;
  if ((options_.resolve & RESOLVE_NO_SYMLINKS) != 0) return kELOOP;
  if ((cur_.mount->flags() & kNoSymFollow) != 0) return kELOOP;
  RefPtr<Inode> keep(&link);
  if (last) TRY(MayFollowSymlink(ctx_, *cur_.dentry->inode_ptr(), link));
  Result<VfsPath> magic = link.FollowMagicLink(ctx_);
  if (magic.ok()) {
    if ((options_.resolve & RESOLVE_NO_MAGICLINKS) != 0) return kELOOP;
    if ((options_.resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT)) != 0) return kEXDEV;
    if ((options_.resolve & RESOLVE_NO_XDEV) != 0 && magic->mount != cur_.mount) return kEXDEV;
    cur_ = std::move(magic).value();
    if (last && goal_ == Goal::kCreate) {
      // The link's end exists: it is both the place and the child.
      last_ = "/";
      child_ = cur_.dentry;
    }
    return {};
  }
  if (magic.error() != kENOSYS) return magic.error();
  std::string text = TRY(link.Readlink(ctx_));
  if (text.empty()) return kENOENT;
  if (text[0] == '/') {
    if ((options_.resolve & RESOLVE_BENEATH) != 0) return kEXDEV;
    if ((options_.resolve & RESOLVE_NO_XDEV) != 0 && root_->mount != cur_.mount) return kEXDEV;
    cur_ = *root_;
  }
  links_.push_back({std::make_unique<std::string>(std::move(text)), rest_});
  rest_ = *links_.back().text;
  return {};
}

}  // namespace moat::vfs
