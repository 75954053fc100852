// open(2), openat2(2), creat(2).
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/epoll.h>

#include <cstring>

#include "fs/vfs/vfs.h"
#include "sentry/kernel/blocking.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/handlers.h"

#ifndef RESOLVE_CACHED
#define RESOLVE_CACHED 0x20
#endif

namespace moat {
namespace {

constexpr int kKernelTmpfile = 020000000;  // __O_TMPFILE
constexpr int kKnownOpenFlags = O_ACCMODE | O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_APPEND | O_NONBLOCK | O_DSYNC |
                                O_ASYNC | O_DIRECT | 0100000 /* O_LARGEFILE */ | O_DIRECTORY | O_NOFOLLOW | O_NOATIME |
                                O_CLOEXEC | O_SYNC | O_PATH | kKernelTmpfile;
constexpr uint64_t kKnownResolve =
    RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH | RESOLVE_IN_ROOT | RESOLVE_CACHED;

Result<int64_t> OpenAt(Task& t, int dirfd, UserString path, vfs::OpenOptions options) {
  std::string name = TRY(path.ReadPath(t.memory()));
  bool absolute = !name.empty() && name[0] == '/' && !(options.resolve & RESOLVE_IN_ROOT);
  Task::FsCall fs(t);
  VfsPath at = absolute ? fs.ctx().root : TRY(t.DirFd(dirfd));
  bool cloexec = (options.flags & O_CLOEXEC) != 0;
  auto open = [&] { return vfs::Open(fs, at, name, options); };
  RefPtr<File> file = TRY((options.flags & O_NONBLOCK) ? open() : AfterLeases(t, fs, open));
  // A FIFO waits for its other side; a signal ends that, and the description with it.
  if (!file->nonblocking()) {
    TRY(BlockingOp(t, file->wait_queue(), EPOLLIN | EPOLLOUT, kNoDeadline, [&] { return file->FinishOpen(fs); }));
  }
  return TRY(t.InstallFd(std::move(file), cloexec));
}

// open(2) ignores what it does not know, and what O_PATH makes meaningless.
vfs::OpenOptions OldStyle(int flags, uint32_t mode) {
  flags &= kKnownOpenFlags;
  if (flags & O_PATH) flags &= O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
  bool creates = (flags & O_CREAT) || (flags & kKernelTmpfile);
  return {flags, creates ? mode & 07777 : 0, 0};
}

}  // namespace

Result<int64_t> SysOpen(Task& t, UserString path, OpenFlagBits flags, FileMode mode) {
  return OpenAt(t, AT_FDCWD, path, OldStyle(Raw(flags), Raw(mode)));
}

Result<int64_t> SysOpenat(Task& t, DirFdNum dirfd, UserString path, OpenFlagBits flags, FileMode mode) {
  return OpenAt(t, ToInt(dirfd), path, OldStyle(Raw(flags), Raw(mode)));
}

Result<int64_t> SysCreat(Task& t, UserString path, FileMode mode) {
  return OpenAt(t, AT_FDCWD, path, {O_CREAT | O_WRONLY | O_TRUNC, Raw(mode) & 07777, 0});
}

// openat2(2) is strict where open(2) is lax.
Result<int64_t> SysOpenat2(Task& t, DirFdNum dirfd, UserString path, GuestAddr how_addr, size_t size) {
  if (size < sizeof(open_how)) return kEINVAL;
  if (size > kPageSize) return kE2BIG;
  std::byte raw[kPageSize] = {};
  if (t.memory().CopyIn(raw, how_addr, size) != size) return kEFAULT;
  for (size_t i = sizeof(open_how); i < size; ++i) {
    if (raw[i] != std::byte{0}) return kE2BIG;
  }
  open_how how;
  memcpy(&how, raw, sizeof how);
  if (how.flags & ~static_cast<uint64_t>(kKnownOpenFlags)) return kEINVAL;
  if (how.resolve & ~kKnownResolve) return kEINVAL;
  if ((how.resolve & RESOLVE_BENEATH) && (how.resolve & RESOLVE_IN_ROOT)) return kEINVAL;
  int flags = static_cast<int>(how.flags);
  bool creates = (flags & O_CREAT) || (flags & kKernelTmpfile);
  if (how.mode & ~07777ull || (how.mode != 0 && !creates)) return kEINVAL;
  if ((flags & O_PATH) && (flags & ~(O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC))) return kEINVAL;
  if ((how.resolve & RESOLVE_CACHED) && (flags & (O_TRUNC | O_CREAT | kKernelTmpfile))) return kEAGAIN;
  return OpenAt(t, ToInt(dirfd), path, {flags, static_cast<uint32_t>(how.mode), how.resolve});
}

}  // namespace moat
