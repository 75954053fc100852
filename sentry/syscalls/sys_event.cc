// eventfd(2), timerfd_create(2), signalfd(2).
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

#include "fs/anon/eventfd.h"
#include "fs/anon/signalfd.h"
#include "fs/anon/timerfd.h"
#include "sentry/kernel/signals.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/timekeeping.h"
#include "sentry/syscalls/handlers.h"

namespace moat {

// --- eventfd ---

Result<int64_t> SysEventfd2(Task& t, uint32_t initial, int flags) {
  if (flags & ~(EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE)) return kEINVAL;
  return TRY(t.InstallFd(MakeRef<EventFd>(initial, flags), (flags & EFD_CLOEXEC) != 0));
}

Result<int64_t> SysEventfd(Task& t, uint32_t initial) { return SysEventfd2(t, initial, 0); }

// --- timerfd ---

namespace {

Result<RefPtr<File>> GetTimer(Task& t, FdNum fd, TimerFd** timer) {
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  *timer = dynamic_cast<TimerFd*>(file.get());
  if (*timer == nullptr) return kEINVAL;
  return file;
}

abi::Itimerspec ToItimerspec(const TimerFd::Setting& s) {
  abi::Itimerspec out{};
  out.it_interval = ToTimespec(s.interval);
  out.it_value = ToTimespec(s.value);
  return out;
}

}  // namespace

Result<int64_t> SysTimerfdCreate(Task& t, int clock, int flags) {
  if (flags & ~(TFD_CLOEXEC | TFD_NONBLOCK)) return kEINVAL;
  switch (clock) {
    case CLOCK_REALTIME:
    case CLOCK_MONOTONIC:
    case CLOCK_BOOTTIME:
      break;
    case CLOCK_REALTIME_ALARM:
    case CLOCK_BOOTTIME_ALARM:
      if (!t.cred().HasCapability(CAP_WAKE_ALARM)) return kEPERM;
      break;
    default:
      return kEINVAL;
  }
  return TRY(t.InstallFd(MakeRef<TimerFd>(clock, flags), (flags & TFD_CLOEXEC) != 0));
}

Result<int64_t> SysTimerfdSettime(Task& t, FdNum fd, int flags, UserIn<abi::Itimerspec> value,
                                  UserOut<abi::Itimerspec> old_value) {
  abi::Itimerspec spec = TRY(value.Read(t.memory()));
  if (flags & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET)) return kEINVAL;
  TimerFd::Setting setting{TRY(ToNanos(spec.it_value)), TRY(ToNanos(spec.it_interval))};
  TimerFd* timer;
  RefPtr<File> file = TRY(GetTimer(t, fd, &timer));
  TimerFd::Setting old = timer->SetTime(flags, setting);
  if (old_value) TRY(old_value.Write(t.memory(), ToItimerspec(old)));
  return 0;
}

Result<int64_t> SysTimerfdGettime(Task& t, FdNum fd, UserOut<abi::Itimerspec> value) {
  TimerFd* timer;
  RefPtr<File> file = TRY(GetTimer(t, fd, &timer));
  TRY(value.Write(t.memory(), ToItimerspec(timer->GetTime())));
  return 0;
}

// --- signalfd ---

Result<int64_t> SysSignalfd4(Task& t, FdNum fd, UserIn<uint64_t> mask, size_t size, int flags) {
  if (flags & ~(SFD_CLOEXEC | SFD_NONBLOCK)) return kEINVAL;
  if (size != abi::kSigSetSize) return kEINVAL;
  uint64_t set = TRY(mask.Read(t.memory()));
  if (ToInt(fd) == -1) return TRY(t.InstallFd(MakeRef<SignalFd>(set, flags), (flags & SFD_CLOEXEC) != 0));
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  auto* signals = dynamic_cast<SignalFd*>(file.get());
  if (signals == nullptr) return kEINVAL;
  signals->SetMask(set);
  return ToInt(fd);
}

Result<int64_t> SysSignalfd(Task& t, FdNum fd, UserIn<uint64_t> mask, size_t size) {
  return SysSignalfd4(t, fd, mask, size, 0);
}

}  // namespace moat
