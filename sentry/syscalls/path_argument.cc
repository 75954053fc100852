#include "sentry/syscalls/path_argument.h"

namespace moat {

Result<PathArgument> PathArgument::Read(Task& t, const VfsContext& ctx, int dirfd, UserString path) {
  PathArgument arg;
  arg.name = TRY(path.ReadPath(t.memory()));
  bool absolute = !arg.name.empty() && arg.name[0] == '/';
  arg.at = absolute ? ctx.root : dirfd == AT_FDCWD ? ctx.cwd : TRY(t.DirFd(dirfd));
  return arg;
}

Result<VfsPath> ResolveArgument(Task& t, const VfsContext& ctx, int dirfd, UserString path, int at_flags, bool follow) {
  if (at_flags & AT_SYMLINK_NOFOLLOW) follow = false;
  if (at_flags & AT_SYMLINK_FOLLOW) follow = true;
  std::string name;
  // Since Linux 6.11 a null pointer is an empty path where that is allowed.
  if (path || !(at_flags & AT_EMPTY_PATH)) name = TRY(path.ReadPath(t.memory()));
  if (name.empty()) {
    if (!(at_flags & AT_EMPTY_PATH)) return kENOENT;
    if (dirfd == AT_FDCWD) return ctx.cwd;
    return TRY(t.GetFile(dirfd))->path();
  }
  bool absolute = name[0] == '/';
  VfsPath at = absolute ? ctx.root : dirfd == AT_FDCWD ? ctx.cwd : TRY(t.DirFd(dirfd));
  vfs::ResolveOptions options;
  options.follow_last = follow;
  return vfs::Resolve(ctx, at, name, options);
}

}  // namespace moat
