// The mount options of a guest's overlay. Source: Documentation/filesystems/overlayfs.rst.
#ifndef MOAT_FS_OVERLAY_GUEST_OVERLAY_OPTIONS_H_
#define MOAT_FS_OVERLAY_GUEST_OVERLAY_OPTIONS_H_

#include <string>
#include <string_view>
#include <vector>

#include "fs/vfs/filesystem.h"
#include "fs/vfs/vfs.h"

namespace moat {

struct GuestOverlayOptions {
  enum class Redirect { kNoFollow, kFollow, kOn };
  struct Layer {
    std::string text;  // as the guest wrote it
    VfsPath place;     // a directory
  };
  std::vector<Layer> lowers;  // top to bottom, without data-only layers
  std::string lowerdir;       // the text of lowerdir=; empty when the layers came one by one by lowerdir+
  Layer upper, work;          // no place: without
  Redirect redirect = Redirect::kFollow;
  bool user_xattr = false;
  bool is_volatile = false;
  bool default_permissions = false;
  std::string xino;  // as given; inode numbers are unique and constant without it

  // Resolves the layers' paths on behalf of `ctx`. kEINVAL, and what path resolution answers.
  static Result<GuestOverlayOptions> Parse(const VfsContext& ctx, const MountRequest& request);
  // fsconfig(2)'s look at one option.
  static Result<void> CheckOne(const VfsContext& ctx, const MountParameter& p);
  // "lowerdir=...,upperdir=...", as /proc/mounts shows it.
  std::string Show() const;
};

}  // namespace moat

#endif  // MOAT_FS_OVERLAY_GUEST_OVERLAY_OPTIONS_H_
