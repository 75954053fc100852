#include "platform/fiber/scheduler.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <boost/context/detail/fcontext.hpp>
#include <memory>

#include "platform/base/log.h"
#include "platform/base/mutex.h"
#include "platform/fiber/carrier_observer.h"
#include "platform/fiber/fiber.h"
#include "platform/fiber/futex.h"
#include "platform/fiber/load.h"
#include "platform/fiber/own_carrier.h"
#include "platform/fiber/parker.h"
#include "platform/fiber/sanitizer.h"
#include "platform/fiber/stack_pool.h"
#include "platform/fiber/thread.h"

namespace moat {

namespace bc = boost::context::detail;

// A pooled fiber. Owned by the scheduler from start to end.
class Fiber {
 public:
  bc::fcontext_t saved = nullptr;    // where to go on; valid while it does not run
  bc::fcontext_t carrier = nullptr;  // the carrier's own context, while it runs
  absl::AnyInvocable<void()> fn;
  Stack stack;
  Fiber* next = nullptr;  // in a ready list
  void* value = nullptr;  // FiberValue
  // What the carrier does once the fiber's context is saved.
  bool (*publish)(void*) = nullptr;
  void* publish_arg = nullptr;
  bool done = false;
  CarrierObserver* observer = nullptr;
  SanitizerFiber sanitizer;
};

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t kFiberStack = 512 << 10;
#else
constexpr size_t kFiberStack = 64 << 10;
#endif
constexpr size_t kKeepStacks = 256;
// Carriers that sleep with nothing to do; one more ends.
constexpr int kKeepIdle = 8;
// The watcher looks this often whether a fiber waits for a carrier: soon while it finds some, else ever later, for each
// look interrupts whoever works. It gives up after a while in vain.
constexpr Nanos kShortWatch = 40'000, kLongWatch = 640'000;
constexpr Nanos kWatchTime = 2'500'000;
// Work that nobody waits for: more is done by who asks.
constexpr int kMostBacklog = 8;

// A list of ready fibers, first in first out.
class ReadyList {
 public:
  bool empty() const { return head_ == nullptr; }
  void Push(Fiber& f) {
    f.next = nullptr;
    (tail_ != nullptr ? tail_->next : head_) = &f;
    tail_ = &f;
  }
  Fiber* Pop() {
    Fiber* f = head_;
    if (f == nullptr) return nullptr;
    head_ = f->next;
    if (head_ == nullptr) tail_ = nullptr;
    return f;
  }

 private:
  Fiber* head_ = nullptr;
  Fiber* tail_ = nullptr;
};

// A host thread that runs pooled fibers.
struct Carrier {
  ReadyList local;  // made ready by the fiber that it runs; nobody else sees them
  std::atomic<uint32_t> wakeups{0};
  Carrier* next_idle = nullptr;
  OwnCarrier::Loop* loop = nullptr;  // of an OwnCarrier
};

thread_local Fiber* current_fiber = nullptr;
thread_local Carrier* current_carrier = nullptr;
thread_local void* thread_local_value = nullptr;
thread_local CarrierObserver* carrier_observer = nullptr;

class Scheduler {
 public:
  static Scheduler& Get() {
    static Scheduler* s = new Scheduler;  // lives as long as its detached carriers
    return *s;
  }

  // Takes `fn` unless it fails.
  Result<Fiber*> Make(absl::AnyInvocable<void()>& fn);
  void MakeReady(Fiber& f);
  void MakeReadyInPool(Fiber& f);
  // For a carrier that has nothing else to do. False: there is enough for them, or no memory; `fn` is as it was.
  bool StartInBackground(absl::AnyInvocable<void()>& fn);
  void RunOwnCarrier(Carrier& carrier, OwnCarrier::Loop& loop);
  // The carrier is about to sleep in the host: what it has made ready must not wait for it.
  void GiveAway(Carrier& carrier);
  // Who sees a fiber gone also sees all that it did.
  int live() const { return live_.load(std::memory_order_acquire); }
  int running() const { return running_.load(std::memory_order_relaxed); }

 private:
  void RunCarrier();
  // Null: the carrier is one too many.
  Fiber* Next(Carrier& carrier);
  Fiber* Watch(Carrier& carrier);
  Fiber* TakeLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RunOne(Fiber* f, SanitizerFiber& carrier);
  void RunUntilItStops(Fiber* f, SanitizerFiber& carrier);
  Result<void> AddCarrier();
  // Sees to it that somebody takes from the queue.
  void Summon();
  static void FiberMain(bc::transfer_t from);

  StackPool stacks_{kFiberStack, kKeepStacks};
  std::atomic<int> live_{0};
  std::atomic<int> running_{0};
  std::atomic<int> queued_{0};   // size of queue_
  std::atomic<int> backlog_{0};  // size of background_
  // A carrier looks at queued_ every watch_period_: a single fiber needs no wake-up call then.
  std::atomic<bool> watching_{false};
  Nanos watch_period_ = kShortWatch;  // the watcher's
  // A carrier has been woken or made and has not looked at the queue yet.
  std::atomic<bool> summoned_{false};
  Mutex mu_{LockRank::kScheduler};
  ReadyList queue_ ABSL_GUARDED_BY(mu_);
  ReadyList background_ ABSL_GUARDED_BY(mu_);     // behind all others
  Carrier* idle_ ABSL_GUARDED_BY(mu_) = nullptr;  // last in first out: the warmest first
  int idle_count_ ABSL_GUARDED_BY(mu_) = 0;
};

Result<void> Scheduler::AddCarrier() {
  HostThread t = TRY(HostThread::Start("carrier", [this] { RunCarrier(); }));
  t.Detach();
  return {};
}

Result<Fiber*> Scheduler::Make(absl::AnyInvocable<void()>& fn) {
  auto f = std::make_unique<Fiber>();
  f->stack = stacks_.Take();
  if (f->stack.base == nullptr) return kENOMEM;
  f->fn = std::move(fn);
  f->saved = bc::make_fcontext(f->stack.top(), f->stack.size, &FiberMain);
  f->sanitizer.Create(f->stack.base, f->stack.size);
  live_.fetch_add(1, std::memory_order_relaxed);
  return f.release();
}

void Scheduler::MakeReady(Fiber& f) {
  if (current_carrier != nullptr) {
    current_carrier->local.Push(f);
  } else {
    MakeReadyInPool(f);
  }
}

void Scheduler::MakeReadyInPool(Fiber& f) {
  {
    MutexLock lock(mu_);
    queue_.Push(f);
    queued_.fetch_add(1, std::memory_order_seq_cst);
  }
  Summon();
}

bool Scheduler::StartInBackground(absl::AnyInvocable<void()>& fn) {
  if (backlog_.load(std::memory_order_relaxed) >= kMostBacklog) return false;
  Result<Fiber*> fiber = Make(fn);
  if (!fiber.ok()) return false;
  {
    MutexLock lock(mu_);
    background_.Push(**fiber);
    backlog_.fetch_add(1, std::memory_order_seq_cst);
  }
  // Nobody waits for it: to wake a carrier on an idle CPU would cost us more than the watcher's next look costs
  // anybody.
  if (!watching_.load(std::memory_order_seq_cst)) Summon();
  return true;
}

Fiber* Scheduler::TakeLocked() {
  if (Fiber* f = queue_.Pop()) {
    queued_.fetch_sub(1, std::memory_order_relaxed);
    return f;
  }
  Fiber* f = background_.Pop();
  if (f != nullptr) backlog_.fetch_sub(1, std::memory_order_relaxed);
  return f;
}

void Scheduler::GiveAway(Carrier& carrier) {
  bool several = false;
  {
    MutexLock lock(mu_);
    while (Fiber* f = carrier.local.Pop()) {
      queue_.Push(*f);
      several = queued_.fetch_add(1, std::memory_order_seq_cst) > 0;
    }
  }
  // Most often the carrier comes back for it in a moment, because its guest waits for the fiber that it woke: that
  // hand-over costs nothing. The watcher is there for when it does not.
  if (several || !watching_.load(std::memory_order_seq_cst)) Summon();
}

void Scheduler::Summon() {
  if (summoned_.exchange(true, std::memory_order_acq_rel)) return;  // who comes looks again until nothing is left
  Carrier* sleeper;
  {
    MutexLock lock(mu_);
    sleeper = idle_;
    if (sleeper != nullptr) {
      idle_ = sleeper->next_idle;
      --idle_count_;
    }
  }
  if (sleeper != nullptr) {
    sleeper->wakeups.fetch_add(1, std::memory_order_release);
    HostFutexWake(sleeper->wakeups);
  } else if (!AddCarrier().ok()) {
    // No thread to be had: a carrier that comes back from its guest will take the fiber.
    summoned_.store(false, std::memory_order_release);
  }
}

Fiber* Scheduler::Next(Carrier& carrier) {
  for (;;) {
    if (Fiber* f = carrier.local.Pop()) {
      // More than one: others may help.
      if (!carrier.local.empty()) GiveAway(carrier);
      return f;
    }
    uint32_t seen = carrier.wakeups.load(std::memory_order_acquire);
    {
      MutexLock lock(mu_);
      if (Fiber* f = TakeLocked()) return f;
    }
    if (!watching_.exchange(true, std::memory_order_seq_cst)) {
      if (Fiber* f = Watch(carrier)) return f;
    }
    {
      MutexLock lock(mu_);
      if (Fiber* f = TakeLocked()) return f;
      if (idle_count_ >= kKeepIdle) return nullptr;
      carrier.next_idle = std::exchange(idle_, &carrier);
      ++idle_count_;
    }
    // Woken only by Summon, which has taken the carrier off the list.
    while (carrier.wakeups.load(std::memory_order_acquire) == seen) HostFutexWait(carrier.wakeups, seen);
    summoned_.store(false, std::memory_order_seq_cst);
  }
}

Fiber* Scheduler::Watch(Carrier& carrier) {
  Fiber* found = nullptr;
  std::atomic<uint32_t> nobody_wakes{0};
  for (Nanos watched = 0; watched < kWatchTime && found == nullptr; watched += watch_period_) {
    HostFutexWait(nobody_wakes, 0, DeadlineAfter(watch_period_));
    const bool urgent = queued_.load(std::memory_order_seq_cst) != 0;
    if (urgent || backlog_.load(std::memory_order_seq_cst) != 0) {
      MutexLock lock(mu_);
      found = TakeLocked();
    }
    watch_period_ = urgent ? kShortWatch : std::min(watch_period_ * 2, kLongWatch);
  }
  watching_.store(false, std::memory_order_seq_cst);
  return found;
}

void Scheduler::RunCarrier() {
  Carrier carrier;
  current_carrier = &carrier;
  summoned_.store(false, std::memory_order_seq_cst);
  SanitizerFiber sanitizer;
  sanitizer.AdoptThread();
  while (Fiber* f = Next(carrier)) {
    // One was enough for what it found, but more may wait.
    if (queued_.load(std::memory_order_relaxed) > 0) Summon();
    RunOne(f, sanitizer);
  }
  current_carrier = nullptr;
}

void Scheduler::RunOwnCarrier(Carrier& carrier, OwnCarrier::Loop& loop) {
  current_carrier = &carrier;
  carrier.loop = &loop;
  SanitizerFiber sanitizer;
  sanitizer.AdoptThread();
  do {
    while (Fiber* f = carrier.local.Pop()) RunOne(f, sanitizer);
  } while (loop.LookForWork());
  current_carrier = nullptr;
}

void Scheduler::RunOne(Fiber* f, SanitizerFiber& carrier) {
  running_.fetch_add(1, std::memory_order_relaxed);
  RunUntilItStops(f, carrier);
  running_.fetch_sub(1, std::memory_order_relaxed);
}

void Scheduler::RunUntilItStops(Fiber* f, SanitizerFiber& carrier) {
  for (;;) {
    current_fiber = f;
    carrier.StartSwitch(f->sanitizer, /*leaving_for_good=*/false);
    bc::transfer_t back = bc::jump_fcontext(f->saved, f);
    carrier.FinishSwitch(nullptr);
    current_fiber = nullptr;
    if (f->done) {
      f->sanitizer.Destroy();
      stacks_.Give(f->stack);
      delete f;
      live_.fetch_sub(1, std::memory_order_release);
      return;
    }
    f->saved = back.fctx;
    // After a publish that answers true, f may already run on another carrier: it is not ours any more.
    if (f->publish(f->publish_arg)) return;
  }
}

void Scheduler::FiberMain(bc::transfer_t from) {
  Fiber* f = static_cast<Fiber*>(from.data);
  f->carrier = from.fctx;
  f->sanitizer.FinishSwitch(&f->sanitizer);
  f->fn();
  f->fn = nullptr;
  f->done = true;
  f->sanitizer.StartSwitchBack(/*leaving_for_good=*/true);
  bc::jump_fcontext(f->carrier, nullptr);
  __builtin_unreachable();
}

}  // namespace

// Not inlined: a fiber may go on in another thread, where the address of the thread_local is another one.
[[gnu::noinline]] Fiber* CurrentFiber() { return current_fiber; }
[[gnu::noinline]] CarrierObserver* CurrentCarrierObserver() {
  return current_fiber != nullptr ? current_fiber->observer : carrier_observer;
}
[[gnu::noinline]] void SetCarrierObserver(CarrierObserver* observer) {
  (current_fiber != nullptr ? current_fiber->observer : carrier_observer) = observer;
}
[[gnu::noinline]] void* FiberValue() { return current_fiber != nullptr ? current_fiber->value : thread_local_value; }
[[gnu::noinline]] void SetFiberValue(void* value) {
  (current_fiber != nullptr ? current_fiber->value : thread_local_value) = value;
}

[[gnu::noinline]] void BeforeHostSleep() {
  if (current_carrier != nullptr && !current_carrier->local.empty()) Scheduler::Get().GiveAway(*current_carrier);
}

[[gnu::noinline]] LongHostSleep::LongHostSleep() {
  BeforeHostSleep();
  if (current_carrier != nullptr && current_carrier->loop != nullptr) current_carrier->loop->OnLongSleep(true);
}
[[gnu::noinline]] LongHostSleep::~LongHostSleep() {
  if (current_carrier != nullptr && current_carrier->loop != nullptr) current_carrier->loop->OnLongSleep(false);
}

void SuspendFiber(Fiber& self, bool (*publish)(void*), void* arg) {
#ifndef NDEBUG
  MOAT_CHECK(HeldLocksForDebug() == 0);
#endif
  self.publish = publish;
  self.publish_arg = arg;
  self.sanitizer.StartSwitchBack(/*leaving_for_good=*/false);
  bc::transfer_t from = bc::jump_fcontext(self.carrier, nullptr);
  self.carrier = from.fctx;
  self.sanitizer.FinishSwitch(&self.sanitizer);
}

void MakeReady(Fiber& fiber) { Scheduler::Get().MakeReady(fiber); }

void MakeReadyInPool(Fiber& fiber) { Scheduler::Get().MakeReadyInPool(fiber); }

Result<void> StartPooledFiber(absl::AnyInvocable<void()> fn) {
  Scheduler& scheduler = Scheduler::Get();
  scheduler.MakeReady(*TRY(scheduler.Make(fn)));
  return {};
}

bool RunElsewhere(absl::AnyInvocable<void()>& fn) {
  static const int cpus = HostThread::AllCpus().count();
  Scheduler& scheduler = Scheduler::Get();
  return current_carrier != nullptr && scheduler.running() < cpus && scheduler.StartInBackground(fn);
}

Result<void> StartFiber(FiberKind kind, std::string_view name, absl::AnyInvocable<void()> fn) {
  if (kind == FiberKind::kPooled) return StartPooledFiber(std::move(fn));
  // The carrier chooses its CPU itself once it has a platform context.
  HostThread t = TRY(HostThread::Start(name, std::move(fn), /*inherit_affinity=*/true));
  t.Detach();
  return {};
}

struct OwnCarrier::State {
  Carrier carrier;
  HostThread thread;
  std::atomic<uint32_t> tid{0};
};

OwnCarrier::OwnCarrier() = default;
OwnCarrier::OwnCarrier(OwnCarrier&& o) noexcept = default;
OwnCarrier& OwnCarrier::operator=(OwnCarrier&& o) noexcept = default;
OwnCarrier::~OwnCarrier() = default;

Result<OwnCarrier> OwnCarrier::Start(std::string_view name, Loop& loop) {
  OwnCarrier made;
  made.state_ = std::make_unique<State>();
  made.state_->thread = TRY(HostThread::Start(name, [&loop, state = made.state_.get()] {
    state->tid = static_cast<uint32_t>(gettid());
    HostFutexWake(state->tid);
    Scheduler::Get().RunOwnCarrier(state->carrier, loop);
  }));
  while (made.state_->tid == 0) HostFutexWait(made.state_->tid, 0);
  return made;
}

void OwnCarrier::Join() {
  if (state_ != nullptr) state_->thread.Join();
}

[[gnu::noinline]] bool OwnCarrier::IsCurrent() const { return current_carrier == &state_->carrier; }
bool OwnCarrier::HasReady() const { return !state_->carrier.local.empty(); }
void OwnCarrier::SetAffinity(const CpuSet& cpus) {
  const cpu_set_t host = cpus.ToHost();
  sched_setaffinity(static_cast<pid_t>(state_->tid.load()), sizeof host, &host);
}

int RunningFibers() { return Scheduler::Get().running(); }

int PooledFiberCount() { return Scheduler::Get().live(); }

}  // namespace moat
