// Making, moving and removing names.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runsc/gofer/server.h"

namespace moat::gofer {
namespace {

// New objects belong to the gofer's own user: hand them to the guest's. chown drops the set-id bits, so the mode
// comes after it. `path`: the object in /proc/self/fd.
Result<void> SetOwnerAndMode(int fd, const Request& r, bool with_mode) {
  Attr attr;
  TRY(ReadAttr(fd, attr));
  if (attr.uid != r.uid || attr.gid != r.gid) {
    if (fchownat(fd, "", r.uid, r.gid, AT_EMPTY_PATH) != 0) return HostErrno();
    TRY(ReadAttr(fd, attr));
  }
  if (with_mode && (attr.mode & 07777) != (r.mode & 07777)) {
    if (fchmodat(AT_FDCWD, FdName(fd).c_str(), r.mode & 07777, 0) != 0) return HostErrno();
  }
  return {};
}

Result<std::string> CheckedTarget(std::string_view target) {
  if (target.empty()) return kENOENT;
  if (target.size() > kMaxTarget) return kENAMETOOLONG;
  if (target.find('\0') != target.npos) return kEINVAL;
  return std::string(target);
}

}  // namespace

Result<void> Server::Adopt(const Node& dir, ScopedFd fd, const Request& request, Outgoing& out) {
  Attr attr;
  TRY(ReadAttr(fd.get(), attr));
  TRY(SetOwnerAndMode(fd.get(), request, (attr.mode & S_IFMT) != S_IFLNK));
  TRY(ReadAttr(fd.get(), out.reply.attr));
  out.reply.handle = nodes_.Insert(MakeRef<Node>(std::move(fd), out.reply.attr, dir.read_only()));
  if (out.reply.handle == 0) return kENFILE;
  return {};
}

Result<void> Server::AdoptFile(const Node& dir, ScopedFd file, const Request& request, Outgoing& out) {
  int path_fd = openat(AT_FDCWD, FdName(file.get()).c_str(), O_PATH | O_CLOEXEC);
  if (path_fd < 0) return HostErrno();
  TRY(Adopt(dir, ScopedFd(path_fd), request, out));
  out.Give(std::move(file));
  return {};
}

Result<void> Server::Create(const Incoming& in, Outgoing& out) {
  RefPtr<Node> dir = TRY(WritableDirectory(in.request.handle));
  std::string name = TRY(CheckedName(in.name));
  ScopedFd file =
      TRY(OpenBeneath(dir->fd(), name.c_str(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, in.request.mode & 0777));
  Result<void> adopted = AdoptFile(*dir, std::move(file), in.request, out);
  if (!adopted.ok()) unlinkat(dir->fd(), name.c_str(), 0);
  return adopted;
}

Result<void> Server::CreateTemporary(const Incoming& in, Outgoing& out) {
  RefPtr<Node> dir = TRY(WritableDirectory(in.request.handle));
  return AdoptFile(*dir, TRY(OpenBeneath(dir->fd(), ".", O_RDWR | O_TMPFILE, in.request.mode & 0777)), in.request, out);
}

Result<void> Server::Mkdir(const Incoming& in, Outgoing& out) {
  RefPtr<Node> dir = TRY(WritableDirectory(in.request.handle));
  std::string name = TRY(CheckedName(in.name));
  if (mkdirat(dir->fd(), name.c_str(), in.request.mode & 0777) != 0) return HostErrno();
  Result<ScopedFd> fd = OpenBeneath(dir->fd(), name.c_str(), O_PATH | O_NOFOLLOW | O_DIRECTORY, 0);
  Result<void> adopted = fd.ok() ? Adopt(*dir, std::move(fd).value(), in.request, out) : Result<void>(fd.error());
  if (!adopted.ok()) unlinkat(dir->fd(), name.c_str(), AT_REMOVEDIR);
  return adopted;
}

Result<void> Server::Mknod(const Incoming& in, Outgoing& out) {
  RefPtr<Node> dir = TRY(WritableDirectory(in.request.handle));
  std::string name = TRY(CheckedName(in.name));
  uint32_t type = in.request.mode & S_IFMT;
  // Device nodes are never made on the host: the sandbox's devices are not the host's.
  if (type != S_IFIFO && type != S_IFSOCK) return kEPERM;
  {
    WriterLock lock(moves_mu_);
    if (mknodat(dir->fd(), name.c_str(), type | (in.request.mode & 0777), 0) != 0) return HostErrno();
  }
  Result<ScopedFd> fd = OpenBeneath(dir->fd(), name.c_str(), O_PATH | O_NOFOLLOW, 0);
  Result<void> adopted = fd.ok() ? Adopt(*dir, std::move(fd).value(), in.request, out) : Result<void>(fd.error());
  if (!adopted.ok()) unlinkat(dir->fd(), name.c_str(), 0);
  return adopted;
}

Result<void> Server::Symlink(const Incoming& in, Outgoing& out) {
  RefPtr<Node> dir = TRY(WritableDirectory(in.request.handle));
  std::string name = TRY(CheckedName(in.name));
  std::string target = TRY(CheckedTarget(in.data));
  if (symlinkat(target.c_str(), dir->fd(), name.c_str()) != 0) return HostErrno();
  Result<ScopedFd> fd = OpenBeneath(dir->fd(), name.c_str(), O_PATH | O_NOFOLLOW, 0);
  Result<void> adopted = fd.ok() ? Adopt(*dir, std::move(fd).value(), in.request, out) : Result<void>(fd.error());
  if (!adopted.ok()) unlinkat(dir->fd(), name.c_str(), 0);
  return adopted;
}

Result<void> Server::Link(const Incoming& in, Outgoing& out) {
  RefPtr<Node> dir = TRY(WritableDirectory(in.request.handle));
  RefPtr<Node> target = TRY(WritableNode(in.request.handle2));
  std::string name = TRY(CheckedName(in.name));
  if (target->is_dir()) return kEPERM;
  WriterLock lock(moves_mu_);
  // Through /proc/self/fd: AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH.
  if (linkat(AT_FDCWD, FdName(target->fd()).c_str(), dir->fd(), name.c_str(), AT_SYMLINK_FOLLOW) != 0) {
    return HostErrno();
  }
  return ReadAttr(target->fd(), out.reply.attr);
}

Result<void> Server::Unlink(const Incoming& in, Outgoing& out) {
  RefPtr<Node> dir = TRY(WritableDirectory(in.request.handle));
  std::string name = TRY(CheckedName(in.name));
  if ((in.request.flags & ~uint32_t{AT_REMOVEDIR}) != 0) return kEINVAL;
  RefPtr<Node> child;
  if (in.request.handle2 != 0) child = TRY(NodeOf(in.request.handle2));
  if (unlinkat(dir->fd(), name.c_str(), static_cast<int>(in.request.flags)) != 0) return HostErrno();
  // What is left of the child: its link count decides whether the object lives on.
  if (child) return ReadAttr(child->fd(), out.reply.attr);
  return {};
}

Result<void> Server::Rename(const Incoming& in, Outgoing&) {
  RefPtr<Node> from = TRY(WritableDirectory(in.request.handle));
  RefPtr<Node> to = TRY(WritableDirectory(in.request.handle2));
  std::string old_name = TRY(CheckedName(in.name));
  std::string new_name = TRY(CheckedName(in.data));
  if ((in.request.flags & ~uint32_t{RENAME_NOREPLACE | RENAME_EXCHANGE}) != 0) return kEINVAL;
  WriterLock lock(moves_mu_);
  // Directly: the C library calls renameat when there are no flags, which the filter does not know.
  if (syscall(SYS_renameat2, from->fd(), old_name.c_str(), to->fd(), new_name.c_str(), in.request.flags) != 0) {
    return HostErrno();
  }
  return {};
}

}  // namespace moat::gofer
