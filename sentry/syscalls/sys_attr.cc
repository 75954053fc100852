// Attributes: chmod(2), chown(2), utimensat(2), truncate(2), fallocate(2), umask(2) and their forms.
#include <fcntl.h>

#include "fs/vfs/notify.h"
#include "fs/vfs/permissions.h"
#include "fs/vfs/vfs.h"
#include "platform/abi/stat.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/timekeeping.h"
#include "sentry/syscalls/file_io.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/path_argument.h"

namespace moat {
namespace {

Result<int64_t> Change(const VfsContext& ctx, const VfsPath& place, const AttrChange& change) {
  TRY(vfs::SetAttr(ctx, place, change));
  return 0;
}

Result<int64_t> ChmodAt(Task& t, int dirfd, UserString path, uint32_t mode, int flags) {
  if (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) return kEINVAL;
  Task::FsCall fs(t);
  VfsPath place = TRY(ResolveArgument(t, fs, dirfd, path, flags));
  if (place.dentry->inode_ptr()->is_symlink()) return kEOPNOTSUPP;
  AttrChange change;
  change.mode = mode & 07777;
  return Change(fs, place, change);
}

// The ids of chown(2): -1 leaves one alone; kEINVAL for an id without a mapping.
Result<AttrChange> OwnerChange(Task& t, uint32_t uid, uint32_t gid) {
  AttrChange change;
  if (uid != kNoId) {
    change.uid = t.user_ns().ToKuid(uid);
    if (*change.uid == kNoId) return kEINVAL;
  }
  if (gid != kNoId) {
    change.gid = t.user_ns().ToKgid(gid);
    if (*change.gid == kNoId) return kEINVAL;
  }
  return change;
}

Result<int64_t> ChownAt(Task& t, int dirfd, UserString path, uint32_t uid, uint32_t gid, int flags) {
  if (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) return kEINVAL;
  Task::FsCall fs(t);
  VfsPath place = TRY(ResolveArgument(t, fs, dirfd, path, flags));
  return Change(fs, place, TRY(OwnerChange(t, uid, gid)));
}

// One element of utimensat's array.
Result<void> TimeChange(const abi::Timespec& ts, std::optional<Nanos>& time, bool& now) {
  if (ts.tv_nsec == UTIME_OMIT) return {};
  if (ts.tv_nsec == UTIME_NOW) {
    now = true;
    return {};
  }
  if (ts.tv_nsec < 0 || ts.tv_nsec >= kNanosPerSec) return kEINVAL;
  Nanos value;
  if (__builtin_mul_overflow(ts.tv_sec, kNanosPerSec, &value) || __builtin_add_overflow(value, ts.tv_nsec, &value)) {
    value = ts.tv_sec < 0 ? INT64_MIN : INT64_MAX;  // Linux clamps to what the file system can store
  }
  time = value;
  return {};
}

// A null path changes the file of `dirfd` itself (futimens). Null times: both now.
Result<int64_t> SetTimes(Task& t, int dirfd, UserString path, const abi::Timespec* times, int flags) {
  if (flags & ~(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) return kEINVAL;
  AttrChange change;
  if (times == nullptr) {
    change.atime_now = change.mtime_now = true;
  } else {
    TRY(TimeChange(times[0], change.atime, change.atime_now));
    TRY(TimeChange(times[1], change.mtime, change.mtime_now));
    if (times[0].tv_nsec == UTIME_OMIT && times[1].tv_nsec == UTIME_OMIT) return 0;
  }
  Task::FsCall fs(t);
  if (!path && dirfd != AT_FDCWD) {
    if (flags != 0) return kEINVAL;
    return Change(fs, TRY(t.GetFileNotPath(dirfd))->path(), change);
  }
  return Change(fs, TRY(ResolveArgument(t, fs, dirfd, path, flags)), change);
}

Result<int64_t> SetTimevals(Task& t, int dirfd, UserString path, UserIn<abi::Timeval> times) {
  if (!times) return SetTimes(t, dirfd, path, nullptr, 0);
  abi::Timespec ts[2];
  for (size_t i = 0; i < 2; ++i) {
    abi::Timeval tv = TRY(times.ReadAt(t.memory(), i));
    if (tv.tv_usec < 0 || tv.tv_usec >= 1'000'000) return kEINVAL;
    ts[i] = {tv.tv_sec, tv.tv_usec * 1000};
  }
  return SetTimes(t, dirfd, path, ts, 0);
}

// RLIMIT_FSIZE for a call that makes a file this large.
Result<void> CheckSizeLimit(Task& t, const VfsContext& ctx, int64_t size) {
  if (static_cast<uint64_t>(size) <= ctx.file_size_limit) return {};
  RaiseWriteSignal(t, kEFBIG);
  return kEFBIG;
}

}  // namespace

Result<int64_t> SysChmod(Task& t, UserString path, FileMode mode) { return ChmodAt(t, AT_FDCWD, path, Raw(mode), 0); }
Result<int64_t> SysFchmodat(Task& t, DirFdNum dirfd, UserString path, FileMode mode) {
  return ChmodAt(t, ToInt(dirfd), path, Raw(mode), 0);
}
Result<int64_t> SysFchmodat2(Task& t, DirFdNum dirfd, UserString path, FileMode mode, AtFlagBits flags) {
  return ChmodAt(t, ToInt(dirfd), path, Raw(mode), Raw(flags));
}
Result<int64_t> SysFchmod(Task& t, FdNum fd, FileMode mode) {
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  Task::FsCall fs(t);
  AttrChange change;
  change.mode = Raw(mode) & 07777;
  return Change(fs, file->path(), change);
}

Result<int64_t> SysChown(Task& t, UserString path, uint32_t uid, uint32_t gid) {
  return ChownAt(t, AT_FDCWD, path, uid, gid, 0);
}
Result<int64_t> SysLchown(Task& t, UserString path, uint32_t uid, uint32_t gid) {
  return ChownAt(t, AT_FDCWD, path, uid, gid, AT_SYMLINK_NOFOLLOW);
}
Result<int64_t> SysFchownat(Task& t, DirFdNum dirfd, UserString path, uint32_t uid, uint32_t gid, AtFlagBits flags) {
  return ChownAt(t, ToInt(dirfd), path, uid, gid, Raw(flags));
}
Result<int64_t> SysFchown(Task& t, FdNum fd, uint32_t uid, uint32_t gid) {
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  Task::FsCall fs(t);
  return Change(fs, file->path(), TRY(OwnerChange(t, uid, gid)));
}

Result<int64_t> SysUtimensat(Task& t, DirFdNum dirfd, UserString path, UserIn<abi::Timespec> times, AtFlagBits flags) {
  if (!times) return SetTimes(t, ToInt(dirfd), path, nullptr, Raw(flags));
  abi::Timespec ts[2] = {TRY(times.ReadAt(t.memory(), 0)), TRY(times.ReadAt(t.memory(), 1))};
  return SetTimes(t, ToInt(dirfd), path, ts, Raw(flags));
}
Result<int64_t> SysFutimesat(Task& t, DirFdNum dirfd, UserString path, UserIn<abi::Timeval> times) {
  return SetTimevals(t, ToInt(dirfd), path, times);
}
Result<int64_t> SysUtimes(Task& t, UserString path, UserIn<abi::Timeval> times) {
  return SetTimevals(t, AT_FDCWD, path, times);
}
Result<int64_t> SysUtime(Task& t, UserString path, UserIn<abi::Utimbuf> times) {
  if (!times) return SetTimes(t, AT_FDCWD, path, nullptr, 0);
  abi::Utimbuf u = TRY(times.Read(t.memory()));
  abi::Timespec ts[2] = {{u.actime, 0}, {u.modtime, 0}};
  return SetTimes(t, AT_FDCWD, path, ts, 0);
}

Result<int64_t> SysTruncate(Task& t, UserString path, int64_t length) {
  if (length < 0) return kEINVAL;
  Task::FsCall fs(t);
  VfsPath place = TRY(ResolveArgument(t, fs, AT_FDCWD, path, 0));
  Inode* inode = place.dentry->inode_ptr();
  if (inode->is_dir()) return kEISDIR;
  if (inode->type() != S_IFREG) return kEINVAL;
  TRY(vfs::Access(fs, place, 2));
  TRY(inode->GetWriteAccess());  // ETXTBSY
  Result<int64_t> r = AfterLeases(t, fs, [&]() -> Result<int64_t> {
    TRY(CheckSizeLimit(t, fs, length));
    AttrChange change;
    change.size = static_cast<uint64_t>(length);
    return Change(fs, place, change);
  });
  inode->PutWriteAccess();
  return r;
}

Result<int64_t> SysFtruncate(Task& t, FdNum fd, int64_t length) {
  if (length < 0) return kEINVAL;
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  if (!file->writable() || file->inode()->type() != S_IFREG) return kEINVAL;
  Task::FsCall fs(t);
  TRY(CheckSizeLimit(t, fs, length));
  // The descriptor is the permission: the inode is changed without a look at its mode, and it has broken the leases.
  TRY(RemovePrivileges(fs, *file->inode()));
  AttrChange change;
  change.size = static_cast<uint64_t>(length);
  TRY(file->inode()->SetAttr(fs, change));
  if (notify::AnyWatch()) notify::EmitOnPath(file->path(), IN_MODIFY);
  return 0;
}

Result<int64_t> SysFallocate(Task& t, FdNum fd, int mode, int64_t offset, int64_t length) {
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  if (offset < 0 || length <= 0) return kEINVAL;
  int64_t end;
  if (__builtin_add_overflow(offset, length, &end)) return kEFBIG;
  if (!file->writable()) return kEBADF;
  uint32_t type = file->inode()->type();
  if (type == S_IFIFO) return kESPIPE;
  if (type == S_IFDIR) return kEISDIR;
  if (type != S_IFREG && type != S_IFBLK) return kENODEV;
  Task::FsCall fs(t);
  if (!(mode & FALLOC_FL_KEEP_SIZE)) TRY(CheckSizeLimit(t, fs, end));
  TRY(file->Allocate(fs, mode, offset, length));
  return 0;
}

Result<int64_t> SysUmask(Task& t, FileMode mask) { return t.fs().exchange_umask(Raw(mask) & 0777); }

}  // namespace moat
