// fcntl(2) and flock(2).
#include <fcntl.h>
#include <poll.h>
#include <sys/file.h>

#include "fs/pipe/pipe.h"
#include "fs/tmpfs/memfd.h"
#include "fs/vfs/file_locks.h"
#include "fs/vfs/vfs.h"
#include "platform/abi/fcntl.h"
#include "sentry/kernel/async_io.h"
#include "sentry/kernel/blocking.h"
#include "sentry/kernel/directory_notify.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/syscalls/handlers.h"

#ifndef F_DUPFD_QUERY
#define F_DUPFD_QUERY (1024 + 3)
#endif
#ifndef F_CREATED_QUERY
#define F_CREATED_QUERY (1024 + 4)
#endif

namespace moat {
namespace {

// What F_SETFL may change, besides O_ASYNC.
constexpr int kSettable = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME;

// struct flock -> [start, end], by l_whence. kEINVAL, kEOVERFLOW.
Result<RangeLock> ToRange(File& file, const abi::Flock& fl, const LockOwner& owner) {
  int64_t base = 0;
  switch (fl.whence) {
    case SEEK_SET:
      break;
    case SEEK_CUR:
      base = file.offset();
      break;
    case SEEK_END:
      base = static_cast<int64_t>(TRY(file.GetAttr()).size);
      break;
    default:
      return kEINVAL;
  }
  int64_t start, end;
  if (__builtin_add_overflow(base, fl.start, &start)) return kEOVERFLOW;
  RangeLock lock;
  lock.owner = owner;
  lock.exclusive = fl.type == F_WRLCK;
  if (fl.length > 0) {
    if (__builtin_add_overflow(start, fl.length - 1, &end)) return kEOVERFLOW;
    lock.end = static_cast<uint64_t>(end);
  } else if (fl.length < 0) {
    end = start - 1;
    if (__builtin_add_overflow(start, fl.length, &start)) return kEINVAL;
    lock.end = static_cast<uint64_t>(end);
  }
  if (start < 0) return kEINVAL;
  lock.start = static_cast<uint64_t>(start);
  return lock;
}

Result<int64_t> SetRangeLock(Task& t, File& file, const abi::Flock& fl, const LockOwner& owner, bool wait) {
  RangeLock lock = TRY(ToRange(file, fl, owner));
  FileLockList& locks = file.inode()->locks();
  switch (fl.type) {
    case F_UNLCK:
      locks.ClearRange(lock.start, lock.end, owner);
      return 0;
    case F_RDLCK:
      if (!file.readable()) return kEBADF;
      break;
    case F_WRLCK:
      if (!file.writable()) return kEBADF;
      break;
    default:
      return kEINVAL;
  }
  Result<void> r;
  if (wait) {
    r = BlockingOp(t, locks.wait_queue(), EPOLLIN, kNoDeadline, [&] { return locks.SetRange(lock, true); });
    FileLockList::StopWaiting(owner);
  } else {
    r = locks.SetRange(lock, false);
  }
  if (!r.ok()) return r.error();
  return 0;
}

Result<int64_t> GetRangeLock(Task& t, File& file, abi::Flock fl, const LockOwner& owner, GuestAddr arg) {
  if (fl.type != F_RDLCK && fl.type != F_WRLCK) return kEINVAL;
  RangeLock wanted = TRY(ToRange(file, fl, owner));
  RangeLock found;
  if (file.inode()->locks().FindConflict(wanted, &found)) {
    fl.type = found.exclusive ? F_WRLCK : F_RDLCK;
    fl.whence = SEEK_SET;
    fl.start = static_cast<int64_t>(found.start);
    fl.length = found.end == kLockToEnd ? 0 : static_cast<int64_t>(found.end - found.start + 1);
    RefPtr<ThreadGroup> holder =
        found.owner.pid > 0 ? t.kernel().FindThreadGroup(found.owner.pid, *t.kernel().root_pid_ns()) : nullptr;
    fl.pid = holder ? holder->IdIn(*t.pid_ns()) : found.owner.pid < 0 ? -1 : 0;
  } else {
    fl.type = F_UNLCK;
  }
  TRY(UserOut<abi::Flock>(arg).Write(t.memory(), fl));
  return 0;
}

Result<int64_t> RangeLockCommand(Task& t, File& file, int cmd, GuestAddr arg) {
  abi::Flock fl = TRY(UserIn<abi::Flock>(arg).Read(t.memory()));
  bool description = cmd == F_OFD_SETLK || cmd == F_OFD_SETLKW || cmd == F_OFD_GETLK;
  if (description && fl.pid != 0) return kEINVAL;
  LockOwner owner = description ? LockOwner::Description(&file) : LockOwner::Process(t.thread_group().RootId());
  if (cmd == F_GETLK || cmd == F_OFD_GETLK) return GetRangeLock(t, file, fl, owner, arg);
  return SetRangeLock(t, file, fl, owner, cmd == F_SETLKW || cmd == F_OFD_SETLKW);
}

Result<int64_t> OwnerCommand(Task& t, File& file, int cmd, uint64_t arg) {
  int32_t value = static_cast<int32_t>(arg);
  switch (cmd) {
    case F_SETOWN:
      TRY(async_io::SetOwnerByNumber(t, file, value));
      return 0;
    case F_GETOWN:
      return async_io::OwnerNumber(t, file);
    case F_SETOWN_EX: {
      abi::FOwnerEx owner = TRY(UserIn<abi::FOwnerEx>(arg).Read(t.memory()));
      if (owner.type != F_OWNER_TID && owner.type != F_OWNER_PID && owner.type != F_OWNER_PGRP) return kEINVAL;
      TRY(async_io::SetOwner(t, file, owner.type, owner.pid));
      return 0;
    }
    case F_GETOWN_EX:
      TRY(UserOut<abi::FOwnerEx>(arg).Write(t.memory(), {file.async_owner().type, async_io::OwnerId(t, file)}));
      return 0;
    case F_SETSIG: {
      if (value < 0 || value > abi::kSignalCount) return kEINVAL;
      File::AsyncOwner owner = file.async_owner();
      owner.signal = value;
      file.set_async_owner(owner);
      return 0;
    }
    default:  // F_GETSIG
      return file.async_owner().signal;
  }
}

// Leases are broken from within the VFS, which knows no kernel.
std::atomic<Kernel*> lease_kernel{nullptr};

void SignalLeaseHolder(File& file) {
  const File::AsyncOwner owner = file.async_owner();
  async_io::Signal(*lease_kernel.load(), owner, owner.lease_fd, POLL_MSG);
}

Result<int64_t> SetLease(Task& t, File& file, int fd, int type) {
  lease_kernel.store(&t.kernel());
  SetLeaseBreaker(SignalLeaseHolder);
  Kstat attr = TRY(file.GetAttr());
  if (attr.uid != t.cred().fsuid && !t.cred().HasCapability(CAP_LEASE)) return kEACCES;
  if (file.inode()->type() != S_IFREG || (type != F_RDLCK && type != F_WRLCK && type != F_UNLCK)) return kEINVAL;
  if (file.async_owner().id == 0) TRY(async_io::SetOwner(t, file, F_OWNER_PID, t.tgid()));
  File::AsyncOwner owner = file.async_owner();
  owner.lease_fd = fd;
  file.set_async_owner(owner);
  TRY(file.inode()->locks().SetLease(&file, type, t.thread_group().RootId()));
  return 0;
}

Result<int64_t> NotifyOfChanges(Task& t, File& file, int fd, uint32_t events) {
  const int32_t pid = t.thread_group().RootId();
  if ((events & ~static_cast<uint32_t>(DN_MULTISHOT)) == 0) {
    directory_notify::Forget(file, pid);
    return 0;
  }
  if (file.inode()->type() != S_IFDIR) return kENOTDIR;
  if (file.async_owner().id == 0) TRY(async_io::SetOwner(t, file, F_OWNER_PID, t.tgid()));
  directory_notify::Watch(t.kernel(), file, pid, fd, events);
  return 0;
}

}  // namespace

Result<int64_t> SysFcntl(Task& t, FdNum fd, int cmd, uint64_t arg) {
  bool cloexec = false;
  RefPtr<File> file = t.fds().Get(ToInt(fd), &cloexec);
  if (!file) return kEBADF;
  switch (cmd) {  // what O_PATH descriptors allow
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
      return TRY(t.InstallFd(std::move(file), cmd == F_DUPFD_CLOEXEC, static_cast<int>(arg)));
    case F_GETFD:
      return cloexec ? FD_CLOEXEC : 0;
    case F_SETFD:
      TRY(t.fds().SetCloexec(ToInt(fd), (arg & FD_CLOEXEC) != 0));
      return 0;
    case F_GETFL:
      return file->flags();
    case F_DUPFD_QUERY:
      return t.fds().Get(static_cast<int>(arg)) == file ? 1 : 0;
    case F_CREATED_QUERY:
      return file->created() ? 1 : 0;
    default:
      break;
  }
  if (file->flags() & O_PATH) return kEBADF;
  switch (cmd) {
    case F_SETFL:
      TRY(async_io::SetAsync(t, *file, ToInt(fd), (arg & O_ASYNC) != 0));
      TRY(file->SetStatusFlags((file->flags() & ~kSettable) | (static_cast<int>(arg) & kSettable)));
      return 0;
    case F_GETLK:
    case F_SETLK:
    case F_SETLKW:
    case F_OFD_GETLK:
    case F_OFD_SETLK:
    case F_OFD_SETLKW:
      return RangeLockCommand(t, *file, cmd, arg);
    case F_SETOWN:
    case F_GETOWN:
    case F_SETOWN_EX:
    case F_GETOWN_EX:
    case F_SETSIG:
    case F_GETSIG:
      return OwnerCommand(t, *file, cmd, arg);
    case F_SETLEASE:
      return SetLease(t, *file, ToInt(fd), static_cast<int>(arg));
    case F_GETLEASE:
      return file->inode()->locks().GetLease(file.get());
    case F_NOTIFY:
      return NotifyOfChanges(t, *file, ToInt(fd), static_cast<uint32_t>(arg));
    case F_SETPIPE_SZ:
    case F_GETPIPE_SZ: {
      PipeEnd* pipe = PipeEnd::Of(*file);
      if (pipe == nullptr) return kEBADF;
      if (cmd == F_GETPIPE_SZ) return static_cast<int64_t>(pipe->pipe().capacity());
      return TRY(pipe->pipe().SetCapacity(static_cast<uint32_t>(arg), t.cred().HasCapability(CAP_SYS_RESOURCE)));
    }
    case F_ADD_SEALS:
      TRY(AddSeals(*file, static_cast<uint32_t>(arg)));
      return 0;
    case F_GET_SEALS:
      return TRY(GetSeals(*file));
    default:
      return kEINVAL;
  }
}

Result<int64_t> SysFlock(Task& t, FdNum fd, int operation) {
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  FileLockList& locks = file->inode()->locks();
  bool wait = (operation & LOCK_NB) == 0;
  switch (operation & ~LOCK_NB) {
    case LOCK_UN:
      locks.Unflock(file.get());
      return 0;
    case LOCK_SH:
    case LOCK_EX:
      break;
    default:
      return kEINVAL;
  }
  bool exclusive = (operation & LOCK_EX) != 0;
  auto once = [&] { return locks.Flock(file.get(), exclusive, t.thread_group().RootId()); };
  Result<void> r = wait ? BlockingOp(t, locks.wait_queue(), EPOLLIN, kNoDeadline, once) : once();
  if (!r.ok()) return r.error();
  return 0;
}

}  // namespace moat
