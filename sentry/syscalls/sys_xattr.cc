// Extended attributes: setxattr(2), getxattr(2), listxattr(2), removexattr(2), each by path, by path without following
// a last symlink, and by descriptor. Source: xattr(7).
#include <fcntl.h>
#include <linux/limits.h>
#include <sys/xattr.h>

#include "fs/vfs/vfs.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/path_argument.h"

namespace moat {
namespace {

Result<std::string> ReadName(Task& t, UserString name) {
  Result<std::string> s = name.Read(t.memory(), XATTR_NAME_MAX + 1);
  if (!s.ok()) return s.error() == kENAMETOOLONG ? kERANGE : s.error();
  if (s->empty()) return kERANGE;
  return s;
}

Result<int64_t> Set(Task& t, const VfsContext& ctx, const VfsPath& place, UserString name, GuestAddr value, size_t size,
                    int flags) {
  if (flags & ~(XATTR_CREATE | XATTR_REPLACE)) return kEINVAL;
  std::string key = TRY(ReadName(t, name));
  if (size > XATTR_SIZE_MAX) return kE2BIG;
  std::string bytes(size, '\0');
  if (size != 0 && t.memory().CopyIn(bytes.data(), value, size) != size) return kEFAULT;
  TRY(vfs::SetXattr(ctx, place, key, bytes, flags));
  return 0;
}

Result<int64_t> CopyBytes(Task& t, const std::string& bytes, GuestAddr out, size_t size) {
  if (size == 0) return static_cast<int64_t>(bytes.size());
  if (bytes.size() > size) return kERANGE;
  if (t.memory().CopyOut(out, bytes.data(), bytes.size()) != bytes.size()) return kEFAULT;
  return static_cast<int64_t>(bytes.size());
}

Result<int64_t> Get(Task& t, const VfsContext& ctx, const VfsPath& place, UserString name, GuestAddr out, size_t size) {
  return CopyBytes(t, TRY(vfs::GetXattr(ctx, place, TRY(ReadName(t, name)))), out, size);
}

Result<int64_t> List(Task& t, const VfsContext& ctx, const VfsPath& place, GuestAddr out, size_t size) {
  std::string all;
  for (const std::string& name : TRY(vfs::ListXattr(ctx, place))) all.append(name).push_back('\0');
  if (all.size() > XATTR_LIST_MAX) return kE2BIG;
  return CopyBytes(t, all, out, size);
}

Result<int64_t> Remove(Task& t, const VfsContext& ctx, const VfsPath& place, UserString name) {
  TRY(vfs::RemoveXattr(ctx, place, TRY(ReadName(t, name))));
  return 0;
}

Result<VfsPath> Place(Task& t, const VfsContext& ctx, UserString path, bool follow) {
  return ResolveArgument(t, ctx, AT_FDCWD, path, 0, follow);
}
Result<VfsPath> Place(Task& t, FdNum fd) { return TRY(t.GetFileNotPath(ToInt(fd)))->path(); }

}  // namespace

Result<int64_t> SysSetxattr(Task& t, UserString path, UserString name, GuestAddr value, size_t size, int flags) {
  Task::FsCall fs(t);
  return Set(t, fs, TRY(Place(t, fs, path, true)), name, value, size, flags);
}
Result<int64_t> SysLsetxattr(Task& t, UserString path, UserString name, GuestAddr value, size_t size, int flags) {
  Task::FsCall fs(t);
  return Set(t, fs, TRY(Place(t, fs, path, false)), name, value, size, flags);
}
Result<int64_t> SysFsetxattr(Task& t, FdNum fd, UserString name, GuestAddr value, size_t size, int flags) {
  Task::FsCall fs(t);
  return Set(t, fs, TRY(Place(t, fd)), name, value, size, flags);
}
Result<int64_t> SysGetxattr(Task& t, UserString path, UserString name, GuestAddr out, size_t size) {
  Task::FsCall fs(t);
  return Get(t, fs, TRY(Place(t, fs, path, true)), name, out, size);
}
Result<int64_t> SysLgetxattr(Task& t, UserString path, UserString name, GuestAddr out, size_t size) {
  Task::FsCall fs(t);
  return Get(t, fs, TRY(Place(t, fs, path, false)), name, out, size);
}
Result<int64_t> SysFgetxattr(Task& t, FdNum fd, UserString name, GuestAddr out, size_t size) {
  Task::FsCall fs(t);
  return Get(t, fs, TRY(Place(t, fd)), name, out, size);
}
Result<int64_t> SysListxattr(Task& t, UserString path, GuestAddr out, size_t size) {
  Task::FsCall fs(t);
  return List(t, fs, TRY(Place(t, fs, path, true)), out, size);
}
Result<int64_t> SysLlistxattr(Task& t, UserString path, GuestAddr out, size_t size) {
  Task::FsCall fs(t);
  return List(t, fs, TRY(Place(t, fs, path, false)), out, size);
}
Result<int64_t> SysFlistxattr(Task& t, FdNum fd, GuestAddr out, size_t size) {
  Task::FsCall fs(t);
  return List(t, fs, TRY(Place(t, fd)), out, size);
}
Result<int64_t> SysRemovexattr(Task& t, UserString path, UserString name) {
  Task::FsCall fs(t);
  return Remove(t, fs, TRY(Place(t, fs, path, true)), name);
}
Result<int64_t> SysLremovexattr(Task& t, UserString path, UserString name) {
  Task::FsCall fs(t);
  return Remove(t, fs, TRY(Place(t, fs, path, false)), name);
}
Result<int64_t> SysFremovexattr(Task& t, FdNum fd, UserString name) {
  Task::FsCall fs(t);
  return Remove(t, fs, TRY(Place(t, fd)), name);
}

}  // namespace moat
