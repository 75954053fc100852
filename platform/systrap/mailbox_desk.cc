#include "platform/systrap/mailbox_desk.h"

#include <poll.h>
#include <sched.h>
#include <x86intrin.h>

#include <algorithm>
#include <utility>

#include "platform/fiber/futex.h"
#include "platform/fiber/load.h"
#include "platform/fiber/scheduler.h"

namespace moat::systrap_platform {
namespace {

constexpr int kLooks = 32;           // between two looks at the clock
constexpr uint32_t kLooksAtAll = 8;  // every so often at all seats: 64 are 64 lines of few sets of the cache
constexpr int kLonelyLooks = 256;    // of a fiber that nobody else waits beside
// Without a call from anyone the desk closes; later where a thread is being woken, whose CPU may sleep too.
constexpr Nanos kSilence = 60'000, kWakeSilence = 250'000;
constexpr Nanos kSilenceForEach = 20'000;  // that sits there: the longer it takes until all have been there again
constexpr Nanos kLonging = 50'000;     // all members' calls are under way, elsewhere or in sleep: then the desk sleeps
constexpr Nanos kPreempted = 200'000;  // between two looks: the CPU was not ours alone
constexpr Nanos kProbe = 10'000;       // between two looks at whether silent threads wait in a notification
// In one look, in turn: the host takes 0.1 us for each, and those who call wait.
constexpr size_t kMaxProbed = 8;
// Calls by notification every so often, on each CPU that has a guest: most of it is the switch itself.
constexpr uint32_t kWindow = 32;
constexpr Nanos kFrequent = 12'000;
constexpr Nanos kCrowd = 2'000'000;

}  // namespace

Result<std::unique_ptr<MailboxDesk>> MailboxDesk::Create() {
  std::unique_ptr<MailboxDesk> desk(new MailboxDesk);
  desk->carrier_ = TRY(OwnCarrier::Start("mailbox-desk", *desk));
  return desk;
}

MailboxDesk::~MailboxDesk() {
  ending_.store(true, std::memory_order_relaxed);
  inbox_count_.fetch_add(1, std::memory_order_seq_cst);
  HostFutexWake(inbox_count_);
  carrier_.Join();
}

std::optional<CpuSet> MailboxDesk::Enter() {
  if (cpus_ < 2 || CurrentFiber() == nullptr) return std::nullopt;
  MutexLock lock(mu_);
  if (away_) return std::nullopt;
  const int here = sched_getcpu();
  if (members_.load(std::memory_order_relaxed) == 0 && (unwelcome_ || !guest_cpus_.Has(here))) {
    unwelcome_ = false;
    // The guest stays where it is, and the desk goes where the host likes.
    CpuSet others = HostThread::AllCpus();
    others.Remove(here);
    carrier_.SetAffinity(others);
    guest_cpus_ = {};
    guest_cpus_.Add(here);
    settled_ = false;
  }
  members_.fetch_add(1, std::memory_order_relaxed);
  SetActive(true);
  return guest_cpus_;
}

void MailboxDesk::Settle() {
  const int own = sched_getcpu();
  settled_ = true;
  if (guest_cpus_.Has(own)) return;
  CpuSet desk;
  desk.Add(own);
  carrier_.SetAffinity(desk);
  guest_cpus_ = HostThread::AllCpus();
  guest_cpus_.Remove(own);
}

bool MailboxDesk::NoteCall(Nanos now) {
  if (noted_.fetch_add(1, std::memory_order_relaxed) % kWindow == 0) {
    const Nanos took = now - stamp_.exchange(now, std::memory_order_relaxed);
    const int busy = std::clamp(RunningFibers(), 1, cpus_);
    frequent_.store(took < kFrequent * kWindow / busy, std::memory_order_relaxed);
  }
  return frequent_.load(std::memory_order_relaxed);
}

bool MailboxDesk::Seat::TakeLongCall() {
  const uint64_t since = std::exchange(served_at, 0);
  return since != 0 && __rdtsc() - since > MAILBOX_PATIENCE;
}

MailboxDesk::Came MailboxDesk::Wait(Seat& seat) {
  const bool here = carrier_.IsCurrent();
  if (here && seats_.empty() && !carrier_.HasReady()) {
    for (int look = 0; look < kLonelyLooks && inbox_count_.load(std::memory_order_relaxed) == 0; ++look) {
      if (seat.thread->TakeFromMailbox()) {
        seat.served_at = __rdtsc();
        return Came::kCall;
      }
      __builtin_ia32_pause();
    }
  }
  seat.desk = this;
  seat.fiber = CurrentFiber();
  SuspendFiber(*seat.fiber, &MailboxDesk::SitDown, &seat);
  return seat.came;
}

// On the fiber's carrier, once it is suspended.
bool MailboxDesk::SitDown(void* arg) {
  Seat& seat = *static_cast<Seat*>(arg);
  MailboxDesk& desk = *seat.desk;
  seat.silent = false;
  if (desk.carrier_.IsCurrent()) {
    desk.seats_.push_back(&seat);
    return true;
  }
  {
    MutexLock lock(desk.mu_);
    if (desk.away_) {
      seat.served_at = 0;
      seat.came = Came::kSentAway;
      return false;
    }
    desk.inbox_.push_back(&seat);
    desk.inbox_count_.fetch_add(1, std::memory_order_seq_cst);
  }
  // The seat may be taken and its fiber gone on already.
  if (desk.asleep_.load(std::memory_order_seq_cst)) HostFutexWake(desk.inbox_count_);
  return true;
}

void MailboxDesk::ToPool() {
  if (!carrier_.IsCurrent()) return;
  SuspendFiber(
      *CurrentFiber(),
      [](void* fiber) {
        MakeReadyInPool(*static_cast<Fiber*>(fiber));
        return true;
      },
      CurrentFiber());
}

void MailboxDesk::TakeInbox() {
  if (inbox_count_.load(std::memory_order_relaxed) == 0) return;
  MutexLock lock(mu_);
  seats_.insert(seats_.end(), inbox_.begin(), inbox_.end());
  inbox_.clear();
  inbox_count_.store(0, std::memory_order_relaxed);
  if (!settled_) Settle();
}

bool MailboxDesk::Sleep() {
  asleep_.store(true, std::memory_order_seq_cst);
  while (inbox_count_.load(std::memory_order_seq_cst) == 0) HostFutexWait(inbox_count_, 0);
  asleep_.store(false, std::memory_order_relaxed);
  last_look_ = last_call_ = 0;
  return !ending_.load(std::memory_order_relaxed);
}

void MailboxDesk::Wake(size_t i, Came came) {
  Seat& seat = *seats_[i];
  seats_.erase(seats_.begin() + static_cast<ptrdiff_t>(i));  // in order: see TakeCalls
  seat.came = came;
  const bool stays = came == Came::kCall || came == Came::kNotice;
  seat.served_at = stays ? __rdtsc() : 0;
  if (stays) {
    MakeReady(*seat.fiber);
  } else {
    MakeReadyInPool(*seat.fiber);
  }
}

void MailboxDesk::Close(Came why) {
  if (why == Came::kPreempted) {
    MutexLock lock(mu_);
    unwelcome_ = true;
  }
  while (!seats_.empty()) Wake(seats_.size() - 1, why);
}

void MailboxDesk::OnLongSleep(bool begins) {
  {
    MutexLock lock(mu_);
    away_ = begins;
  }
  if (!begins) return;
  TakeInbox();
  Close(Came::kSentAway);
}

bool MailboxDesk::TakeCalls() {
  // Whose call was answered last has a CPU, and calls next.
  const size_t likely = std::min(seats_.size(), static_cast<size_t>(cpus_));
  for (int look = 0; look < kLooks; ++look) {
    bool any = false;
    const bool at_all = looks_++ % kLooksAtAll == 0;
    for (size_t i = seats_.size(), end = at_all ? 0 : i - likely; i-- > end;) {
      if (!seats_[i]->thread->TakeFromMailbox()) continue;
      Wake(i, Came::kCall);
      any = true;
    }
    if (any) return true;
    __builtin_ia32_pause();
  }
  return false;
}

bool MailboxDesk::TakeNotices(Nanos now) {
  if (now - last_probe_ < kProbe) return false;
  last_probe_ = now;
  pollfd fds[kMaxProbed];
  Seat* asked[kMaxProbed];
  size_t n = 0;
  for (size_t looked = 0; looked < seats_.size() && n < kMaxProbed; ++looked) {
    Seat* seat = seats_[next_probed_++ % seats_.size()];
    // Who has just sat down has all but called.
    if (!std::exchange(seat->silent, true)) continue;
    asked[n] = seat;
    fds[n++] = {seat->thread->listener_fd(), POLLIN, 0};
  }
  const timespec at_once = {};
  if (n == 0 || ppoll(fds, n, &at_once, nullptr) <= 0) return false;
  for (size_t k = 0; k < n; ++k) {
    if (fds[k].revents == 0) continue;
    Wake(static_cast<size_t>(std::find(seats_.begin(), seats_.end(), asked[k]) - seats_.begin()), Came::kNotice);
  }
  return true;
}

bool MailboxDesk::IsCrowd(Nanos now) const {
  return frequent_.load(std::memory_order_relaxed) && now - stamp_.load(std::memory_order_relaxed) < kCrowd;
}

bool MailboxDesk::IsSilent(Nanos now) const {
  // Whose call is under way may call again as soon as it is answered.
  if (static_cast<int>(seats_.size()) < active()) return false;
  const bool woken = std::any_of(seats_.begin(), seats_.end(), [](const Seat* s) { return s->woken; });
  const Nanos others = static_cast<Nanos>(seats_.size() - 1) * kSilenceForEach;
  return now - last_call_ > (woken ? kWakeSilence : kSilence) + others;
}

bool MailboxDesk::LookForWork() {
  last_look_ = last_call_ = 0;
  Nanos nobody_since = 0;
  for (;;) {
    TakeInbox();
    if (ending_.load(std::memory_order_relaxed)) return false;
    if (!seats_.empty() && TakeCalls()) return true;
    const Nanos now = MonotonicNow();
    if (seats_.empty()) {
      for (int look = 0; look < kLooks && inbox_count_.load(std::memory_order_relaxed) == 0; ++look) {
        __builtin_ia32_pause();
      }
      if (nobody_since == 0) nobody_since = now;
      if (IsOpen() && now - nobody_since < kLonging) continue;
      if (inbox_count_.load(std::memory_order_relaxed) == 0 && !Sleep()) return false;
      nobody_since = 0;
      continue;
    }
    nobody_since = 0;
    if (last_call_ == 0) last_call_ = now;
    const bool preempted = last_look_ != 0 && now - last_look_ > kPreempted && !IsCrowd(now);
    last_look_ = now;
    if (preempted || IsSilent(now)) {
      Close(preempted ? Came::kPreempted : Came::kNothing);
    } else if (TakeNotices(now)) {
      return true;
    }
  }
}

}  // namespace moat::systrap_platform
