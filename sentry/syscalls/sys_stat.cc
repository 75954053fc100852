// stat(2), statx(2), access(2), statfs(2) and their forms.
#include <fcntl.h>
#include <linux/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fs/vfs/vfs.h"
#include "platform/abi/stat.h"
#include "sentry/kernel/timekeeping.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/path_argument.h"

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000
#endif

namespace moat {
namespace {

dev_t Encode(DeviceId d) { return makedev(d.major, d.minor); }

// Dates before 1970 have a negative second and a positive fraction.
abi::Timespec FileTime(Nanos n) {
  int64_t sec = n / kNanosPerSec, nsec = n % kNanosPerSec;
  return nsec < 0 ? abi::Timespec{sec - 1, nsec + kNanosPerSec} : abi::Timespec{sec, nsec};
}

abi::Stat ToStat(Task& t, const Kstat& k) {
  abi::Stat s{};
  s.st_dev = Encode(k.dev);
  s.st_ino = k.ino;
  s.st_nlink = k.nlink;
  s.st_mode = k.mode;
  s.st_uid = t.user_ns().FromKuid(k.uid);
  s.st_gid = t.user_ns().FromKgid(k.gid);
  s.st_rdev = Encode(k.rdev);
  s.st_size = static_cast<off_t>(k.size);
  s.st_blksize = k.blksize;
  s.st_blocks = static_cast<blkcnt_t>(k.blocks);
  s.st_atim = FileTime(k.atime);
  s.st_mtim = FileTime(k.mtime);
  s.st_ctim = FileTime(k.ctime);
  return s;
}

statx_timestamp ToStatxTime(Nanos n) {
  statx_timestamp ts{};
  int64_t sec = n / kNanosPerSec, nsec = n % kNanosPerSec;
  if (nsec < 0) {
    --sec;
    nsec += kNanosPerSec;
  }
  ts.tv_sec = sec;
  ts.tv_nsec = static_cast<uint32_t>(nsec);
  return ts;
}

abi::Statx ToStatx(Task& t, const Kstat& k) {
  abi::Statx x{};
  x.stx_mask = STATX_BASIC_STATS | STATX_MNT_ID | (k.has_btime ? STATX_BTIME : 0);
  x.stx_blksize = k.blksize;
  x.stx_attributes = k.attributes | (k.mount_root ? STATX_ATTR_MOUNT_ROOT : 0);
  x.stx_attributes_mask = STATX_ATTR_MOUNT_ROOT | k.attributes;
  x.stx_nlink = k.nlink;
  x.stx_uid = t.user_ns().FromKuid(k.uid);
  x.stx_gid = t.user_ns().FromKgid(k.gid);
  x.stx_mode = static_cast<uint16_t>(k.mode);
  x.stx_ino = k.ino;
  x.stx_size = k.size;
  x.stx_blocks = k.blocks;
  x.stx_atime = ToStatxTime(k.atime);
  x.stx_mtime = ToStatxTime(k.mtime);
  x.stx_ctime = ToStatxTime(k.ctime);
  if (k.has_btime) x.stx_btime = ToStatxTime(k.btime);
  x.stx_rdev_major = k.rdev.major;
  x.stx_rdev_minor = k.rdev.minor;
  x.stx_dev_major = k.dev.major;
  x.stx_dev_minor = k.dev.minor;
  x.stx_mnt_id = k.mount_id;
  return x;
}

// The attributes of what a descriptor refers to: the path's, or a pseudo file's own.
Result<Kstat> StatFile(const VfsContext& ctx, File& file) {
  if (file.path() && !file.path().dentry->IsAnonymous()) return vfs::Stat(ctx, file.path());
  return file.GetAttr();
}

Result<Kstat> StatArgument(Task& t, int dirfd, UserString path, int flags) {
  Task::FsCall fs(t);
  if (flags & AT_EMPTY_PATH) {
    std::string name;
    if (path) name = TRY(path.ReadPath(t.memory()));
    if (name.empty() && dirfd != AT_FDCWD) return StatFile(fs, *TRY(t.GetFile(dirfd)));
  }
  return vfs::Stat(fs, TRY(ResolveArgument(t, fs, dirfd, path, flags)));
}

Result<int64_t> WriteStat(Task& t, const Kstat& k, UserOut<abi::Stat> out) {
  TRY(out.Write(t.memory(), ToStat(t, k)));
  return 0;
}

Result<int64_t> AccessAt(Task& t, int dirfd, UserString path, int mode, int flags) {
  if (mode & ~(R_OK | W_OK | X_OK)) return kEINVAL;
  if (flags & ~(AT_EACCESS | AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)) return kEINVAL;
  RefPtr<const Credentials> cred = t.credentials();
  if (!(flags & AT_EACCESS)) {
    // The real ids, and the capabilities that a program of the real user would have.
    RefPtr<Credentials> real = cred->Copy();
    real->fsuid = real->euid = cred->uid;
    real->fsgid = real->egid = cred->gid;
    real->effective = cred->uid == cred->user_ns->ToKuid(0) ? cred->permitted : CapabilitySet::None();
    cred = std::move(real);
  }
  Task::FsCall fs(t, *cred);
  VfsPath place = TRY(ResolveArgument(t, fs, dirfd, path, flags));
  TRY(vfs::Access(fs, place, mode));
  return 0;
}

Result<int64_t> WriteStatFs(Task& t, const VfsPath& place, UserOut<abi::StatFs> out) {
  // A pipe's or socket's file system is not that of the mount which all of them share.
  FsStat s = TRY(place.dentry->inode_ptr()->fs().StatFs());
  abi::StatFs o{};
  o.f_type = static_cast<__fsword_t>(s.type);
  o.f_bsize = o.f_frsize = static_cast<__fsword_t>(s.block_size);
  o.f_blocks = s.blocks;
  o.f_bfree = s.blocks_free;
  o.f_bavail = s.blocks_available;
  o.f_files = s.files;
  o.f_ffree = s.files_free;
  memcpy(&o.f_fsid, &s.fsid, sizeof o.f_fsid);
  o.f_namelen = static_cast<__fsword_t>(s.name_length);
  constexpr __fsword_t kStValid = 0x20;
  // MS_RDONLY..MS_NOEXEC and the atime bits have the values of ST_*.
  constexpr uint64_t kShared = 1 | 2 | 4 | 8 | 1024 | 2048;
  uint64_t mount_flags = place.mount->flags() & kShared;
  if (place.mount->flags() & (1 << 21)) mount_flags |= 4096;  // MS_RELATIME -> ST_RELATIME
  if (place.mount->flags() & (1 << 8)) mount_flags |= 8192;   // MS_NOSYMFOLLOW -> ST_NOSYMFOLLOW
  o.f_flags = static_cast<__fsword_t>(mount_flags | s.flags) | kStValid;
  TRY(out.Write(t.memory(), o));
  return 0;
}

}  // namespace

Result<int64_t> SysStat(Task& t, UserString path, UserOut<abi::Stat> out) {
  return WriteStat(t, TRY(StatArgument(t, AT_FDCWD, path, 0)), out);
}

Result<int64_t> SysLstat(Task& t, UserString path, UserOut<abi::Stat> out) {
  return WriteStat(t, TRY(StatArgument(t, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW)), out);
}

Result<int64_t> SysFstat(Task& t, FdNum fd, UserOut<abi::Stat> out) {
  RefPtr<File> file = TRY(t.GetFile(ToInt(fd)));
  Task::FsCall fs(t);
  return WriteStat(t, TRY(StatFile(fs, *file)), out);
}

Result<int64_t> SysNewfstatat(Task& t, DirFdNum dirfd, UserString path, UserOut<abi::Stat> out, AtFlagBits flags) {
  if (Raw(flags) & ~(AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH)) return kEINVAL;
  return WriteStat(t, TRY(StatArgument(t, ToInt(dirfd), path, Raw(flags))), out);
}

Result<int64_t> SysStatx(Task& t, DirFdNum dirfd, UserString path, AtFlagBits at_flags, unsigned mask,
                         UserOut<abi::Statx> out) {
  int flags = Raw(at_flags);
  constexpr int kKnown = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH | AT_STATX_SYNC_TYPE;
  if ((flags & ~kKnown) || (flags & AT_STATX_SYNC_TYPE) == AT_STATX_SYNC_TYPE) return kEINVAL;
  if (mask & STATX__RESERVED) return kEINVAL;
  abi::Statx x = ToStatx(t, TRY(StatArgument(t, ToInt(dirfd), path, flags)));
  if (mask & STATX_MNT_ID_UNIQUE) {
    x.stx_mask = (x.stx_mask & ~STATX_MNT_ID) | STATX_MNT_ID_UNIQUE;
    x.stx_mnt_id += Mount::kUniqueIdOffset;
  }
  TRY(out.Write(t.memory(), x));
  return 0;
}

Result<int64_t> SysAccess(Task& t, UserString path, int mode) { return AccessAt(t, AT_FDCWD, path, mode, 0); }

Result<int64_t> SysFaccessat(Task& t, DirFdNum dirfd, UserString path, int mode) {
  return AccessAt(t, ToInt(dirfd), path, mode, 0);
}

Result<int64_t> SysFaccessat2(Task& t, DirFdNum dirfd, UserString path, int mode, AtFlagBits flags) {
  return AccessAt(t, ToInt(dirfd), path, mode, Raw(flags));
}

Result<int64_t> SysStatfs(Task& t, UserString path, UserOut<abi::StatFs> out) {
  Task::FsCall fs(t);
  return WriteStatFs(t, TRY(ResolveArgument(t, fs, AT_FDCWD, path, 0)), out);
}

Result<int64_t> SysFstatfs(Task& t, FdNum fd, UserOut<abi::StatFs> out) {
  return WriteStatFs(t, TRY(t.GetFile(ToInt(fd)))->path(), out);
}

}  // namespace moat
