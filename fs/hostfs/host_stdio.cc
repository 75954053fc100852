#include "fs/hostfs/host_stdio.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "fs/hostfs/host_stdio_file.h"
#include "fs/hostfs/host_tty.h"
#include "fs/vfs/vfs.h"

namespace moat {
namespace {

// What the gofer says of a descriptor, or, without one, the host itself.
Result<GoferClient::Stdio> Describe(int fd, GoferClient* gofer) {
  if (gofer != nullptr) return gofer->StdioAdd(fd);
  struct stat st;
  int status = fcntl(fd, F_GETFL);
  if (status < 0 || fstat(fd, &st) != 0) return HostErrno();
  GoferClient::Stdio out = {};
  out.status_flags = status;
  out.attr.mode = st.st_mode;
  out.attr.nlink = static_cast<uint32_t>(st.st_nlink);
  out.attr.uid = st.st_uid;
  out.attr.gid = st.st_gid;
  out.attr.rdev_major = major(st.st_rdev);
  out.attr.rdev_minor = minor(st.st_rdev);
  out.attr.size = static_cast<uint64_t>(st.st_size);
  out.attr.blksize = static_cast<uint32_t>(st.st_blksize);
  return out;
}

Kstat ToKstat(const gofer::Attr& a, uint64_t ino) {
  Kstat k;
  k.ino = ino;
  k.mode = a.mode;
  k.nlink = a.nlink;
  k.uid = a.uid;
  k.gid = a.gid;
  k.dev = HostStdioFs::Get().device();
  k.rdev = {a.rdev_major, a.rdev_minor};
  k.size = a.size;
  k.blocks = a.blocks;
  k.blksize = a.blksize;
  k.atime = a.atime;
  k.mtime = a.mtime;
  k.ctime = a.ctime;
  return k;
}

HostStdioInode::Kind KindOf(int fd, uint32_t mode) {
  if (S_ISREG(mode)) return HostStdioInode::Kind::kRegular;
  if (S_ISSOCK(mode)) return HostStdioInode::Kind::kSocket;
  winsize unused;
  if (S_ISCHR(mode) && ioctl(fd, TIOCGWINSZ, &unused) == 0) return HostStdioInode::Kind::kTerminal;
  return HostStdioInode::Kind::kStream;
}

}  // namespace

Result<HostStdio> WrapHostStdio(std::vector<ScopedFd> fds, RefPtr<GoferClient> gofer) {
  HostStdio out;
  RefPtr<HostTty> terminal;
  for (uint32_t i = 0; i < fds.size(); ++i) {
    RefPtr<File>& file = out.files.emplace_back();
    int fd = fds[i].get();
    if (fd < 0) continue;
    GoferClient::Stdio about = TRY(Describe(fd, gofer.get()));
    int status = about.status_flags;
    HostStdioInode::Kind kind = KindOf(fd, about.attr.mode);
    DeviceId rdev{about.attr.rdev_major, about.attr.rdev_minor};
    RefPtr<HostTty> tty;
    if (kind == HostStdioInode::Kind::kTerminal) {
      // Two different terminals among the three are rare: the further one has a Tty of its own.
      if (!terminal) terminal = MakeRef<HostTty>(rdev);
      tty = terminal->device() == rdev ? terminal : MakeRef<HostTty>(rdev);
    }
    RefPtr<HostStdioInode> inode =
        MakeRef<HostStdioInode>(std::move(fds[i]), kind, ToKstat(about.attr, HostStdioFs::Get().NextIno()),
                                status & O_ACCMODE, about.handle, gofer, tty);
    VfsPath path = vfs::AnonymousPath(inode, "host:[" + std::to_string(inode->ino()) + "]");
    OpenFlags flags{(status & (O_ACCMODE | O_APPEND)) | O_LARGEFILE};
    switch (kind) {
      case HostStdioInode::Kind::kRegular: {
        RefPtr<HostStdioRegularFile> regular = MakeRef<HostStdioRegularFile>(inode, path, flags);
        regular->LearnOffset();
        file = std::move(regular);
        break;
      }
      case HostStdioInode::Kind::kTerminal:
        tty->AddInode(inode.get());
        file = MakeRef<HostTtyFile>(inode, tty, path, flags);
        break;
      case HostStdioInode::Kind::kSocket:
      case HostStdioInode::Kind::kStream:
        file = MakeRef<HostStream>(inode, path, flags);
        break;
    }
  }
  out.tty = terminal;
  return out;
}

}  // namespace moat
