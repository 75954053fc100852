// timerfd_create(2): expirations of a timer as a file.
// An interval timer that nobody reads costs one expiration, not one per interval: it starts again at the read.
#ifndef MOAT_FS_ANON_TIMERFD_H_
#define MOAT_FS_ANON_TIMERFD_H_

#include "fs/vfs/file.h"
#include "platform/fiber/timer.h"

namespace moat {

class TimerFd final : public File, private Timer {
 public:
  // `clock`: CLOCK_REALTIME, MONOTONIC, BOOTTIME or an _ALARM one; `flags`: TFD_NONBLOCK. Checked by the caller.
  TimerFd(clockid_t clock, int flags);
  ~TimerFd() override;

  struct Setting {
    Nanos value = 0;     // 0: disarmed. Time left, or an absolute time with TFD_TIMER_ABSTIME
    Nanos interval = 0;  // 0: once
  };
  // Returns the setting before. `flags`: TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, checked by the caller.
  Setting SetTime(int flags, Setting s);
  Setting GetTime();

  Result<size_t> Read(const VfsContext& ctx, IoDest& dst) override;
  EventMask Poll(EventMask interest) override;
  Result<int64_t> Ioctl(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg) override;
  std::string FdInfo() const override;

 private:
  void OnTimer() override;
  void ArmLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Counts the expirations that came since and moves next_ past now.
  void CatchUpLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Setting GetTimeLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const clockid_t clock_;       // as the guest named it
  const clockid_t host_clock_;  // without _ALARM
  mutable Mutex mu_{LockRank::kPipe};
  Nanos next_ ABSL_GUARDED_BY(mu_) = 0;  // on host_clock_; 0: disarmed
  Nanos interval_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t ticks_ ABSL_GUARDED_BY(mu_) = 0;
  bool expired_ ABSL_GUARDED_BY(mu_) = false;  // next_ is stale: intervals since then are not counted yet
  int set_flags_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace moat

#endif  // MOAT_FS_ANON_TIMERFD_H_
