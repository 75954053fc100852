// Calls that make, move and remove names: mkdir(2), mknod(2), symlink(2), link(2), unlink(2), rename(2), readlink(2).
#include <fcntl.h>
#include <linux/fs.h>

#include "fs/vfs/vfs.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/path_argument.h"

namespace moat {
namespace {

Result<int64_t> Done(Result<void> r) {
  if (!r.ok()) return r.error();
  return 0;
}

// mknod(2)'s dev_t: new_decode_dev().
DeviceId DecodeDevice(uint32_t dev) { return {(dev & 0xfff00) >> 8, (dev & 0xff) | (dev >> 12 & 0xfff00)}; }

Result<int64_t> MknodAt(Task& t, int dirfd, UserString path, uint32_t mode, uint32_t dev) {
  Task::FsCall fs(t);
  PathArgument p = TRY(PathArgument::Read(t, fs, dirfd, path));
  return Done(vfs::Mknod(fs, p.at, p.name, mode, DecodeDevice(dev)));
}

Result<int64_t> MkdirAt(Task& t, int dirfd, UserString path, uint32_t mode) {
  Task::FsCall fs(t);
  PathArgument p = TRY(PathArgument::Read(t, fs, dirfd, path));
  return Done(vfs::Mkdir(fs, p.at, p.name, mode));
}

Result<int64_t> UnlinkAt(Task& t, int dirfd, UserString path, int flags) {
  if (flags & ~AT_REMOVEDIR) return kEINVAL;
  Task::FsCall fs(t);
  PathArgument p = TRY(PathArgument::Read(t, fs, dirfd, path));
  return Done((flags & AT_REMOVEDIR) ? vfs::Rmdir(fs, p.at, p.name) : vfs::Unlink(fs, p.at, p.name));
}

Result<int64_t> SymlinkAt(Task& t, UserString target, int dirfd, UserString path) {
  std::string to = TRY(target.ReadPath(t.memory()));
  if (to.empty()) return kENOENT;
  Task::FsCall fs(t);
  PathArgument p = TRY(PathArgument::Read(t, fs, dirfd, path));
  return Done(vfs::Symlink(fs, to, p.at, p.name));
}

Result<int64_t> LinkAt(Task& t, int old_fd, UserString old_path, int new_fd, UserString new_path, int flags) {
  if (flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH)) return kEINVAL;
  Task::FsCall fs(t);
  // Linking a bare descriptor needs CAP_DAC_READ_SEARCH, unless the descriptor was opened with these credentials.
  if ((flags & AT_EMPTY_PATH) && !t.cred().HasCapability(CAP_DAC_READ_SEARCH)) {
    std::string name = TRY(old_path.ReadPath(t.memory()));
    if (name.empty()) return kENOENT;
  }
  VfsPath old_place = TRY(ResolveArgument(t, fs, old_fd, old_path, flags, /*follow=*/false));
  PathArgument p = TRY(PathArgument::Read(t, fs, new_fd, new_path));
  return Done(vfs::Link(fs, old_place, p.at, p.name));
}

Result<int64_t> RenameAt(Task& t, int old_fd, UserString old_path, int new_fd, UserString new_path, unsigned flags) {
  if (flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT)) return kEINVAL;
  if ((flags & RENAME_EXCHANGE) && (flags & (RENAME_NOREPLACE | RENAME_WHITEOUT))) return kEINVAL;
  if ((flags & RENAME_WHITEOUT) && !t.cred().HasCapability(CAP_MKNOD)) return kEPERM;
  Task::FsCall fs(t);
  PathArgument from = TRY(PathArgument::Read(t, fs, old_fd, old_path));
  PathArgument to = TRY(PathArgument::Read(t, fs, new_fd, new_path));
  return Done(vfs::Rename(fs, from.at, from.name, to.at, to.name, flags));
}

Result<int64_t> ReadlinkAt(Task& t, int dirfd, UserString path, GuestAddr buf, int size) {
  if (size <= 0) return kEINVAL;
  Task::FsCall fs(t);
  std::string name = TRY(path.ReadPath(t.memory()));
  // An empty path reads the symlink that an O_PATH descriptor refers to; Linux answers ENOENT for other files.
  bool empty = name.empty();
  VfsPath place = TRY(ResolveArgument(t, fs, dirfd, path, empty ? AT_EMPTY_PATH : 0, /*follow=*/false));
  if (empty && !place.dentry->inode_ptr()->is_symlink()) return kENOENT;
  std::string target = TRY(vfs::Readlink(fs, place));
  size_t n = std::min(target.size(), static_cast<size_t>(size));
  if (t.memory().CopyOut(buf, target.data(), n) != n) return kEFAULT;
  return static_cast<int64_t>(n);
}

}  // namespace

Result<int64_t> SysMknod(Task& t, UserString path, FileMode mode, uint32_t dev) {
  return MknodAt(t, AT_FDCWD, path, Raw(mode), dev);
}
Result<int64_t> SysMknodat(Task& t, DirFdNum dirfd, UserString path, FileMode mode, uint32_t dev) {
  return MknodAt(t, ToInt(dirfd), path, Raw(mode), dev);
}
Result<int64_t> SysMkdir(Task& t, UserString path, FileMode mode) { return MkdirAt(t, AT_FDCWD, path, Raw(mode)); }
Result<int64_t> SysMkdirat(Task& t, DirFdNum dirfd, UserString path, FileMode mode) {
  return MkdirAt(t, ToInt(dirfd), path, Raw(mode));
}
Result<int64_t> SysRmdir(Task& t, UserString path) { return UnlinkAt(t, AT_FDCWD, path, AT_REMOVEDIR); }
Result<int64_t> SysUnlink(Task& t, UserString path) { return UnlinkAt(t, AT_FDCWD, path, 0); }
Result<int64_t> SysUnlinkat(Task& t, DirFdNum dirfd, UserString path, AtFlagBits flags) {
  return UnlinkAt(t, ToInt(dirfd), path, Raw(flags));
}
Result<int64_t> SysSymlink(Task& t, UserString target, UserString path) { return SymlinkAt(t, target, AT_FDCWD, path); }
Result<int64_t> SysSymlinkat(Task& t, UserString target, DirFdNum dirfd, UserString path) {
  return SymlinkAt(t, target, ToInt(dirfd), path);
}
Result<int64_t> SysLink(Task& t, UserString old_path, UserString new_path) {
  return LinkAt(t, AT_FDCWD, old_path, AT_FDCWD, new_path, 0);
}
Result<int64_t> SysLinkat(Task& t, DirFdNum old_fd, UserString old_path, DirFdNum new_fd, UserString new_path,
                          AtFlagBits flags) {
  return LinkAt(t, ToInt(old_fd), old_path, ToInt(new_fd), new_path, Raw(flags));
}
Result<int64_t> SysRename(Task& t, UserString old_path, UserString new_path) {
  return RenameAt(t, AT_FDCWD, old_path, AT_FDCWD, new_path, 0);
}
Result<int64_t> SysRenameat(Task& t, DirFdNum old_fd, UserString old_path, DirFdNum new_fd, UserString new_path) {
  return RenameAt(t, ToInt(old_fd), old_path, ToInt(new_fd), new_path, 0);
}
Result<int64_t> SysRenameat2(Task& t, DirFdNum old_fd, UserString old_path, DirFdNum new_fd, UserString new_path,
                             unsigned flags) {
  return RenameAt(t, ToInt(old_fd), old_path, ToInt(new_fd), new_path, flags);
}
Result<int64_t> SysReadlink(Task& t, UserString path, GuestAddr buf, int size) {
  return ReadlinkAt(t, AT_FDCWD, path, buf, size);
}
Result<int64_t> SysReadlinkat(Task& t, DirFdNum dirfd, UserString path, GuestAddr buf, int size) {
  return ReadlinkAt(t, ToInt(dirfd), path, buf, size);
}

}  // namespace moat
