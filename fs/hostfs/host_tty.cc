#include "fs/hostfs/host_tty.h"

#include <asm/termbits.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include "platform/base/log.h"
#include "platform/usermem/user_ptr.h"

namespace moat {
namespace {

// The kernel's own layouts (asm/termbits.h), which are what crosses the guest boundary.
static_assert(sizeof(struct termios) == 36 && sizeof(struct termios2) == 44 && sizeof(struct winsize) == 8);

}  // namespace

void HostTty::AddInode(HostStdioInode* inode) {
  MutexLock lock(mu_);
  inodes_.push_back(inode);
}

void HostTty::InodeGone(HostStdioInode* inode) {
  MutexLock lock(mu_);
  std::erase(inodes_, inode);
}

RefPtr<HostStdioInode> HostTty::AnyInode() {
  RefPtr<HostStdioInode> found;
  std::vector<RefPtr<HostStdioInode>> others;  // released after the lock
  MutexLock lock(mu_);
  for (HostStdioInode* inode : inodes_) {
    if ((found && found->access_mode() == O_RDWR) || !inode->TryAddRef()) continue;
    if (found) others.push_back(std::move(found));
    found = AdoptRef(inode);
  }
  return found;
}

Result<RefPtr<File>> HostTty::OpenAgain(const VfsContext&, const VfsPath& path, OpenFlags flags) {
  RefPtr<HostStdioInode> inode = AnyInode();
  if (!inode || hung_up()) return kEIO;
  return RefPtr<File>(MakeRef<HostTtyFile>(inode, RefPtr<HostTty>(this), path, flags));
}

void HostTty::Hangup() {
  hung_up_.store(true, std::memory_order_release);
  std::vector<RefPtr<HostStdioInode>> inodes;
  {
    MutexLock lock(mu_);
    for (HostStdioInode* inode : inodes_) {
      if (inode->TryAddRef()) inodes.push_back(AdoptRef(inode));
    }
  }
  for (const RefPtr<HostStdioInode>& inode : inodes)
    inode->wait_queue().Notify(EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP);
}

HostTtyFile::HostTtyFile(RefPtr<HostStdioInode> inode, RefPtr<HostTty> tty, const VfsPath& path, OpenFlags flags)
    : HostStream(std::move(inode), path, flags), tty_(std::move(tty)) {
  LookAtTostop();
}

void HostTtyFile::LookAtTostop() {
  struct termios t;
  if (ioctl(fd(), TCGETS, &t) == 0) tostop_.store((t.c_lflag & TOSTOP) != 0, std::memory_order_relaxed);
}

Result<size_t> HostTtyFile::Read(const VfsContext& ctx, IoDest& dst) {
  if (tty_->hung_up()) return size_t{0};
  if (tty_job_control != nullptr) TRY(tty_job_control->CheckRead(ctx, *tty_));
  return HostStream::Read(ctx, dst);
}

Result<size_t> HostTtyFile::Write(const VfsContext& ctx, IoSource& src) {
  if (tty_->hung_up()) return kEIO;
  if (tostop_.load(std::memory_order_relaxed)) TRY(CheckChange(ctx));
  return HostStream::Write(ctx, src);
}

EventMask HostTtyFile::Poll(EventMask interest) {
  if (tty_->hung_up()) return (interest & (EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM)) | EPOLLERR | EPOLLHUP;
  return HostStream::Poll(interest);
}

Result<void> HostTtyFile::CheckChange(const VfsContext& ctx) {
  if (tty_job_control == nullptr) return {};
  return tty_job_control->CheckChange(ctx, *tty_);
}

template <typename T>
Result<int64_t> HostTtyFile::Get(GuestMemory& memory, uint32_t cmd, uint64_t arg) {
  T value = {};
  if (ioctl(fd(), cmd, &value) != 0) return HostErrno();
  TRY(UserOut<T>(arg).Write(memory, value));
  return 0;
}

template <typename T>
Result<int64_t> HostTtyFile::Set(GuestMemory& memory, uint32_t cmd, uint64_t arg) {
  T value = TRY(UserIn<T>(arg).Read(memory));
  if (ioctl(fd(), cmd, &value) != 0) return HostErrno();
  return 0;
}

Result<int64_t> HostTtyFile::Act(uint32_t cmd, uint64_t arg) {
  if (ioctl(fd(), cmd, static_cast<unsigned long>(static_cast<uint32_t>(arg))) != 0) return HostErrno();
  return 0;
}

Result<int64_t> HostTtyFile::Ioctl(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg) {
  if (tty_->hung_up()) return kEIO;
  switch (cmd) {
    case TCGETS:
      return Get<struct termios>(memory, cmd, arg);
    case TCGETS2:
      return Get<struct termios2>(memory, cmd, arg);
    case TCSETS:
    case TCSETSW:
    case TCSETSF: {
      TRY(CheckChange(ctx));
      int64_t done = TRY(Set<struct termios>(memory, cmd, arg));
      LookAtTostop();
      return done;
    }
    case TCSETS2:
    case TCSETSW2:
    case TCSETSF2: {
      TRY(CheckChange(ctx));
      int64_t done = TRY(Set<struct termios2>(memory, cmd, arg));
      LookAtTostop();
      return done;
    }
    case TIOCGWINSZ:
      return Get<struct winsize>(memory, cmd, arg);
    case TIOCSWINSZ:
      // The host's kernel sends SIGWINCH to runsc, which passes it on.
      return Set<struct winsize>(memory, cmd, arg);
    case FIONREAD:  // TIOCINQ
    case TIOCOUTQ:
      return Get<int>(memory, cmd, arg);
    case TIOCGETD: {
      TRY(UserOut<int>(arg).Write(memory, N_TTY));
      return 0;
    }
    case TCFLSH:
    case TCXONC:
    case TCSBRK:
    case TCSBRKP:
      TRY(CheckChange(ctx));
      return Act(cmd, arg);
    case TIOCGPGRP:
    case TIOCSPGRP:
    case TIOCGSID:
    case TIOCSCTTY:
    case TIOCNOTTY:
      if (tty_job_control == nullptr) return kENOTTY;
      return tty_job_control->Ioctl(ctx, memory, *tty_, cmd, arg, /*through_master=*/false);
    case TIOCSTI:
      // Would put the guest's bytes before the host's shell.
      MOAT_LOG_ONCE("TIOCSTI on a host terminal is refused with EPERM");
      return kEPERM;
    default:
      MOAT_LOG_ONCE("host terminal: ioctl {:#x} answers ENOTTY", cmd);
      return kENOTTY;
  }
}

}  // namespace moat
