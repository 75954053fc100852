#include "runsc/gofer/server.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <memory>

#include "fs/hostfs/wire.h"
#include "platform/base/log.h"

namespace moat::gofer {
namespace {

int64_t ToNanos(const statx_timestamp& t) {
  int64_t nanos;
  // A time beyond the 584 years that the protocol can say is shown as its end.
  if (__builtin_mul_overflow(t.tv_sec, int64_t{1'000'000'000}, &nanos) ||
      __builtin_add_overflow(nanos, int64_t{t.tv_nsec}, &nanos)) {
    return t.tv_sec < 0 ? INT64_MIN : INT64_MAX;
  }
  return nanos;
}

Result<ScopedFd> Openat2(int dir, const char* name, uint64_t flags, uint32_t mode) {
  open_how how = {};
  how.flags = flags | O_CLOEXEC;
  how.mode = mode;
  how.resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS;
  const long fd = syscall(SYS_openat2, dir, name, &how, sizeof how);
  if (fd < 0) return HostErrno();
  return ScopedFd(static_cast<int>(fd));
}

}  // namespace

Result<std::string> CheckedName(std::string_view name) {
  if (name.empty() || name == "." || name == "..") return kEINVAL;
  if (name.size() > kMaxName) return kENAMETOOLONG;
  if (name.find('/') != name.npos || name.find('\0') != name.npos) return kEINVAL;
  return std::string(name);
}

Result<ScopedFd> OpenBeneath(int dir, const char* name, uint64_t flags, uint32_t mode) {
  for (;;) {
    Result<ScopedFd> fd = Openat2(dir, name, flags, mode);
    // EAGAIN: a rename elsewhere raced with the beneath check (openat2(2)).
    if (fd.ok() || (fd.error() != kEINTR && fd.error() != kEAGAIN)) return fd;
  }
}

Result<ScopedFd> OpenBeneathAtOnce(int dir, const char* name, uint64_t flags) {
  return Openat2(dir, name, flags | O_NONBLOCK, 0);
}

Result<ScopedFd> Reopen(const Node& node, int flags) {
  if (node.is_dir()) return OpenBeneath(node.fd(), ".", O_RDONLY | O_DIRECTORY, 0);
  if (node.type() != S_IFREG) return kENXIO;
  flags |= O_CLOEXEC | O_NOCTTY;
  // As with a read-only mount on Linux, reading leaves no trace. Allowed to the owner and with CAP_FOWNER.
  int fd = node.read_only() ? openat(AT_FDCWD, FdName(node.fd()).c_str(), flags | O_NOATIME) : -1;
  if (fd < 0) fd = openat(AT_FDCWD, FdName(node.fd()).c_str(), flags);
  if (fd < 0) return HostErrno();
  return ScopedFd(fd);
}

Result<void> ReadAttr(int fd, Attr& attr) {
  struct statx st;
  if (statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, STATX_BASIC_STATS | STATX_BTIME, &st) != 0) return HostErrno();
  attr = {};
  attr.ino = st.stx_ino;
  attr.dev_major = st.stx_dev_major;
  attr.dev_minor = st.stx_dev_minor;
  attr.rdev_major = st.stx_rdev_major;
  attr.rdev_minor = st.stx_rdev_minor;
  attr.mode = st.stx_mode;
  attr.nlink = st.stx_nlink;
  attr.uid = st.stx_uid;
  attr.gid = st.stx_gid;
  attr.size = st.stx_size;
  attr.blocks = st.stx_blocks;
  attr.blksize = st.stx_blksize;
  attr.has_btime = (st.stx_mask & STATX_BTIME) != 0;
  attr.attributes = st.stx_attributes & st.stx_attributes_mask;
  attr.atime = ToNanos(st.stx_atime);
  attr.mtime = ToNanos(st.stx_mtime);
  attr.ctime = ToNanos(st.stx_ctime);
  attr.btime = attr.has_btime ? ToNanos(st.stx_btime) : 0;
  return {};
}

Result<void> Server::PrepareThread(int proc_self_fd) {
  if (unshare(CLONE_FS) != 0) return HostErrno();
  umask(0);
  if (fchdir(proc_self_fd) != 0) return HostErrno();
  return {};
}

Server::Handler Server::HandlerOf(Op op) {
  switch (op) {
    case Op::kAttach:
      return &Server::Attach;
    case Op::kWalk:
      return &Server::Walk;
    case Op::kLookUp:
      return &Server::LookUpNames;
    case Op::kGetAttr:
      return &Server::GetAttr;
    case Op::kSetAttr:
      return &Server::SetAttr;
    case Op::kOpen:
      return &Server::Open;
    case Op::kCreate:
      return &Server::Create;
    case Op::kCreateTemporary:
      return &Server::CreateTemporary;
    case Op::kMkdir:
      return &Server::Mkdir;
    case Op::kMknod:
      return &Server::Mknod;
    case Op::kSymlink:
      return &Server::Symlink;
    case Op::kLink:
      return &Server::Link;
    case Op::kUnlink:
      return &Server::Unlink;
    case Op::kRename:
      return &Server::Rename;
    case Op::kReaddir:
      return &Server::Readdir;
    case Op::kReadlink:
      return &Server::Readlink;
    case Op::kStatFs:
      return &Server::StatFileSystem;
    case Op::kSync:
      return &Server::Sync;
    case Op::kAllocate:
      return &Server::Allocate;
    case Op::kSeek:
      return &Server::Seek;
    case Op::kGetXattr:
      return &Server::GetXattr;
    case Op::kSetXattr:
      return &Server::SetXattr;
    case Op::kListXattr:
      return &Server::ListXattr;
    case Op::kRemoveXattr:
      return &Server::RemoveXattr;
    case Op::kForget:
      return &Server::Forget;
    case Op::kStdioAdd:
      return &Server::StdioAdd;
    case Op::kStdioSeek:
      return &Server::StdioSeek;
    case Op::kStdioSync:
      return &Server::StdioSync;
    case Op::kStdioTruncate:
      return &Server::StdioTruncate;
    case Op::kStdioGetAttr:
      return &Server::StdioGetAttr;
    case Op::kOpCount:
      break;
  }
  return nullptr;
}

void Server::Serve(int socket) {
  auto request_payload = std::make_unique_for_overwrite<std::byte[]>(kMaxPayload);
  auto reply_payload = std::make_unique_for_overwrite<std::byte[]>(kMaxPayload);
  for (;;) {
    Request request;
    ReceivedFds along;
    iovec in_parts[2] = {{&request, sizeof request}, {request_payload.get(), kMaxPayload}};
    Result<size_t> received = ReceivePacket(socket, in_parts, 1, along);
    if (!received.ok() || *received == 0) return;
    uint64_t lengths = uint64_t{sizeof request} + request.name_length + request.data_length;
    Handler handler = *received >= sizeof request ? HandlerOf(static_cast<Op>(request.op)) : nullptr;
    // No client of ours sends such a thing: stop talking to whoever took its place.
    if (*received < sizeof request || request.length != *received || request.version != kProtocolVersion ||
        lengths != *received || handler == nullptr || along.lost ||
        along.fds.empty() == (static_cast<Op>(request.op) == Op::kStdioAdd)) {
      MOAT_LOG(kError, "gofer: a message breaks the protocol, closing the connection");
      return;
    }
    const char* payload = reinterpret_cast<const char*>(request_payload.get());
    ScopedFd fd = along.fds.empty() ? ScopedFd() : std::move(along.fds[0]);
    Incoming in{request, {payload, request.name_length}, {payload + request.name_length, request.data_length}, fd};
    Outgoing out;
    out.payload = {reply_payload.get(), kMaxPayload};
    Result<void> done = (this->*handler)(in, out);
    // A walk that fails half way reports the error besides the steps that exist.
    bool partial = static_cast<Op>(request.op) == Op::kWalk;
    if (!done.ok()) {
      if (!partial) {
        out.reply = {};
        out.payload_size = 0;
      }
      out.fds.clear();
      out.reply.error = static_cast<int32_t>(done.error());
    }
    out.reply.op = request.op;
    out.reply.sequence = request.sequence;
    out.reply.fd_count = static_cast<uint16_t>(out.fds.size());
    out.reply.length = static_cast<uint32_t>(sizeof(Reply) + out.payload_size);
    iovec out_parts[2] = {{&out.reply, sizeof(Reply)}, {reply_payload.get(), out.payload_size}};
    if (!SendPacket(socket, out_parts, out.fds).ok()) return;
  }
}

Result<RefPtr<Node>> Server::NodeOf(Handle handle) const {
  RefPtr<Node> node = TRY(nodes_.Get(handle));
  if (node->kind() == Node::Kind::kStdio) return kEBADF;
  return node;
}

Result<RefPtr<Node>> Server::WritableNode(Handle handle) const {
  RefPtr<Node> node = TRY(NodeOf(handle));
  if (node->read_only() || node->kind() == Node::Kind::kSealed) return kEROFS;
  return node;
}

Result<RefPtr<Node>> Server::WritableDirectory(Handle handle) const {
  RefPtr<Node> node = TRY(WritableNode(handle));
  if (!node->is_dir()) return kENOTDIR;
  return node;
}

Result<RefPtr<Node>> Server::StdioOf(Handle handle) const {
  RefPtr<Node> node = TRY(nodes_.Get(handle));
  if (node->kind() != Node::Kind::kStdio) return kEBADF;
  return node;
}

}  // namespace moat::gofer
