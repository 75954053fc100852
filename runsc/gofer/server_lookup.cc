// Lookup, attributes, directory listings: what does not change the host.
#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>

#include "runsc/gofer/server.h"

namespace moat::gofer {
namespace {

// Not in <linux/magic.h>.
constexpr uint64_t kConfigFsMagic = 0x62656570;
constexpr uint64_t kMqueueMagic = 0x19800202;

// getdents64(2)'s record head; the name follows.
struct KernelDirent {
  uint64_t ino;
  int64_t off;
  uint16_t reclen;
  uint8_t type;
};
constexpr size_t kDirentNameOffset = 19;

// File systems that show the host's kernel and processes rather than files.
Result<bool> IsKernelInterface(int fd) {
  struct statfs st;
  if (fstatfs(fd, &st) != 0) return HostErrno();
  switch (static_cast<uint64_t>(st.f_type)) {
    case PROC_SUPER_MAGIC:
    case SYSFS_MAGIC:
    case CGROUP_SUPER_MAGIC:
    case CGROUP2_SUPER_MAGIC:
    case DEVPTS_SUPER_MAGIC:
    case DEBUGFS_MAGIC:
    case TRACEFS_MAGIC:
    case SECURITYFS_MAGIC:
    case SELINUX_MAGIC:
    case BPF_FS_MAGIC:
    case PSTOREFS_MAGIC:
    case EFIVARFS_MAGIC:
    case NSFS_MAGIC:
    case BINFMTFS_MAGIC:
    case kConfigFsMagic:
    case kMqueueMagic:
      return true;
  }
  return false;
}

}  // namespace

Result<void> Server::Attach(const Incoming& in, Outgoing& out) {
  if (in.request.value >= mounts_.size()) return kENOENT;
  const GoferMount& mount = mounts_[in.request.value];
  TRY(ReadAttr(mount.root.get(), out.reply.attr));
  uint32_t type = out.reply.attr.mode & S_IFMT;
  if (type != S_IFDIR && type != S_IFREG) return kENOTDIR;
  int fd = openat(AT_FDCWD, FdName(mount.root.get()).c_str(), O_PATH | O_CLOEXEC);
  if (fd < 0) return HostErrno();
  out.reply.handle = nodes_.Insert(MakeRef<Node>(ScopedFd(fd), out.reply.attr, mount.read_only));
  if (out.reply.handle == 0) return kENFILE;
  return {};
}

Result<RefPtr<Node>> Server::LookUp(const Node& dir, const char* name, WalkStep& step) {
  ScopedFd fd = TRY(OpenBeneath(dir.fd(), name, O_PATH | O_NOFOLLOW, 0));
  TRY(ReadAttr(fd.get(), step.attr));
  Node::Kind kind = Node::Kind::kObject;
  uint64_t device = uint64_t{step.attr.dev_major} << 32 | step.attr.dev_minor;
  if (device != dir.device() && TRY(IsKernelInterface(fd.get()))) kind = Node::Kind::kSealed;
  auto node = MakeRef<Node>(std::move(fd), step.attr, dir.read_only(), kind);
  step.handle = nodes_.Insert(node);
  if (step.handle == 0) return kENFILE;
  return node;
}

Result<void> Server::Walk(const Incoming& in, Outgoing& out) {
  if (in.request.count == 0 || in.request.count > kMaxWalk || !in.data.empty()) return kEINVAL;
  RefPtr<Node> at = TRY(NodeOf(in.request.handle));
  std::string_view rest = in.name;
  for (uint32_t i = 0; i < in.request.count; ++i) {
    uint16_t length;
    if (rest.size() < sizeof length) return kEINVAL;
    memcpy(&length, rest.data(), sizeof length);
    rest.remove_prefix(sizeof length);
    if (rest.size() < length) return kEINVAL;
    std::string name = TRY(CheckedName(rest.substr(0, length)));
    rest.remove_prefix(length);
    if (!at->is_dir()) return kENOTDIR;
    if (at->kind() == Node::Kind::kSealed) return kENOENT;
    WalkStep step = {};
    at = TRY(LookUp(*at, name.c_str(), step));
    memcpy(out.payload.data() + out.payload_size, &step, sizeof step);
    out.payload_size += sizeof step;
    ++out.reply.count;
    if (at->type() == S_IFLNK) {
      // The target saves the round trip that following the link would take. It stays empty when it cannot be read.
      ssize_t n = readlinkat(at->fd(), "", reinterpret_cast<char*>(out.payload.data() + out.payload_size), kMaxTarget);
      if (n > 0) out.payload_size += n;
      if (i + 1 < in.request.count) return kELOOP;
    }
  }
  return {};
}

Result<void> Server::GetAttr(const Incoming& in, Outgoing& out) {
  RefPtr<Node> node = TRY(NodeOf(in.request.handle));
  return ReadAttr(node->fd(), out.reply.attr);
}

Result<void> Server::Readdir(const Incoming& in, Outgoing& out) {
  RefPtr<Node> node = TRY(NodeOf(in.request.handle));
  if (!node->is_dir()) return kENOTDIR;
  if (node->kind() == Node::Kind::kSealed) {
    out.reply.value = 1;
    return {};
  }
  int64_t cookie = static_cast<int64_t>(in.request.value);
  if (cookie < 0) return kEINVAL;
  Attr attr;
  TRY(ReadAttr(node->fd(), attr));
  alignas(8) char buffer[16 << 10];
  MutexLock lock(node->stream_mutex);
  if (!node->stream.valid()) {
    node->stream = TRY(Reopen(*node, O_RDONLY));
    node->stream_position = 0;
  }
  // Always seek to the start: it makes the host's file system look at the directory's present contents.
  if (cookie == 0 || cookie != node->stream_position) {
    if (lseek(node->stream.get(), cookie, SEEK_SET) < 0) return HostErrno();
    node->stream_position = cookie;
  }
  for (;;) {
    // The smallest host record has 24 bytes, ours of that name 36: what is read below always fits.
    if (out.payload_size + 2 * sizeof buffer > kMaxPayload) return {};
    long n = syscall(SYS_getdents64, node->stream.get(), buffer, sizeof buffer);
    if (n < 0) {
      Errno error = HostErrno();
      node->stream.Reset();
      if (out.reply.count != 0) return {};
      return error;
    }
    if (n == 0) {
      out.reply.value = 1;
      return {};
    }
    for (long at = 0; at < n;) {
      KernelDirent head;
      memcpy(&head, buffer + at, sizeof head);
      const char* name = buffer + at + kDirentNameOffset;
      size_t length = strnlen(name, head.reclen - kDirentNameOffset);
      node->stream_position = head.off;
      at += head.reclen;
      if (length > kMaxName) continue;  // longer than a Linux program can say
      DirEntry entry = {};
      entry.ino = head.ino;
      entry.next = head.off;
      entry.dev_major = attr.dev_major;
      entry.dev_minor = attr.dev_minor;
      entry.name_length = static_cast<uint16_t>(length);
      entry.type = head.type;
      if (out.payload_size + sizeof entry + length > kMaxPayload) return kEIO;
      memcpy(out.payload.data() + out.payload_size, &entry, sizeof entry);
      memcpy(out.payload.data() + out.payload_size + sizeof entry, name, length);
      out.payload_size += sizeof entry + length;
      ++out.reply.count;
    }
  }
}

Result<void> Server::Readlink(const Incoming& in, Outgoing& out) {
  RefPtr<Node> node = TRY(NodeOf(in.request.handle));
  if (node->type() != S_IFLNK) return kEINVAL;
  ssize_t n = readlinkat(node->fd(), "", reinterpret_cast<char*>(out.payload.data()), kMaxTarget);
  if (n < 0) return HostErrno();
  out.payload_size = n;
  return {};
}

Result<void> Server::StatFileSystem(const Incoming& in, Outgoing& out) {
  RefPtr<Node> node = TRY(NodeOf(in.request.handle));
  struct statfs st;
  if (fstatfs(node->fd(), &st) != 0) return HostErrno();
  StatFs answer = {};
  answer.type = static_cast<uint64_t>(st.f_type);
  answer.block_size = st.f_bsize;
  answer.blocks = st.f_blocks;
  answer.blocks_free = st.f_bfree;
  answer.blocks_available = st.f_bavail;
  answer.files = st.f_files;
  answer.files_free = st.f_ffree;
  memcpy(&answer.fsid, &st.f_fsid, sizeof answer.fsid);
  answer.name_length = st.f_namelen;
  answer.flags = st.f_flags;
  memcpy(out.payload.data(), &answer, sizeof answer);
  out.payload_size = sizeof answer;
  return {};
}

Result<void> Server::Forget(const Incoming& in, Outgoing&) {
  if (in.request.count > kMaxForget || in.name.size() != in.request.count * sizeof(Handle)) return kEINVAL;
  Result<void> result;
  for (uint32_t i = 0; i < in.request.count; ++i) {
    Handle handle;
    memcpy(&handle, in.name.data() + i * sizeof handle, sizeof handle);
    Result<void> removed = nodes_.Remove(handle);
    if (!removed.ok()) result = removed;
  }
  return result;
}

}  // namespace moat::gofer
