// sendfile(2), splice(2), tee(2), vmsplice(2), copy_file_range(2). Bytes go through a kernel buffer: what the target
// did not take is still in the source afterwards.
#include <fcntl.h>
#include <sys/epoll.h>

#include <memory>

#include "fs/pipe/pipe.h"
#include "sentry/kernel/blocking.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/file_io.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/io_vector.h"

namespace moat {
namespace {

constexpr size_t kChunk = 64 << 10;
constexpr unsigned kSpliceFlags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT;

// A file's offset argument: a guest's loff_t, or the description's own.
class Position {
 public:
  static Result<Position> Read(Task& t, GuestAddr addr) {
    Position p;
    p.addr_ = addr;
    if (addr == 0) return p;
    p.at_ = {true, TRY(UserIn<int64_t>(addr).Read(t.memory()))};
    if (p.at_.offset < 0) return kEINVAL;
    return p;
  }
  IoPosition io() const { return at_; }
  void Advance(int64_t n) {
    if (at_.explicit_offset) at_.offset += n;
  }
  Result<void> Store(Task& t) const {
    if (addr_ == 0) return {};
    return UserOut<int64_t>(addr_).Write(t.memory(), at_.offset);
  }

 private:
  GuestAddr addr_ = 0;
  IoPosition at_;
};

bool IsRegular(File& f) {
  RefPtr<Inode> i = f.inode();
  return i && i->type() == S_IFREG;
}

// Moves up to `count` bytes from a file with positions to any file, in steps: the source's position moves by what the
// target took.
Result<int64_t> CopyFromSeekable(Task& t, File& in, Position& from, File& out, Position& to, size_t count) {
  Task::FsCall fs(t);
  auto buffer = std::make_unique_for_overwrite<std::byte[]>(std::min(count, kChunk));
  bool own_offset = !from.io().explicit_offset;
  int64_t at = own_offset ? in.offset() : from.io().offset;
  int64_t done = 0;
  Errno error = Errno::kOK;
  while (count != 0) {
    BufferIoDest dst(buffer.get(), std::min(count, kChunk));
    Result<size_t> n = in.PRead(fs, dst, at);
    if (!n.ok() || *n == 0) {
      error = n.error();
      break;
    }
    BufferIoSource src(buffer.get(), *n);
    Result<int64_t> written = WriteFile(t, out, src, to.io());
    if (!written.ok()) {
      error = written.error();
      break;
    }
    at += *written;
    to.Advance(*written);
    done += *written;
    count -= static_cast<size_t>(*written);
    if (static_cast<size_t>(*written) < *n) break;
  }
  if (own_offset) {
    if (done != 0) TRY(in.Seek(fs, at, SEEK_SET));
  } else {
    from.Advance(done);
  }
  if (done == 0 && error != Errno::kOK) return error;
  return done;
}

// Waits until `ready()` answers something else than kEAGAIN, unless the caller or the description says not to.
template <typename Op>
auto MaybeBlock(Task& t, File& f, EventMask events, bool block, Op op) -> decltype(op()) {
  if (!block || f.nonblocking()) return op();
  return BlockingOp(t, f.wait_queue(), events, kNoDeadline, op);
}

Result<int64_t> FromPipe(Task& t, PipeEnd& in, File& out, Position& to, size_t count, bool block) {
  Task::FsCall fs(t);
  auto buffer = std::make_unique_for_overwrite<std::byte[]>(std::min(count, kChunk));
  size_t n = TRY(MaybeBlock(t, in, EPOLLIN, block, [&]() -> Result<size_t> {
    BufferIoDest dst(buffer.get(), std::min(count, kChunk));
    return in.pipe().Peek(dst, 0);
  }));
  if (n == 0) return 0;
  BufferIoSource src(buffer.get(), n);
  PipeEnd* out_pipe = PipeEnd::Of(out);
  int64_t written = 0;
  if (out_pipe != nullptr) {
    // No more than fits now: splice moves what it can.
    written = static_cast<int64_t>(TRY(MaybeBlock(t, out, EPOLLOUT, block, [&]() -> Result<size_t> {
      src.Truncate(std::max<size_t>(1, out_pipe->pipe().Room()));
      return out.Write(fs, src);
    })));
  } else {
    written = TRY(WriteFile(t, out, src, to.io(), block));
  }
  BufferIoDest taken(buffer.get(), static_cast<size_t>(written));
  (void)in.pipe().Read(taken);
  to.Advance(written);
  return written;
}

Result<int64_t> ToPipe(Task& t, File& in, Position& from, PipeEnd& out, size_t count, bool block) {
  Task::FsCall fs(t);
  size_t room = TRY(MaybeBlock(t, out, EPOLLOUT, block, [&]() -> Result<size_t> {
    if (!out.pipe().HasReaders()) return kEPIPE;
    size_t r = out.pipe().Room();
    if (r == 0) return kEAGAIN;
    return r;
  }));
  size_t want = std::min({count, room, kChunk});
  auto buffer = std::make_unique_for_overwrite<std::byte[]>(want);
  BufferIoDest dst(buffer.get(), want);
  int64_t n = TRY(ReadFile(t, in, dst, from.io(), block));
  from.Advance(n);
  BufferIoSource src(buffer.get(), static_cast<size_t>(n));
  // Somebody else may have filled the pipe since: these bytes are out of their source and wait for room.
  if (n != 0) TRY(WriteFile(t, out, src));
  return n;
}

// vmsplice waits for room, but only for some: what does not fit then is the caller's to offer again.
Result<int64_t> ToPipeOnce(Task& t, File& out, IoSource& src, bool block) {
  Pipe& pipe = PipeEnd::Of(out)->pipe();
  for (;;) {
    TRY(MaybeBlock(t, out, EPOLLOUT, block, [&]() -> Result<void> {
      return pipe.Room() != 0 || !pipe.HasReaders() ? Result<void>() : kEAGAIN;
    }));
    Result<int64_t> n = WriteFile(t, out, src, {}, false);
    if (n.ok() || n.error() != kEAGAIN || !block || out.nonblocking()) return n;
  }
}

Result<RefPtr<File>> OpenFor(Task& t, FdNum fd, bool write) {
  RefPtr<File> f = TRY(t.GetFileNotPath(ToInt(fd)));
  if (write ? !f->writable() : !f->readable()) return kEBADF;
  return f;
}

}  // namespace

Result<int64_t> SysSendfile(Task& t, FdNum out_fd, FdNum in_fd, GuestAddr offset, size_t count) {
  RefPtr<File> in = TRY(OpenFor(t, in_fd, false));
  RefPtr<File> out = TRY(OpenFor(t, out_fd, true));
  Position from = TRY(Position::Read(t, offset));
  count = std::min(count, kMaxReadWrite);
  if (PipeEnd* pipe = PipeEnd::Of(*in)) {
    if (offset != 0) return kESPIPE;
    Position to;
    return FromPipe(t, *pipe, *out, to, count, true);
  }
  if (!IsRegular(*in)) return kEINVAL;
  if ((out->flags() & O_APPEND) != 0) return kEINVAL;
  Position to;
  int64_t n = TRY(CopyFromSeekable(t, *in, from, *out, to, count));
  TRY(from.Store(t));
  return n;
}

Result<int64_t> SysSplice(Task& t, FdNum in_fd, GuestAddr in_offset, FdNum out_fd, GuestAddr out_offset, size_t count,
                          unsigned flags) {
  if (count == 0) return 0;
  if (flags & ~kSpliceFlags) return kEINVAL;
  RefPtr<File> in = TRY(OpenFor(t, in_fd, false));
  RefPtr<File> out = TRY(OpenFor(t, out_fd, true));
  PipeEnd* in_pipe = PipeEnd::Of(*in);
  PipeEnd* out_pipe = PipeEnd::Of(*out);
  if ((in_pipe != nullptr && in_offset != 0) || (out_pipe != nullptr && out_offset != 0)) return kESPIPE;
  Position from = TRY(Position::Read(t, in_offset));
  Position to = TRY(Position::Read(t, out_offset));
  bool block = (flags & SPLICE_F_NONBLOCK) == 0;
  count = std::min(count, kMaxReadWrite);
  int64_t n = 0;
  if (in_pipe != nullptr) {
    if (out_pipe != nullptr && &in_pipe->pipe() == &out_pipe->pipe()) return kEINVAL;
    if (out_pipe == nullptr && (out->flags() & O_APPEND) != 0) return kEINVAL;
    n = TRY(FromPipe(t, *in_pipe, *out, to, count, block));
  } else if (out_pipe != nullptr) {
    if (RefPtr<Inode> i = in->inode(); i && i->is_dir()) return kEINVAL;
    n = TRY(ToPipe(t, *in, from, *out_pipe, count, block));
  } else {
    return kEINVAL;
  }
  TRY(from.Store(t));
  TRY(to.Store(t));
  return n;
}

Result<int64_t> SysTee(Task& t, FdNum in_fd, FdNum out_fd, size_t count, unsigned flags) {
  if (flags & ~kSpliceFlags) return kEINVAL;
  if (count == 0) return 0;
  RefPtr<File> in = TRY(OpenFor(t, in_fd, false));
  RefPtr<File> out = TRY(OpenFor(t, out_fd, true));
  PipeEnd* from = PipeEnd::Of(*in);
  PipeEnd* to = PipeEnd::Of(*out);
  if (from == nullptr || to == nullptr || &from->pipe() == &to->pipe()) return kEINVAL;
  bool block = (flags & SPLICE_F_NONBLOCK) == 0;
  auto buffer = std::make_unique_for_overwrite<std::byte[]>(std::min(count, kChunk));
  size_t n = TRY(MaybeBlock(t, *in, EPOLLIN, block, [&]() -> Result<size_t> {
    BufferIoDest dst(buffer.get(), std::min(count, kChunk));
    return from->pipe().Peek(dst, 0);
  }));
  if (n == 0) return 0;
  Task::FsCall fs(t);
  BufferIoSource src(buffer.get(), n);
  return static_cast<int64_t>(TRY(MaybeBlock(t, *out, EPOLLOUT, block, [&]() -> Result<size_t> {
    src.Truncate(std::max<size_t>(1, to->pipe().Room()));
    return out->Write(fs, src);
  })));
}

Result<int64_t> SysVmsplice(Task& t, FdNum fd, GuestAddr array, size_t count, unsigned flags) {
  if (flags & ~kSpliceFlags) return kEINVAL;
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  if (PipeEnd::Of(*file) == nullptr) return kEBADF;
  IoVector vector;
  TRY(vector.Read(t, array, count));
  if (vector.total() == 0) return 0;
  bool block = (flags & SPLICE_F_NONBLOCK) == 0;
  if (file->writable()) {
    GuestIoSource src(t.memory(), vector.ranges());
    return ToPipeOnce(t, *file, src, block);
  }
  GuestIoDest dst(t.memory(), vector.ranges());
  return ReadFile(t, *file, dst, {}, block);
}

Result<int64_t> SysCopyFileRange(Task& t, FdNum in_fd, GuestAddr in_offset, FdNum out_fd, GuestAddr out_offset,
                                 size_t count, unsigned flags) {
  if (flags != 0) return kEINVAL;
  RefPtr<File> in = TRY(t.GetFileNotPath(ToInt(in_fd)));
  RefPtr<File> out = TRY(t.GetFileNotPath(ToInt(out_fd)));
  Position from = TRY(Position::Read(t, in_offset));
  Position to = TRY(Position::Read(t, out_offset));
  RefPtr<Inode> in_inode = in->inode(), out_inode = out->inode();
  if ((in_inode && in_inode->is_dir()) || (out_inode && out_inode->is_dir())) return kEISDIR;
  if (!IsRegular(*in) || !IsRegular(*out)) return kEINVAL;
  if (!in->readable() || !out->writable() || (out->flags() & O_APPEND) != 0) return kEBADF;
  count = std::min(count, kMaxReadWrite);
  int64_t read_at = from.io().explicit_offset ? from.io().offset : in->offset();
  int64_t write_at = to.io().explicit_offset ? to.io().offset : out->offset();
  if (in_inode == out_inode) {
    // The range that the file really has decides about an overlap.
    int64_t size = static_cast<int64_t>(TRY(in->GetAttr()).size);
    count = static_cast<size_t>(std::clamp<int64_t>(size - read_at, 0, static_cast<int64_t>(count)));
    const uint64_t distance = static_cast<uint64_t>(read_at < write_at ? write_at - read_at : read_at - write_at);
    if (distance < count) return kEINVAL;
  }
  // A source that ends there reads as nothing, a target as EFBIG: neither sum wraps.
  count = std::min(count, static_cast<size_t>(INT64_MAX - read_at));
  int64_t n = TRY(CopyFromSeekable(t, *in, from, *out, to, count));
  TRY(from.Store(t));
  TRY(to.Store(t));
  return n;
}

}  // namespace moat
