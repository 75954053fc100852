// A pseudoterminal: the state that its master and its slaves share. See pty(7), ioctl_tty(2).
// Thread-safe. Lock: kTty; it is never held over notifications to job control or guest copies.
#ifndef MOAT_FS_DEVPTS_PTY_H_
#define MOAT_FS_DEVPTS_PTY_H_

#include "fs/devpts/line_discipline.h"
#include "fs/vfs/tty_job_control.h"
#include "platform/base/mutex.h"
#include "platform/fiber/timer.h"

namespace moat {

inline constexpr uint32_t kPtySlaveMajor = 136;

class Pty final : public Tty {
 public:
  explicit Pty(uint32_t number) : number_(number) {}
  uint32_t number() const { return number_; }

  // --- Tty ---
  DeviceId device() const override { return {kPtySlaveMajor, number_}; }
  Result<RefPtr<File>> OpenAgain(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) override;
  void Hangup() override;

  // Opens the slave: kEIO while it is locked (TIOCSPTLCK) or when the master is gone, kEBUSY after TIOCEXCL.
  Result<RefPtr<File>> OpenSlave(const VfsContext& ctx, const VfsPath& path, OpenFlags flags);
  void CloseSlave();
  void CloseMaster();

  // --- master ---
  Result<size_t> MasterRead(IoDest& dst);
  Result<size_t> MasterWrite(IoSource& src);
  EventMask PollMaster(EventMask interest);
  Result<int64_t> MasterIoctl(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg);
  WaitQueue& master_queue() { return master_queue_; }

  // --- slave. `generation`: of its open; a hangup ends all opens before it. ---
  Result<size_t> SlaveRead(const VfsContext& ctx, IoDest& dst, uint64_t generation, bool nonblocking);
  Result<size_t> SlaveWrite(const VfsContext& ctx, IoSource& src, uint64_t generation);
  EventMask PollSlave(EventMask interest, uint64_t generation);
  Result<int64_t> SlaveIoctl(const VfsContext& ctx, GuestMemory& memory, uint64_t generation, uint32_t cmd,
                             uint64_t arg);
  WaitQueue& slave_queue() { return slave_queue_; }

 private:
  // ioctls that mean the same on both sides; kENOTTY for others.
  Result<int64_t> CommonIoctl(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg, bool master);
  Result<int64_t> SetTermios(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg, bool master);
  Result<int64_t> Flush(const VfsContext& ctx, uint64_t queue, bool master);
  Result<int64_t> SetWindowSize(GuestMemory& memory, uint64_t arg);
  // Carries out what the line discipline asked for; without the lock.
  void Apply(const LineEffects& fx);
  bool HungUp(uint64_t generation) {
    MutexLock lock(mu_);
    return generation != generation_;
  }

  // VTIME: wakes the readers and lets the next read return with what there is.
  class ReadTimer final : public Timer {
   public:
    explicit ReadTimer(Pty& pty) : pty_(pty) {}
    ~ReadTimer() override { Cancel(); }

   private:
    void OnTimer() override;
    Pty& pty_;
  };

  const uint32_t number_;
  Mutex mu_{LockRank::kTty};
  LineDiscipline line_ ABSL_GUARDED_BY(mu_);
  abi::Termios locked_termios_ ABSL_GUARDED_BY(mu_){};  // TIOCSLCKTRMIOS
  abi::WindowSize window_ ABSL_GUARDED_BY(mu_){};
  bool locked_ ABSL_GUARDED_BY(mu_) = true;
  bool exclusive_ ABSL_GUARDED_BY(mu_) = false;
  bool packet_mode_ ABSL_GUARDED_BY(mu_) = false;
  uint8_t packet_events_ ABSL_GUARDED_BY(mu_) = 0;
  bool master_closed_ ABSL_GUARDED_BY(mu_) = false;
  bool slave_opened_ ABSL_GUARDED_BY(mu_) = false;  // ever, since the last time that all were closed
  bool other_closed_ ABSL_GUARDED_BY(mu_) = false;  // the last slave was closed
  int slaves_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t generation_ ABSL_GUARDED_BY(mu_) = 0;
  bool read_timed_out_ ABSL_GUARDED_BY(mu_) = false;
  // A write found too little room since the last signal about it (fcntl(2) O_ASYNC).
  std::atomic<bool> master_wants_room_{false}, slave_wants_room_{false};
  WaitQueue master_queue_;
  WaitQueue slave_queue_;
  ReadTimer read_timer_{*this};
};

}  // namespace moat

#endif  // MOAT_FS_DEVPTS_PTY_H_
