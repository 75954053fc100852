#include "fs/hostfs/host_stdio_file.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "fs/hostfs/host_io.h"
#include "platform/fiber/host_poller.h"
#include "platform/usermem/user_ptr.h"

namespace moat {
namespace {

// What a file without RWF_NOWAIT takes at once: a terminal that says it has room takes this much without waiting.
constexpr size_t kPolledWrite = 256;
constexpr size_t kMaxStreamTransfer = 1 << 20;

// preadv2 and pwritev2 at the descriptor's own position, by way of `dst` or `src`.
Result<size_t> ReadOnce(int fd, IoDest& dst, int flags) {
  dst.Truncate(kMaxStreamTransfer);
  return dst.Fill(dst.remaining(), [&](const iovec* v, int count) -> Result<size_t> {
    ssize_t n = preadv2(fd, v, count, kCurrent, flags);
    if (n < 0) return HostErrno();
    return static_cast<size_t>(n);
  });
}

Result<size_t> WriteOnce(int fd, IoSource& src, size_t max, int flags) {
  return src.Drain(max, [&](const iovec* v, int count) -> Result<size_t> {
    ssize_t n = pwritev2(fd, v, count, kCurrent, flags);
    if (n < 0) return HostErrno();
    return static_cast<size_t>(n);
  });
}

}  // namespace

Result<size_t> HostStdioRegularFile::PRead(const VfsContext&, IoDest& dst, int64_t offset) {
  return HostRead(inode_->fd(), dst, offset, 0);
}

Result<size_t> HostStdioRegularFile::PWrite(const VfsContext&, IoSource& src, int64_t offset) {
  return HostWrite(inode_->fd(), src, offset, (flags() & O_APPEND) != 0 ? RWF_APPEND : 0);
}

Result<size_t> HostStdioRegularFile::Read(const VfsContext&, IoDest& dst) {
  size_t n = TRY(HostRead(inode_->fd(), dst, kCurrent, 0));
  set_offset(offset() + static_cast<int64_t>(n));
  return n;
}

Result<size_t> HostStdioRegularFile::Write(const VfsContext& ctx, IoSource& src) {
  if (ctx.file_size_limit != ~uint64_t{0}) {
    // Where the write would begin; another writer of the shared position may be faster and gain as much.
    int64_t at =
        (flags() & O_APPEND) != 0 ? static_cast<int64_t>(TRY(GetAttr()).size) : TRY(inode_->SeekShared(0, SEEK_CUR));
    TRY(LimitWrite(ctx, src, at));
  }
  size_t n = TRY(HostWrite(inode_->fd(), src, kCurrent, (flags() & O_APPEND) != 0 ? RWF_APPEND : 0));
  set_offset(offset() + static_cast<int64_t>(n));
  return n;
}

Result<int64_t> HostStdioRegularFile::Seek(const VfsContext&, int64_t offset, int whence) {
  int64_t at = TRY(inode_->SeekShared(offset, whence));
  set_offset(at);
  return at;
}

void HostStdioRegularFile::LearnOffset() { set_offset(inode_->SeekShared(0, SEEK_CUR).value_or(0)); }

Result<void> HostStdioRegularFile::Sync(bool data_only) { return inode_->SyncShared(data_only); }

Result<size_t> HostStdioReopenedFile::PRead(const VfsContext&, IoDest& dst, int64_t offset) {
  return HostRead(inode_->fd(), dst, offset, 0);
}

Result<size_t> HostStdioReopenedFile::PWrite(const VfsContext&, IoSource& src, int64_t offset) {
  return HostWrite(inode_->fd(), src, offset, (flags() & O_APPEND) != 0 ? RWF_APPEND : 0);
}

Result<int64_t> HostStdioReopenedFile::Seek(const VfsContext&, int64_t offset, int whence) {
  return SeekWithin(offset, whence, TRY(inode_->GetAttr()).size);
}

Result<size_t> HostStream::Read(const VfsContext&, IoDest& dst) {
  if (dst.remaining() == 0) return size_t{0};
  if (inode_->kind() == HostStdioInode::Kind::kSocket) {
    return dst.Fill(std::min(dst.remaining(), kMaxStreamTransfer), [&](const iovec* v, int count) -> Result<size_t> {
      msghdr message = {};
      message.msg_iov = const_cast<iovec*>(v);
      message.msg_iovlen = static_cast<size_t>(count);
      ssize_t n = recvmsg(fd(), &message, MSG_DONTWAIT);
      if (n < 0) return HostErrno();
      return static_cast<size_t>(n);
    });
  }
  if (nowait_read_.load(std::memory_order_relaxed)) {
    Result<size_t> n = ReadOnce(fd(), dst, RWF_NOWAIT);
    if (n.ok() || n.error() != kEOPNOTSUPP) return n;
    nowait_read_.store(false, std::memory_order_relaxed);
  }
  // Another reader of the same description may be faster between the two calls; then this one waits with the host.
  if (HostPoller::PollNow(fd(), EPOLLIN) == 0) return kEAGAIN;
  return ReadOnce(fd(), dst, 0);
}

Result<size_t> HostStream::Write(const VfsContext&, IoSource& src) {
  if (src.remaining() == 0) return size_t{0};
  if (inode_->kind() == HostStdioInode::Kind::kSocket) {
    return src.Drain(std::min(src.remaining(), kMaxStreamTransfer), [&](const iovec* v, int count) -> Result<size_t> {
      msghdr message = {};
      message.msg_iov = const_cast<iovec*>(v);
      message.msg_iovlen = static_cast<size_t>(count);
      ssize_t n = sendmsg(fd(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (n < 0) return HostErrno();
      return static_cast<size_t>(n);
    });
  }
  if (nowait_write_.load(std::memory_order_relaxed)) {
    Result<size_t> n = WriteOnce(fd(), src, kMaxStreamTransfer, RWF_NOWAIT);
    if (n.ok() || n.error() != kEOPNOTSUPP) return n;
    nowait_write_.store(false, std::memory_order_relaxed);
  }
  size_t done = 0;
  while (src.remaining() > 0) {
    if ((HostPoller::PollNow(fd(), EPOLLOUT) & (EPOLLOUT | EPOLLERR | EPOLLHUP)) == 0) {
      if (done != 0) return done;
      return kEAGAIN;
    }
    Result<size_t> n = WriteOnce(fd(), src, kPolledWrite, 0);
    if (!n.ok()) {
      if (done != 0) return done;
      return n.error();
    }
    done += *n;
    if (*n == 0) break;
  }
  return done;
}

EventMask HostStream::Poll(EventMask interest) {
  return HostPoller::PollNow(fd(), interest) & (interest | EPOLLERR | EPOLLHUP);
}

Result<int64_t> HostStream::Ioctl(const VfsContext&, GuestMemory& memory, uint32_t cmd, uint64_t arg) {
  if (cmd != FIONREAD) return kENOTTY;
  int n = 0;
  if (ioctl(fd(), FIONREAD, &n) != 0) return HostErrno();
  TRY(UserOut<int>(arg).Write(memory, n));
  return 0;
}

}  // namespace moat
