#include "fs/anon/timerfd.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>

#include "fs/anon/anon_inode.h"

namespace moat {
namespace {
constexpr uint32_t kTfdIocSetTicks = _IOW('T', 0, uint64_t);  // linux/timerfd.h

clockid_t HostClock(clockid_t clock) {
  switch (clock) {
    case CLOCK_REALTIME_ALARM:
      return CLOCK_REALTIME;
    case CLOCK_BOOTTIME_ALARM:
      return CLOCK_BOOTTIME;
    default:
      return clock;
  }
}
}  // namespace

TimerFd::TimerFd(clockid_t clock, int flags)
    : File(AnonInodePath("timerfd"), OpenFlags{O_RDWR | (flags & TFD_NONBLOCK)}),
      clock_(clock),
      host_clock_(HostClock(clock)) {}

TimerFd::~TimerFd() { Cancel(); }

void TimerFd::ArmLocked() {
  Nanos left = next_ - ReadHostClock(host_clock_);
  Arm(DeadlineAfter(left));
}

void TimerFd::CatchUpLocked() {
  if (!expired_) return;
  expired_ = false;
  if (interval_ == 0) {
    next_ = 0;
    return;
  }
  Nanos now = ReadHostClock(host_clock_);
  // next_ itself was counted when it expired.
  uint64_t later = now >= next_ ? static_cast<uint64_t>((now - next_) / interval_) : 0;
  ticks_ += later;
  if (__builtin_add_overflow(next_, static_cast<Nanos>(later + 1) * interval_, &next_)) next_ = kNoDeadline;
  ArmLocked();
}

TimerFd::Setting TimerFd::GetTimeLocked() {
  CatchUpLocked();
  Setting s;
  s.interval = interval_;
  if (next_ != 0) s.value = std::max<Nanos>(next_ - ReadHostClock(host_clock_), 1);
  return s;
}

TimerFd::Setting TimerFd::GetTime() {
  MutexLock lock(mu_);
  return GetTimeLocked();
}

TimerFd::Setting TimerFd::SetTime(int flags, Setting s) {
  Cancel();
  MutexLock lock(mu_);
  Setting old = GetTimeLocked();
  Disarm();  // GetTimeLocked may have armed it again
  ticks_ = 0;
  expired_ = false;
  interval_ = s.interval;
  set_flags_ = flags & (TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET);
  next_ = 0;
  if (s.value != 0) {
    if (flags & TFD_TIMER_ABSTIME) {
      next_ = s.value;
    } else if (__builtin_add_overflow(ReadHostClock(host_clock_), s.value, &next_)) {
      next_ = kNoDeadline;
    }
    ArmLocked();
  }
  return old;
}

void TimerFd::OnTimer() {
  {
    MutexLock lock(mu_);
    if (next_ == 0 || expired_) return;        // set anew meanwhile
    if (ReadHostClock(host_clock_) < next_) {  // the clock was set back
      ArmLocked();
      return;
    }
    expired_ = true;
    ++ticks_;
    if (interval_ == 0) {
      next_ = 0;
      expired_ = false;
    }
  }
  wait_queue().Notify(EPOLLIN | EPOLLRDNORM);
}

Result<size_t> TimerFd::Read(const VfsContext&, IoDest& dst) {
  if (dst.remaining() < sizeof(uint64_t)) return kEINVAL;
  uint64_t ticks;
  {
    MutexLock lock(mu_);
    if (ticks_ == 0) return kEAGAIN;
    CatchUpLocked();
    ticks = std::exchange(ticks_, 0);
  }
  size_t n = TRY(dst.Put(&ticks, sizeof ticks));
  if (n != sizeof ticks) return kEFAULT;
  return n;
}

EventMask TimerFd::Poll(EventMask interest) {
  MutexLock lock(mu_);
  return ticks_ != 0 ? interest & (EPOLLIN | EPOLLRDNORM) : 0;
}

Result<int64_t> TimerFd::Ioctl(const VfsContext&, GuestMemory& memory, uint32_t cmd, uint64_t arg) {
  if (cmd != kTfdIocSetTicks) return kENOTTY;
  uint64_t ticks;
  if (memory.CopyIn(&ticks, arg, sizeof ticks) != sizeof ticks) return kEFAULT;
  if (ticks == 0) return kEINVAL;
  {
    MutexLock lock(mu_);
    ticks_ = ticks;
  }
  wait_queue().Notify(EPOLLIN | EPOLLRDNORM);
  return 0;
}

std::string TimerFd::FdInfo() const {
  MutexLock lock(mu_);
  Nanos left = next_ != 0 && !expired_ ? std::max<Nanos>(next_ - ReadHostClock(host_clock_), 0) : 0;
  return fmt::format("clockid: {}\nticks: {}\nsettime flags: {:02o}\nit_value: ({}, {})\nit_interval: ({}, {})\n",
                     static_cast<int>(clock_), ticks_, set_flags_, left / kNanosPerSec, left % kNanosPerSec,
                     interval_ / kNanosPerSec, interval_ % kNanosPerSec);
}

}  // namespace moat
