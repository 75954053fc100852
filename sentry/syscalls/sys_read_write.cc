// read(2), write(2) and their vector and positioned forms, lseek(2).
#include <linux/fs.h>

#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/file_io.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/io_vector.h"

#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif

namespace moat {
namespace {

constexpr int kKnownRwf = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND | RWF_NOAPPEND;

Result<RefPtr<File>> Readable(Task& t, FdNum fd) {
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  if (!file->readable()) return kEBADF;
  return file;
}

Result<RefPtr<File>> Writable(Task& t, FdNum fd) {
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  if (!file->writable()) return kEBADF;
  return file;
}

// Calls with an offset of their own: a pipe is refused as such before its access mode is looked at.
Result<void> CheckPositioned(Task& t, File& file, bool allowed, IoPosition at) {
  if (allowed) return {};
  if (!at.explicit_offset) return kEBADF;
  Task::FsCall fs(t);
  Result<int64_t> here = file.Seek(fs, 0, SEEK_CUR);
  return !here.ok() && here.error() == kESPIPE ? kESPIPE : kEBADF;
}

Result<RefPtr<File>> ReadableAt(Task& t, FdNum fd, IoPosition at) {
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  TRY(CheckPositioned(t, *file, file->readable(), at));
  return file;
}

Result<RefPtr<File>> WritableAt(Task& t, FdNum fd, IoPosition at) {
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  TRY(CheckPositioned(t, *file, file->writable(), at));
  return file;
}

Result<IoPosition> Explicit(int64_t offset) {
  if (offset < 0) return kEINVAL;
  return IoPosition{true, offset};
}

// preadv2 and pwritev2: -1 is the description's own offset.
Result<IoPosition> PositionOf(int64_t offset) {
  if (offset == -1) return IoPosition{};
  return Explicit(offset);
}

Result<int64_t> ReadVector(Task& t, File& file, GuestAddr array, size_t count, IoPosition at, bool may_block) {
  IoVector vector;
  TRY(vector.Read(t, array, count));
  GuestIoDest dst(t.memory(), vector.ranges());
  return ReadFile(t, file, dst, at, may_block);
}

Result<int64_t> WriteVector(Task& t, File& file, GuestAddr array, size_t count, IoPosition at, bool may_block) {
  IoVector vector;
  TRY(vector.Read(t, array, count));
  GuestIoSource src(t.memory(), vector.ranges());
  return WriteFile(t, file, src, at, may_block);
}

}  // namespace

Result<int64_t> SysRead(Task& t, FdNum fd, GuestAddr buf, size_t count) {
  RefPtr<File> file = TRY(Readable(t, fd));
  if (static_cast<ssize_t>(count) < 0) return kEINVAL;
  count = std::min(count, kMaxReadWrite);
  TRY(CheckUserRange(t, buf, count));
  GuestIoDest dst(t.memory(), buf, count);
  return ReadFile(t, *file, dst);
}

Result<int64_t> SysWrite(Task& t, FdNum fd, GuestAddr buf, size_t count) {
  RefPtr<File> file = TRY(Writable(t, fd));
  if (static_cast<ssize_t>(count) < 0) return kEINVAL;
  count = std::min(count, kMaxReadWrite);
  TRY(CheckUserRange(t, buf, count));
  GuestIoSource src(t.memory(), buf, count);
  return WriteFile(t, *file, src);
}

Result<int64_t> SysPread64(Task& t, FdNum fd, GuestAddr buf, size_t count, int64_t offset) {
  IoPosition at = TRY(Explicit(offset));
  RefPtr<File> file = TRY(ReadableAt(t, fd, at));
  if (static_cast<ssize_t>(count) < 0) return kEINVAL;
  count = std::min(count, kMaxReadWrite);
  TRY(CheckUserRange(t, buf, count));
  GuestIoDest dst(t.memory(), buf, count);
  return ReadFile(t, *file, dst, at);
}

Result<int64_t> SysPwrite64(Task& t, FdNum fd, GuestAddr buf, size_t count, int64_t offset) {
  IoPosition at = TRY(Explicit(offset));
  RefPtr<File> file = TRY(WritableAt(t, fd, at));
  if (static_cast<ssize_t>(count) < 0) return kEINVAL;
  count = std::min(count, kMaxReadWrite);
  TRY(CheckUserRange(t, buf, count));
  GuestIoSource src(t.memory(), buf, count);
  return WriteFile(t, *file, src, at);
}

Result<int64_t> SysReadv(Task& t, FdNum fd, GuestAddr array, size_t count) {
  return ReadVector(t, *TRY(Readable(t, fd)), array, count, {}, true);
}

Result<int64_t> SysWritev(Task& t, FdNum fd, GuestAddr array, size_t count) {
  return WriteVector(t, *TRY(Writable(t, fd)), array, count, {}, true);
}

Result<int64_t> SysPreadv(Task& t, FdNum fd, GuestAddr array, size_t count, int64_t offset) {
  IoPosition at = TRY(Explicit(offset));
  return ReadVector(t, *TRY(ReadableAt(t, fd, at)), array, count, at, true);
}

Result<int64_t> SysPwritev(Task& t, FdNum fd, GuestAddr array, size_t count, int64_t offset) {
  IoPosition at = TRY(Explicit(offset));
  return WriteVector(t, *TRY(WritableAt(t, fd, at)), array, count, at, true);
}

// The high half of the offset is unused on 64-bit machines.
Result<int64_t> SysPreadv2(Task& t, FdNum fd, GuestAddr array, size_t count, int64_t offset, uint64_t, int flags) {
  IoPosition at = TRY(PositionOf(offset));
  RefPtr<File> file = TRY(ReadableAt(t, fd, at));
  if (flags & ~kKnownRwf) return kEOPNOTSUPP;
  return ReadVector(t, *file, array, count, at, (flags & RWF_NOWAIT) == 0);
}

Result<int64_t> SysPwritev2(Task& t, FdNum fd, GuestAddr array, size_t count, int64_t offset, uint64_t, int flags) {
  IoPosition at = TRY(PositionOf(offset));
  RefPtr<File> file = TRY(WritableAt(t, fd, at));
  if (flags & ~kKnownRwf) return kEOPNOTSUPP;
  if ((flags & RWF_APPEND) && (flags & RWF_NOAPPEND)) return kEINVAL;
  if ((flags & RWF_APPEND) && at.explicit_offset) at.offset = static_cast<int64_t>(TRY(file->GetAttr()).size);
  int64_t n = TRY(WriteVector(t, *file, array, count, at, (flags & RWF_NOWAIT) == 0));
  if (flags & (RWF_DSYNC | RWF_SYNC)) TRY(file->Sync((flags & RWF_SYNC) == 0));
  return n;
}

Result<int64_t> SysLseek(Task& t, FdNum fd, int64_t offset, int whence) {
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  if (whence < SEEK_SET || whence > SEEK_HOLE) return kEINVAL;
  Task::FsCall fs(t);
  return file->Seek(fs, offset, whence);
}

}  // namespace moat
