// Terminals' view of sessions and process groups, implemented over the process tree. Source: credentials(7),
// ioctl_tty(2).
#ifndef MOAT_SENTRY_KERNEL_JOB_CONTROL_H_
#define MOAT_SENTRY_KERNEL_JOB_CONTROL_H_

#include "fs/vfs/tty_job_control.h"

namespace moat {

class Kernel;
class ThreadGroup;

class JobControl final : public TtyJobControl {
 public:
  explicit JobControl(Kernel& kernel) : kernel_(kernel) {}
  Result<void> CheckRead(const VfsContext& ctx, Tty& tty) override;
  Result<void> CheckChange(const VfsContext& ctx, Tty& tty) override;
  void SignalForeground(Tty& tty, int signo) override;
  void HungUp(Tty& tty) override;
  void Opened(const VfsContext& ctx, Tty& tty) override;
  Result<int64_t> Ioctl(const VfsContext& ctx, GuestMemory& memory, Tty& tty, uint32_t cmd, uint64_t arg,
                        bool through_master) override;
  RefPtr<Tty> ControllingTty(const VfsContext& ctx) override;

  // For a process that starts with a terminal (ProcessSpec::tty).
  void SetControllingTty(ThreadGroup& leader, RefPtr<Tty> tty);
  // The end of a session leader: its terminal is given up and hung up.
  void LeaderExits(ThreadGroup& leader);

 private:
  Result<void> CheckForeground(const VfsContext& ctx, Tty& tty, int signo);
  Result<int64_t> SetForeground(const VfsContext& ctx, GuestMemory& memory, Tty& tty, GuestAddr arg);
  Kernel& kernel_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_JOB_CONTROL_H_
