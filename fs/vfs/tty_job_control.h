// Terminals and job control, seen from below: what a terminal (fs/devpts, host terminals) needs to know about
// sessions and process groups, which live in sentry/kernel. The sentry implements TtyJobControl and installs it at
// boot; terminals derive from Tty. Source: credentials(7), ioctl_tty(2), termios(3) "job control".
#ifndef MOAT_FS_VFS_TTY_JOB_CONTROL_H_
#define MOAT_FS_VFS_TTY_JOB_CONTROL_H_

#include <atomic>

#include "fs/vfs/file.h"

namespace moat {

// A terminal that may be the controlling terminal of a session.
class Tty : public RefCounted {
 public:
  virtual DeviceId device() const = 0;  // tty_nr of /proc/<pid>/stat
  // open(2) of /dev/tty by a process whose controlling terminal this is.
  virtual Result<RefPtr<File>> OpenAgain(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) = 0;
  // vhangup(2), or the end of the session leader: reads answer end of file, writes kEIO, pollers get EPOLLHUP.
  // Called without locks; the caller signals the processes.
  virtual void Hangup() = 0;

  // Kept here for the sentry: the session whose controlling terminal this is, and its foreground process group
  // (null: none). Guarded by the sentry's lock of the process tree (kKernel); terminals never look at it.
  struct JobSlot {
    RefPtr<RefCounted> session;
    RefPtr<RefCounted> foreground;
  };
  JobSlot job_slot;

  // A terminal of the host's whose foreground is outside of the sandbox: every process group inside is in the
  // background. Any thread.
  std::atomic<bool> foreground_is_outside{false};
};

// Called without locks of rank kKernel or above; `ctx.task` names the calling task.
class TtyJobControl {
 public:
  virtual ~TtyJobControl() = default;

  // May the caller read now? Ok when `tty` is not its controlling terminal or its group is in the foreground. Else the
  // group got SIGTTIN: kERESTARTSYS; or kEIO when it is orphaned, or SIGTTIN is ignored or blocked.
  virtual Result<void> CheckRead(const VfsContext& ctx, Tty& tty) = 0;
  // May the caller write with TOSTOP, or change the terminal? Ok too when SIGTTOU is ignored or blocked. Else the
  // group got SIGTTOU: kERESTARTSYS; kEIO when it is orphaned.
  virtual Result<void> CheckChange(const VfsContext& ctx, Tty& tty) = 0;
  // SIGINT, SIGQUIT, SIGTSTP, SIGWINCH to the foreground process group, if there is one.
  virtual void SignalForeground(Tty& tty, int signo) = 0;
  // The terminal is gone: SIGHUP and SIGCONT to the session leader, the foreground group likewise; the session
  // has no controlling terminal any more.
  virtual void HungUp(Tty& tty) = 0;
  // open(2) without O_NOCTTY: a session leader without a controlling terminal gets this one if it is free.
  virtual void Opened(const VfsContext& ctx, Tty& tty) = 0;
  // TIOCSCTTY, TIOCNOTTY, TIOCGPGRP, TIOCSPGRP, TIOCGSID. `through_master`: the ioctl came by the pty's master,
  // which need not be the caller's controlling terminal.
  virtual Result<int64_t> Ioctl(const VfsContext& ctx, GuestMemory& memory, Tty& tty, uint32_t cmd, uint64_t arg,
                                bool through_master) = 0;
  // The caller's controlling terminal, or null.
  virtual RefPtr<Tty> ControllingTty(const VfsContext& ctx) = 0;
};

// Set once at boot, before any guest runs. Null (unit tests without one): no job control, everything is allowed.
inline TtyJobControl* tty_job_control = nullptr;

}  // namespace moat

#endif  // MOAT_FS_VFS_TTY_JOB_CONTROL_H_
