// The ioctls of pseudoterminals. Source: ioctl_tty(2).
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <termios.h>

#include <csignal>
#include <cstring>

#include "fs/devpts/pty.h"
#include "platform/base/log.h"

namespace moat {
namespace {

template <typename T>
Result<T> CopyIn(GuestMemory& memory, uint64_t arg) {
  T value;
  if (memory.CopyIn(&value, arg, sizeof value) != sizeof value) return kEFAULT;
  return value;
}
template <typename T>
Result<int64_t> CopyOut(GuestMemory& memory, uint64_t arg, const T& value) {
  if (memory.CopyOut(arg, &value, sizeof value) != sizeof value) return kEFAULT;
  return 0;
}

constexpr uint32_t kBaud38400 = 38400;

abi::Termios2 ToTermios2(const abi::Termios& t) {
  abi::Termios2 t2{};
  memcpy(&t2, &t, sizeof t);
  t2.c_ispeed = t2.c_ospeed = kBaud38400;
  return t2;
}

abi::Termio ToTermio(const abi::Termios& t) {
  abi::Termio old{};
  old.c_iflag = static_cast<uint16_t>(t.c_iflag);
  old.c_oflag = static_cast<uint16_t>(t.c_oflag);
  old.c_cflag = static_cast<uint16_t>(t.c_cflag);
  old.c_lflag = static_cast<uint16_t>(t.c_lflag);
  old.c_line = t.c_line;
  memcpy(old.c_cc, t.c_cc, sizeof old.c_cc);
  return old;
}

// The low halves replace the old ones.
void ApplyTermio(const abi::Termio& from, abi::Termios& t) {
  auto low = [](uint32_t& to, uint16_t value) { to = (to & 0xffff0000) | value; };
  low(t.c_iflag, from.c_iflag);
  low(t.c_oflag, from.c_oflag);
  low(t.c_cflag, from.c_cflag);
  low(t.c_lflag, from.c_lflag);
  t.c_line = from.c_line;
  memcpy(t.c_cc, from.c_cc, sizeof from.c_cc);
}

// What TIOCSLCKTRMIOS has locked stays: flags bit by bit, the rest where it is not zero (ioctl_tty(2)).
void KeepLocked(const abi::Termios& locked, const abi::Termios& old, abi::Termios& next) {
  auto keep = [](uint32_t mask, uint32_t was, uint32_t& now) { now = (now & ~mask) | (was & mask); };
  keep(locked.c_iflag, old.c_iflag, next.c_iflag);
  keep(locked.c_oflag, old.c_oflag, next.c_oflag);
  keep(locked.c_cflag, old.c_cflag, next.c_cflag);
  keep(locked.c_lflag, old.c_lflag, next.c_lflag);
  if (locked.c_line != 0) next.c_line = old.c_line;
  for (size_t i = 0; i < sizeof locked.c_cc; ++i) {
    if (locked.c_cc[i] != 0) next.c_cc[i] = old.c_cc[i];
  }
}

}  // namespace

Result<int64_t> Pty::SetTermios(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg, bool master) {
  abi::Termios next;
  {
    MutexLock lock(mu_);
    next = line_.termios();
  }
  bool flush = false;
  switch (cmd) {
    case TCSETSF:
      flush = true;
      [[fallthrough]];
    case TCSETS:
    case TCSETSW:
      next = TRY(CopyIn<abi::Termios>(memory, arg));
      break;
    case abi::kTcsetsf2:
      flush = true;
      [[fallthrough]];
    case abi::kTcsets2:
    case abi::kTcsetsw2: {
      auto t2 = TRY(CopyIn<abi::Termios2>(memory, arg));
      memcpy(&next, &t2, sizeof next);
      break;
    }
    default:  // TCSETA, TCSETAW, TCSETAF
      flush = cmd == TCSETAF;
      ApplyTermio(TRY(CopyIn<abi::Termio>(memory, arg)), next);
      break;
  }
  // A pty's character size is fixed (Linux: pty_set_termios).
  next.c_cflag = (next.c_cflag & ~(CSIZE | PARENB)) | CS8 | CREAD;
  if (!master && tty_job_control != nullptr) TRY(tty_job_control->CheckChange(ctx, *this));
  LineEffects fx;
  {
    MutexLock lock(mu_);
    const bool flow_before = LineDiscipline::UsualFlowControl(line_.termios());
    if (flush) line_.FlushInput(fx);
    KeepLocked(locked_termios_, line_.termios(), next);
    fx.packet = 0;
    line_.SetTermios(next, fx);
    const bool flow_after = LineDiscipline::UsualFlowControl(next);
    if (flow_before != flow_after) fx.packet |= flow_after ? TIOCPKT_DOSTOP : TIOCPKT_NOSTOP;
    if (next.c_lflag & EXTPROC) fx.packet |= TIOCPKT_IOCTL;
  }
  Apply(fx);
  return 0;
}

Result<int64_t> Pty::Flush(const VfsContext& ctx, uint64_t queue, bool master) {
  if (queue != TCIFLUSH && queue != TCOFLUSH && queue != TCIOFLUSH) return kEINVAL;
  if (!master && tty_job_control != nullptr) TRY(tty_job_control->CheckChange(ctx, *this));
  LineEffects fx;
  {
    MutexLock lock(mu_);
    // The master's input is the slave's output.
    const bool in = queue != TCOFLUSH, out = queue != TCIFLUSH;
    if (master ? out : in) line_.FlushInput(fx);
    if (master ? in : out) line_.FlushOutput(fx);
  }
  Apply(fx);
  return 0;
}

Result<int64_t> Pty::SetWindowSize(GuestMemory& memory, uint64_t arg) {
  auto size = TRY(CopyIn<abi::WindowSize>(memory, arg));
  {
    MutexLock lock(mu_);
    if (memcmp(&size, &window_, sizeof size) == 0) return 0;
    window_ = size;
  }
  if (tty_job_control != nullptr) tty_job_control->SignalForeground(*this, SIGWINCH);
  return 0;
}

Result<int64_t> Pty::CommonIoctl(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg, bool master) {
  switch (cmd) {
    case TCGETS: {
      abi::Termios t;
      {
        MutexLock lock(mu_);
        t = line_.termios();
      }
      return CopyOut(memory, arg, t);
    }
    case abi::kTcgets2: {
      abi::Termios2 t;
      {
        MutexLock lock(mu_);
        t = ToTermios2(line_.termios());
      }
      return CopyOut(memory, arg, t);
    }
    case TCGETA: {
      abi::Termio t;
      {
        MutexLock lock(mu_);
        t = ToTermio(line_.termios());
      }
      return CopyOut(memory, arg, t);
    }
    case TCSETS:
    case TCSETSW:
    case TCSETSF:
    case abi::kTcsets2:
    case abi::kTcsetsw2:
    case abi::kTcsetsf2:
    case TCSETA:
    case TCSETAW:
    case TCSETAF:
      return SetTermios(ctx, memory, cmd, arg, master);
    case TIOCGLCKTRMIOS: {
      abi::Termios locked;
      {
        MutexLock lock(mu_);
        locked = locked_termios_;
      }
      return CopyOut(memory, arg, locked);
    }
    case TIOCSLCKTRMIOS: {
      if (!ctx.cred.HasCapability(CAP_SYS_ADMIN)) return kEPERM;
      const auto locked = TRY(CopyIn<abi::Termios>(memory, arg));
      MutexLock lock(mu_);
      locked_termios_ = locked;
      return 0;
    }
    case TIOCGWINSZ: {
      abi::WindowSize size;
      {
        MutexLock lock(mu_);
        size = window_;
      }
      return CopyOut(memory, arg, size);
    }
    case TIOCSWINSZ:
      return SetWindowSize(memory, arg);
    case TCFLSH:
      return Flush(ctx, arg, master);
    case TCXONC: {
      if (arg > TCION) return kEINVAL;
      if (!master && tty_job_control != nullptr) TRY(tty_job_control->CheckChange(ctx, *this));
      LineEffects fx;
      {
        MutexLock lock(mu_);
        if (arg == TCOOFF) line_.Stop(fx);
        if (arg == TCOON) line_.Start(fx);
        // TCIOFF and TCION send the stop and start characters to the other side.
        char c = static_cast<char>(line_.termios().c_cc[arg == TCIOFF ? VSTOP : VSTART]);
        if ((arg == TCIOFF || arg == TCION) && c != 0) {
          if (master) {
            line_.Input({&c, 1}, fx);
          } else {
            line_.Output({&c, 1}, fx);
          }
        }
      }
      Apply(fx);
      return 0;
    }
    case TCSBRK:  // drain: what was written is at the master already
    case TCSBRKP:
    case TIOCSBRK:
    case TIOCCBRK:
      if (!master && tty_job_control != nullptr) TRY(tty_job_control->CheckChange(ctx, *this));
      return 0;
    case TIOCEXCL: {
      MutexLock lock(mu_);
      exclusive_ = true;
      return 0;
    }
    case TIOCNXCL: {
      MutexLock lock(mu_);
      exclusive_ = false;
      return 0;
    }
    case TIOCGEXCL: {
      int v;
      {
        MutexLock lock(mu_);
        v = exclusive_;
      }
      return CopyOut(memory, arg, v);
    }
    case TIOCGETD:
      return CopyOut(memory, arg, int{N_TTY});
    case TIOCSETD:
      if (TRY(CopyIn<int>(memory, arg)) == N_TTY) return 0;
      MOAT_LOG_ONCE("ioctl TIOCSETD: only N_TTY exists, answers EINVAL");
      return kEINVAL;
    case TIOCGSOFTCAR: {
      int v;
      {
        MutexLock lock(mu_);
        v = (line_.termios().c_cflag & CLOCAL) != 0;
      }
      return CopyOut(memory, arg, v);
    }
    case TIOCGDEV: {
      DeviceId d = device();
      return CopyOut(memory, arg, (d.minor & 0xff) | d.major << 8 | (d.minor & ~0xffu) << 12);
    }
    case TIOCCONS:
      return ctx.cred.HasCapability(CAP_SYS_ADMIN) ? kEBUSY : kEPERM;
    case TIOCSTI: {
      const bool own = tty_job_control != nullptr && tty_job_control->ControllingTty(ctx) == this;
      if (!own && !ctx.cred.HasCapability(CAP_SYS_ADMIN)) return kEPERM;
      char c = TRY(CopyIn<char>(memory, arg));
      LineEffects fx;
      {
        MutexLock lock(mu_);
        line_.Input({&c, 1}, fx);
      }
      Apply(fx);
      return 0;
    }
    case TIOCVHANGUP:
      if (!ctx.cred.HasCapability(CAP_SYS_ADMIN)) return kEPERM;
      Hangup();
      if (tty_job_control != nullptr) tty_job_control->HungUp(*this);
      return 0;
    case TIOCSCTTY:
    case TIOCNOTTY:
    case TIOCGPGRP:
    case TIOCSPGRP:
    case TIOCGSID:
      if (tty_job_control == nullptr) return kENOTTY;
      return tty_job_control->Ioctl(ctx, memory, *this, cmd, arg, master);
    default:
      return kENOTTY;
  }
}

Result<int64_t> Pty::SlaveIoctl(const VfsContext& ctx, GuestMemory& memory, uint64_t generation, uint32_t cmd,
                                uint64_t arg) {
  if (HungUp(generation)) return cmd == TIOCSPGRP ? kENOTTY : kEIO;
  if (cmd == FIONREAD || cmd == TIOCOUTQ) {
    int n;
    {
      MutexLock lock(mu_);
      n = cmd == FIONREAD ? line_.InputCount() : line_.OutputCount();
    }
    return CopyOut(memory, arg, n);
  }
  return CommonIoctl(ctx, memory, cmd, arg, false);
}

Result<int64_t> Pty::MasterIoctl(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg) {
  switch (cmd) {
    case TIOCGPTN:
      return CopyOut(memory, arg, number_);
    case TIOCSPTLCK: {
      int v = TRY(CopyIn<int>(memory, arg));
      MutexLock lock(mu_);
      locked_ = v != 0;
      return 0;
    }
    case TIOCGPTLCK: {
      int v;
      {
        MutexLock lock(mu_);
        v = locked_;
      }
      return CopyOut(memory, arg, v);
    }
    case TIOCPKT: {
      int v = TRY(CopyIn<int>(memory, arg));
      MutexLock lock(mu_);
      if (v != 0 && !packet_mode_) packet_events_ = 0;
      packet_mode_ = v != 0;
      return 0;
    }
    case TIOCGPKT: {
      int v;
      {
        MutexLock lock(mu_);
        v = packet_mode_;
      }
      return CopyOut(memory, arg, v);
    }
    case TIOCSIG:
      if (arg < 1 || arg >= 64) return kEINVAL;
      if (arg != SIGINT && arg != SIGQUIT && arg != SIGTSTP) return kEINVAL;
      if (tty_job_control != nullptr) tty_job_control->SignalForeground(*this, static_cast<int>(arg));
      return 0;
    case FIONREAD:
    case TIOCOUTQ: {
      int n;
      {
        MutexLock lock(mu_);
        n = cmd == FIONREAD ? line_.OutputCount() : 0;
      }
      return CopyOut(memory, arg, n);
    }
    default:
      return CommonIoctl(ctx, memory, cmd, arg, true);
  }
}

}  // namespace moat
