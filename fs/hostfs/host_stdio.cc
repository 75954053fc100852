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

Nanos ToNanos(const timespec& t) { return t.tv_sec * kNanosPerSec + t.tv_nsec; }

Kstat ToKstat(const struct stat& st, uint64_t ino) {
  Kstat k;
  k.ino = ino;
  k.mode = st.st_mode;
  k.nlink = static_cast<uint32_t>(st.st_nlink);
  k.uid = st.st_uid;
  k.gid = st.st_gid;
  k.dev = HostStdioFs::Get().device();
  k.rdev = {major(st.st_rdev), minor(st.st_rdev)};
  k.size = static_cast<uint64_t>(st.st_size);
  k.blocks = static_cast<uint64_t>(st.st_blocks);
  k.blksize = static_cast<uint32_t>(st.st_blksize);
  k.atime = ToNanos(st.st_atim);
  k.mtime = ToNanos(st.st_mtim);
  k.ctime = ToNanos(st.st_ctim);
  return k;
}

HostStdioInode::Kind KindOf(int fd, const struct stat& st) {
  if (S_ISREG(st.st_mode)) return HostStdioInode::Kind::kRegular;
  if (S_ISSOCK(st.st_mode)) return HostStdioInode::Kind::kSocket;
  winsize unused;
  if (S_ISCHR(st.st_mode) && ioctl(fd, TIOCGWINSZ, &unused) == 0) return HostStdioInode::Kind::kTerminal;
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
    struct stat st;
    int status = fcntl(fd, F_GETFL);
    if (fstat(fd, &st) != 0 || status < 0) return HostErrno();
    HostStdioInode::Kind kind = KindOf(fd, st);
    DeviceId rdev{major(st.st_rdev), minor(st.st_rdev)};
    RefPtr<HostTty> tty;
    if (kind == HostStdioInode::Kind::kTerminal) {
      // Two different terminals among the three are rare: the further one has a Tty of its own.
      if (!terminal) terminal = MakeRef<HostTty>(rdev);
      tty = terminal->device() == rdev ? terminal : MakeRef<HostTty>(rdev);
    }
    RefPtr<HostStdioInode> inode =
        MakeRef<HostStdioInode>(std::move(fds[i]), kind, ToKstat(st, HostStdioFs::Get().NextIno()), status & O_ACCMODE,
                                i, gofer, tty);
    VfsPath path = vfs::AnonymousPath(inode, "host:[" + std::to_string(inode->ino()) + "]");
    OpenFlags flags{(status & (O_ACCMODE | O_APPEND)) | O_LARGEFILE};
    switch (kind) {
      case HostStdioInode::Kind::kRegular:
        file = MakeRef<HostStdioRegularFile>(inode, path, flags);
        break;
      case HostStdioInode::Kind::kTerminal:
        tty->SetInode(inode.get());
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
