// Opening files, changing attributes and sizes, syncing; and what the sentry needs of the sandbox's stdio files.
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runsc/gofer/server.h"

namespace moat::gofer {
namespace {

constexpr int64_t kNanosPerSecond = 1'000'000'000;

timespec TimeToSet(uint32_t mask, uint32_t set, uint32_t now, int64_t nanos) {
  if ((mask & now) != 0) return {0, UTIME_NOW};
  if ((mask & set) == 0) return {0, UTIME_OMIT};
  int64_t seconds = nanos / kNanosPerSecond, rest = nanos % kNanosPerSecond;
  if (rest < 0) {
    --seconds;
    rest += kNanosPerSecond;
  }
  return {seconds, rest};
}

}  // namespace

Result<void> Server::SetAttr(const Incoming& in, Outgoing& out) {
  const Request& r = in.request;
  RefPtr<Node> node = TRY(WritableNode(r.handle));
  if ((r.mask & ~uint32_t{kSetAll}) != 0) return kEINVAL;
  FdName name(node->fd());
  if ((r.mask & kSetSize) != 0) {
    if (node->type() != S_IFREG || r.value > INT64_MAX) return kEINVAL;
    if (truncate(name.c_str(), static_cast<off_t>(r.value)) != 0) return HostErrno();
  }
  if ((r.mask & (kSetUid | kSetGid)) != 0) {
    uid_t uid = (r.mask & kSetUid) != 0 ? r.uid : static_cast<uid_t>(-1);
    gid_t gid = (r.mask & kSetGid) != 0 ? r.gid : static_cast<gid_t>(-1);
    if (fchownat(node->fd(), "", uid, gid, AT_EMPTY_PATH) != 0) return HostErrno();
  }
  if ((r.mask & kSetMode) != 0) {
    if (node->type() == S_IFLNK) return kEOPNOTSUPP;
    if (fchmodat(AT_FDCWD, name.c_str(), r.mode & 07777, 0) != 0) return HostErrno();
  }
  if ((r.mask & (kSetAtime | kSetMtime | kSetAtimeNow | kSetMtimeNow)) != 0) {
    timespec times[2] = {TimeToSet(r.mask, kSetAtime, kSetAtimeNow, r.atime),
                         TimeToSet(r.mask, kSetMtime, kSetMtimeNow, r.mtime)};
    if (utimensat(AT_FDCWD, name.c_str(), times, 0) != 0) return HostErrno();
  }
  return ReadAttr(node->fd(), out.reply.attr);
}

Result<void> Server::Open(const Incoming& in, Outgoing& out) {
  RefPtr<Node> node = TRY(NodeOf(in.request.handle));
  uint32_t flags = in.request.flags;
  if (flags != O_RDONLY && flags != O_WRONLY && flags != O_RDWR) return kEINVAL;
  if (flags != O_RDONLY && node->read_only()) return kEROFS;
  // Only regular files are handed over: a directory descriptor would let the sentry look names up by itself, and
  // opening a FIFO, a socket or a device reaches somebody else.
  if (node->is_dir()) return kEISDIR;
  if (node->type() != S_IFREG) return kENXIO;
  out.Give(TRY(Reopen(*node, static_cast<int>(flags))));
  return ReadAttr(node->fd(), out.reply.attr);
}

Result<void> Server::Sync(const Incoming& in, Outgoing&) {
  RefPtr<Node> node = TRY(NodeOf(in.request.handle));
  ScopedFd file = TRY(Reopen(*node, O_RDONLY));
  int result;
  switch (in.request.flags) {
    case 0:
      result = fsync(file.get());
      break;
    case 1:
      result = fdatasync(file.get());
      break;
    case 2:
      result = syncfs(file.get());
      break;
    default:
      return kEINVAL;
  }
  if (result != 0) return HostErrno();
  return {};
}

Result<void> Server::Allocate(const Incoming& in, Outgoing& out) {
  const Request& r = in.request;
  RefPtr<Node> node = TRY(WritableNode(r.handle));
  if (node->type() != S_IFREG) return kENODEV;
  if (r.value > INT64_MAX || r.value2 > INT64_MAX) return kEINVAL;
  ScopedFd file = TRY(Reopen(*node, O_RDWR));
  if (fallocate(file.get(), static_cast<int>(r.flags), static_cast<off_t>(r.value), static_cast<off_t>(r.value2)) !=
      0) {
    return HostErrno();
  }
  return ReadAttr(node->fd(), out.reply.attr);
}

Result<void> Server::Seek(const Incoming& in, Outgoing& out) {
  RefPtr<Node> node = TRY(NodeOf(in.request.handle));
  if (node->type() != S_IFREG) return kESPIPE;
  if (in.request.flags != SEEK_DATA && in.request.flags != SEEK_HOLE) return kEINVAL;
  if (in.request.value > INT64_MAX) return kENXIO;
  ScopedFd file = TRY(Reopen(*node, O_RDONLY));
  off_t at = lseek(file.get(), static_cast<off_t>(in.request.value), static_cast<int>(in.request.flags));
  if (at < 0) return HostErrno();
  out.reply.value = at;
  return {};
}

Result<void> Server::StdioAdd(const Incoming& in, Outgoing& out) {
  TRY(ReadAttr(in.fd.get(), out.reply.attr));
  int status = fcntl(in.fd.get(), F_GETFL);
  if (status < 0) return HostErrno();
  out.reply.value = static_cast<uint32_t>(status);
  out.reply.handle =
      nodes_.Insert(MakeRef<Node>(std::move(in.fd), out.reply.attr, /*read_only=*/false, Node::Kind::kStdio));
  if (out.reply.handle == 0) return kENFILE;
  return {};
}

Result<void> Server::StdioSeek(const Incoming& in, Outgoing& out) {
  RefPtr<Node> node = TRY(StdioOf(in.request.handle));
  off_t at = lseek(node->fd(), static_cast<off_t>(in.request.value), static_cast<int>(in.request.flags));
  if (at < 0) return HostErrno();
  out.reply.value = at;
  return {};
}

Result<void> Server::StdioSync(const Incoming& in, Outgoing&) {
  RefPtr<Node> node = TRY(StdioOf(in.request.handle));
  if ((in.request.flags == 1 ? fdatasync(node->fd()) : fsync(node->fd())) != 0) return HostErrno();
  return {};
}

Result<void> Server::StdioTruncate(const Incoming& in, Outgoing&) {
  RefPtr<Node> node = TRY(StdioOf(in.request.handle));
  if (in.request.value > INT64_MAX) return kEINVAL;
  if (ftruncate(node->fd(), static_cast<off_t>(in.request.value)) != 0) return HostErrno();
  return {};
}

Result<void> Server::StdioGetAttr(const Incoming& in, Outgoing& out) {
  return ReadAttr(TRY(StdioOf(in.request.handle))->fd(), out.reply.attr);
}

}  // namespace moat::gofer
