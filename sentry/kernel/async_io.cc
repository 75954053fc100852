#include "sentry/kernel/async_io.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>

#include <utility>
#include <vector>

#include "fs/vfs/tty_job_control.h"
#include "platform/fiber/timer.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/thread_group.h"

namespace moat::async_io {
namespace {

// How long the timer thread leaves an event to the task that caused it: that one delivers it unless it sleeps.
constexpr Nanos kGrace = 1'000'000;

constexpr std::pair<EventMask, int> kReasons[] = {
    {kAsyncInput | EPOLLIN, POLL_IN}, {kAsyncOutput, POLL_OUT}, {kAsyncHangup, POLL_HUP}};

// si_band by si_code.
long BandOf(int reason) {
  switch (reason) {
    case POLL_IN:
      return POLLIN | POLLRDNORM;
    case POLL_OUT:
      return POLLOUT | POLLWRNORM | POLLWRBAND;
    case POLL_MSG:
      return POLLIN | POLLRDNORM | POLLMSG;
    case POLL_HUP:
      return POLLHUP | POLLERR;
    default:
      return POLLERR;
  }
}

class Async;

// Files with events that have not been signalled yet.
class Noted {
 public:
  static Noted& Get() {
    static Noted* const noted = new Noted;
    return *noted;
  }
  // With locks held, up to kEpollReady.
  void Add(RefPtr<Async> a) {
    {
      MutexLock lock(mu_);
      list_.push_back(std::move(a));
      pending.store(true, std::memory_order_relaxed);
    }
    timer_.Arm(CurrentTask() != nullptr ? DeadlineAfter(kGrace) : MonotonicNow());
  }
  std::vector<RefPtr<Async>> Take() {
    std::vector<RefPtr<Async>> taken;
    MutexLock lock(mu_);
    pending.store(false, std::memory_order_relaxed);
    taken.swap(list_);
    return taken;
  }

 private:
  Mutex mu_{LockRank::kTimerWheel};
  std::vector<RefPtr<Async>> list_ ABSL_GUARDED_BY(mu_);
  FunctionTimer timer_{[] { Deliver(); }};
};

// One file description in O_ASYNC mode.
class Async final : public FileObserver, private Waiter {
 public:
  Async(Kernel& kernel, File& file, int fd)
      : Waiter(file.AsyncEvents()), kernel_(kernel), fd_(fd), queue_(file.wait_queue()), file_(&file) {}

  void Start() { queue_.Add(*this); }
  // No more events. By whoever takes it off the file.
  void Stop() {
    queue_.Remove(*this);
    MutexLock lock(mu_);
    file_ = nullptr;
  }
  void OnFileEnd(File&) override { Stop(); }

  void Fire() {
    File::AsyncOwner owner;
    const EventMask events = events_.exchange(0, std::memory_order_acq_rel);
    {
      MutexLock lock(mu_);
      if (file_ == nullptr) return;
      owner = file_->async_owner();
    }
    for (auto [mask, reason] : kReasons) {
      if (events & mask) Signal(kernel_, owner, fd_, reason);
    }
  }

 private:
  bool OnEvent(EventMask ready) override {
    ready &= mask();
    if (ready != 0 && events_.fetch_or(ready, std::memory_order_acq_rel) == 0) Noted::Get().Add(RefPtr<Async>(this));
    return false;
  }

  Kernel& kernel_;
  const int fd_;
  WaitQueue& queue_;  // the file's: used until Stop only
  std::atomic<EventMask> events_{0};
  Mutex mu_{LockRank::kInotify};
  File* file_ ABSL_GUARDED_BY(mu_);
};

// fcntl(2), F_SETOWN: the signal is sent only where the one who named the owner could have sent it.
bool MaySignal(const File::AsyncOwner& owner, Task& target) {
  RefPtr<const Credentials> theirs = target.credentials();
  return owner.euid == 0 || owner.euid == theirs->suid || owner.euid == theirs->uid || owner.uid == theirs->suid ||
         owner.uid == theirs->uid;
}

// To every process that the owner stands for; for F_OWNER_TID to that thread alone.
void SendToOwner(Kernel& kernel, const File::AsyncOwner& owner, const SigInfo& info, const SigInfo& fallback) {
  PidNamespace& ns = *kernel.root_pid_ns();
  auto send = [&](auto& target) {
    // A real-time signal that cannot be queued becomes a plain SIGIO.
    if (!target.SendSignal(info, true).ok()) (void)target.SendSignal(fallback, true);
  };
  if (owner.type == F_OWNER_TID) {
    if (RefPtr<Task> t = kernel.FindTask(owner.id, ns); t && MaySignal(owner, *t)) send(*t);
    return;
  }
  for (RefPtr<ThreadGroup>& group : kernel.OwnerGroups(owner.type == F_OWNER_PGRP, owner.id)) {
    if (RefPtr<Task> leader = group->leader(); leader && MaySignal(owner, *leader)) send(*group);
  }
}

// The terminal's foreground group, else the caller, unless an owner was named before (Linux: tty_fasync).
void DefaultTerminalOwner(Task& t, File& file) {
  if (file.async_owner().id != 0 || file.inode()->type() != S_IFCHR) return;
  int32_t group = 0;
  if (Tty* tty = file.tty()) {
    MutexLock lock(t.kernel().tree_mutex());
    if (auto* foreground = static_cast<ProcessGroup*>(tty->job_slot.foreground.get()); foreground != nullptr)
      group = foreground->id().NrIn(*t.pid_ns());
  }
  if (group != 0 && SetOwner(t, file, F_OWNER_PGRP, group).ok()) return;
  (void)SetOwner(t, file, F_OWNER_PID, t.tgid());
}

}  // namespace

Result<void> SetOwner(Task& t, File& file, int type, int32_t id) {
  File::AsyncOwner owner = file.async_owner();
  owner.type = type;
  owner.id = 0;
  if (id != 0) {
    // Kept in the root pid namespace's numbers.
    RefPtr<Pid> pid = t.kernel().FindPid(id, *t.pid_ns());
    if (!pid) return kESRCH;
    owner.id = pid->root_nr();
    owner.uid = t.cred().uid;
    owner.euid = t.cred().euid;
  }
  file.set_async_owner(owner);
  return {};
}

Result<void> SetOwnerByNumber(Task& t, File& file, int32_t id) {
  if (id == INT32_MIN) return kEINVAL;
  return SetOwner(t, file, id < 0 ? F_OWNER_PGRP : F_OWNER_PID, id < 0 ? -id : id);
}

int32_t OwnerId(Task& t, const File& file) {
  const int32_t id = file.async_owner().id;
  RefPtr<Pid> pid = id != 0 ? t.kernel().FindPid(id, *t.kernel().root_pid_ns()) : nullptr;
  return pid ? pid->NrIn(*t.pid_ns()) : 0;
}

int32_t OwnerNumber(Task& t, const File& file) {
  const int32_t id = OwnerId(t, file);
  return file.async_owner().type == F_OWNER_PGRP ? -id : id;
}

Result<void> SetAsync(Task& t, File& file, int fd, bool on) {
  if (((file.flags() & O_ASYNC) != 0) == on || (on && file.AsyncEvents() == 0)) return {};
  TRY(file.SetStatusFlags(on ? file.flags() | O_ASYNC : file.flags() & ~O_ASYNC));
  if (!on) {
    for (const RefPtr<FileObserver>& o : file.Observers()) {
      auto* async = dynamic_cast<Async*>(o.get());
      if (async == nullptr) continue;
      file.RemoveObserver(*async);
      async->Stop();
    }
    return {};
  }
  DefaultTerminalOwner(t, file);
  RefPtr<Async> async = MakeRef<Async>(t.kernel(), file, fd);
  async->Start();
  file.AddObserver(async);
  return {};
}

void Signal(Kernel& kernel, const File::AsyncOwner& owner, int fd, int reason) {
  if (owner.id == 0) return;
  const SigInfo plain = KernelSigInfo(SIGIO);
  SigInfo info = plain;
  if (owner.signal != 0) {
    // Signals whose codes mean something else say SI_SIGIO.
    constexpr SignalSet kOwnCodes{kSynchronous.bits | SignalSet::Bit(SIGCHLD)};
    info = MakeSigInfo(owner.signal, kOwnCodes.Has(owner.signal) ? SI_SIGIO : reason);
    info.si_band = BandOf(reason);
    info.si_fd = fd;
  }
  SendToOwner(kernel, owner, info, plain);
}

void Deliver() {
  for (RefPtr<Async>& a : Noted::Get().Take()) a->Fire();
}

}  // namespace moat::async_io
