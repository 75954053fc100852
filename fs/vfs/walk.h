// The walk along a path: path_resolution(7) with openat2(2)'s RESOLVE_* limits. For fs/vfs only; callers use vfs.h.
#ifndef MOAT_FS_VFS_WALK_H_
#define MOAT_FS_VFS_WALK_H_

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fs/vfs/vfs.h"

namespace moat::vfs {

class Walk {
 public:
  enum class Goal {
    kPlace,   // the whole path
    kParent,  // up to the last name, which is not looked at
    kCreate,  // up to the last name, looked up; a symlink there is followed when options.follow_last says so
  };
  Walk(const VfsContext& ctx, const ResolveOptions& options) : ctx_(ctx), options_(options) {}

  // `path` must outlive the walk.
  Result<void> Run(const VfsPath& at, std::string_view path, Goal goal);

  // kPlace: the place. kParent, kCreate: the parent directory.
  VfsPath& place() { return cur_; }
  // kParent, kCreate: the last name ("." and ".." included); valid while the walk lives.
  std::string_view last() const { return last_; }
  bool trailing_slash() const { return trailing_slash_; }
  // kCreate: what last() is, maybe negative; null when it is "." or ".." (then place() is it) or "/".
  RefPtr<Dentry>& child() { return child_; }

 private:
  Result<void> Start(const VfsPath& at, std::string_view path);
  Result<void> Component(std::string_view name, bool last);
  Result<void> DotDot();
  Result<void> Enter(RefPtr<Dentry> child);
  Result<void> FollowLink(Inode& link, bool last);
  Result<RefPtr<Dentry>> Child(std::string_view name);
  // Tells the file system which names follow `name` in the present text, once for as many of them as it may ask for.
  void LookAhead(std::string_view name);
  static constexpr size_t kMaxAhead = 16;
  Result<void> CheckSearch();
  bool RestIsEmpty() const;

  const VfsContext& ctx_;
  const ResolveOptions& options_;
  VfsPath cur_;
  const VfsPath* root_ = nullptr;
  VfsPath scoped_root_;  // RESOLVE_BENEATH, RESOLVE_IN_ROOT
  std::string_view rest_;
  struct Link {
    std::unique_ptr<std::string> text;  // what rest_ points into
    std::string_view outer_rest;
  };
  std::vector<Link> links_;
  int links_followed_ = 0;
  RefPtr<RefCounted> ahead_;  // what the file system learned by looking ahead
  size_t ahead_left_ = 0;     // names to come that it was told
  Goal goal_ = Goal::kPlace;
  std::string_view last_;
  RefPtr<Dentry> child_;
  bool trailing_slash_ = false;
};

}  // namespace moat::vfs

#endif  // MOAT_FS_VFS_WALK_H_
