#include "sentry/kernel/signal_source.h"

#include <sys/signalfd.h>

#include "fs/anon/signal_source.h"
#include "sentry/kernel/process_timers.h"
#include "sentry/kernel/thread_group.h"

namespace moat {

int DequeueSignal(Task& t, SignalSet wanted, SigInfo* info) {
  ThreadGroup& group = t.thread_group();
  int signo = 0;
  {
    MutexLock lock(group.signal_mutex());
    signo = t.signals().pending.PopOf(wanted, info);
    if (signo == 0) signo = group.shared_pending().PopOf(wanted, info);
    if (signo != 0) t.UpdateInterruptLocked();
  }
  if (signo != 0 && info->si_code == SI_TIMER) group.timers().OnSignalDequeued(*info);
  return signo;
}

namespace {

// signalfd(2), "The signalfd_siginfo structure".
abi::SignalfdSiginfo ToSignalfd(const SigInfo& info) {
  abi::SignalfdSiginfo out{};
  out.ssi_signo = static_cast<uint32_t>(info.si_signo);
  out.ssi_errno = info.si_errno;
  out.ssi_code = info.si_code;
  const int signo = info.si_signo;
  if (info.si_code == SI_TIMER) {
    out.ssi_tid = static_cast<uint32_t>(info.si_timerid);
    out.ssi_overrun = static_cast<uint32_t>(info.si_overrun);
    out.ssi_ptr = reinterpret_cast<uint64_t>(info.si_value.sival_ptr);
    out.ssi_int = info.si_value.sival_int;
  } else if (signo == SIGCHLD && info.si_code > 0) {
    out.ssi_pid = static_cast<uint32_t>(info.si_pid);
    out.ssi_uid = info.si_uid;
    out.ssi_status = info.si_status;
    out.ssi_utime = static_cast<uint64_t>(info.si_utime);
    out.ssi_stime = static_cast<uint64_t>(info.si_stime);
  } else if (signo == SIGPOLL && info.si_code > 0) {
    out.ssi_band = static_cast<uint32_t>(info.si_band);
    out.ssi_fd = info.si_fd;
  } else if (kSynchronous.Has(signo) && info.si_code > 0) {
    out.ssi_addr = reinterpret_cast<uint64_t>(info.si_addr);
  } else {
    out.ssi_pid = static_cast<uint32_t>(info.si_pid);
    out.ssi_uid = info.si_uid;
    if (info.si_code < 0) {
      out.ssi_ptr = reinterpret_cast<uint64_t>(info.si_value.sival_ptr);
      out.ssi_int = info.si_value.sival_int;
    }
  }
  return out;
}

class CurrentTaskSource final : public SignalSource {
 public:
  uint64_t PendingSignals() override {
    Task* t = CurrentTask();
    if (t == nullptr) return 0;
    MutexLock lock(t->thread_group().signal_mutex());
    return (t->signals().pending.set() | t->thread_group().shared_pending().set()).bits;
  }
  bool DequeueSignal(uint64_t mask, abi::SignalfdSiginfo& out) override {
    Task* t = CurrentTask();
    SigInfo info;
    if (t == nullptr || moat::DequeueSignal(*t, {mask}, &info) == 0) return false;
    out = ToSignalfd(info);
    return true;
  }
};

}  // namespace

void InstallSignalSource() {
  static CurrentTaskSource source;
  SetCurrentSignalSource([]() -> SignalSource* { return CurrentTask() == nullptr ? nullptr : &source; });
}

}  // namespace moat
