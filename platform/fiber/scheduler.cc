#include "platform/fiber/scheduler.h"

#include <sched.h>

#include <algorithm>
#include <boost/context/detail/fcontext.hpp>
#include <memory>

#include "platform/base/log.h"
#include "platform/base/mutex.h"
#include "platform/fiber/carrier_observer.h"
#include "platform/fiber/fiber.h"
#include "platform/fiber/futex.h"
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
  Fiber* next = nullptr;  // in the ready queue
  // What the carrier does once the fiber's context is saved.
  bool (*publish)(void*) = nullptr;
  void* publish_arg = nullptr;
  bool done = false;
  SanitizerFiber sanitizer;
};

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t kFiberStack = 512 << 10;
#else
constexpr size_t kFiberStack = 64 << 10;
#endif
constexpr size_t kKeepStacks = 256;
constexpr int kMaxCarriers = 16;

thread_local Fiber* current_fiber = nullptr;
thread_local CarrierObserver* carrier_observer = nullptr;

class Scheduler {
 public:
  static Scheduler& Get() {
    static Scheduler* s = new Scheduler;  // lives as long as its detached carriers
    return *s;
  }

  Result<void> Start(absl::AnyInvocable<void()> fn);
  void MakeReady(Fiber& f);
  int live() const { return live_.load(std::memory_order_relaxed); }

 private:
  Scheduler();
  void RunCarrier();
  Fiber* Next();
  void RunOne(Fiber* f, SanitizerFiber& carrier);
  Result<void> AddCarrier();
  static void FiberMain(bc::transfer_t from);

  StackPool stacks_{kFiberStack, kKeepStacks};
  std::atomic<int> live_{0};
  int max_carriers_ = 1;
  Mutex mu_{LockRank::kScheduler};
  Fiber* head_ ABSL_GUARDED_BY(mu_) = nullptr;
  Fiber* tail_ ABSL_GUARDED_BY(mu_) = nullptr;
  int idle_ ABSL_GUARDED_BY(mu_) = 0;
  int carriers_ ABSL_GUARDED_BY(mu_) = 0;
  std::atomic<uint32_t> wakeups_{0};  // futex word that idle carriers sleep on
};

Scheduler::Scheduler() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) max_carriers_ = std::clamp(CPU_COUNT(&set), 1, kMaxCarriers);
}

Result<void> Scheduler::AddCarrier() {
  HostThread t = TRY(HostThread::Start("carrier", [this] { RunCarrier(); }));
  t.Detach();
  return {};
}

Result<void> Scheduler::Start(absl::AnyInvocable<void()> fn) {
  bool grow = false;
  {
    MutexLock lock(mu_);
    if (carriers_ == 0 || (idle_ == 0 && carriers_ < max_carriers_)) {
      ++carriers_;
      grow = true;
    }
  }
  if (grow) {
    Result<void> added = AddCarrier();
    if (!added.ok()) {
      MutexLock lock(mu_);
      if (--carriers_ == 0) return added;
    }
  }
  auto f = std::make_unique<Fiber>();
  f->stack = stacks_.Take();
  if (f->stack.base == nullptr) return kENOMEM;
  f->fn = std::move(fn);
  f->saved = bc::make_fcontext(f->stack.top(), f->stack.size, &FiberMain);
  f->sanitizer.Create(f->stack.base, f->stack.size);
  live_.fetch_add(1, std::memory_order_relaxed);
  MakeReady(*f.release());
  return {};
}

void Scheduler::MakeReady(Fiber& f) {
  f.next = nullptr;
  bool wake;
  {
    MutexLock lock(mu_);
    (tail_ != nullptr ? tail_->next : head_) = &f;
    tail_ = &f;
    wake = idle_ > 0;
  }
  if (wake) {
    wakeups_.fetch_add(1, std::memory_order_release);
    HostFutexWake(wakeups_);
  }
}

Fiber* Scheduler::Next() {
  for (;;) {
    uint32_t seen;
    {
      MutexLock lock(mu_);
      if (Fiber* f = head_) {
        head_ = f->next;
        if (head_ == nullptr) tail_ = nullptr;
        return f;
      }
      ++idle_;
      // Read under the lock: a MakeReady that comes after it sees idle_ and changes the word.
      seen = wakeups_.load(std::memory_order_acquire);
    }
    HostFutexWait(wakeups_, seen);
    MutexLock lock(mu_);
    --idle_;
  }
}

void Scheduler::RunCarrier() {
  SanitizerFiber carrier;
  carrier.AdoptThread();
  for (;;) RunOne(Next(), carrier);
}

void Scheduler::RunOne(Fiber* f, SanitizerFiber& carrier) {
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
      live_.fetch_sub(1, std::memory_order_relaxed);
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
[[gnu::noinline]] CarrierObserver* CurrentCarrierObserver() { return carrier_observer; }
[[gnu::noinline]] void SetCarrierObserver(CarrierObserver* observer) { carrier_observer = observer; }

void SuspendFiber(Fiber& self, bool (*publish)(void*), void* arg) {
  self.publish = publish;
  self.publish_arg = arg;
  self.sanitizer.StartSwitchBack(/*leaving_for_good=*/false);
  bc::transfer_t from = bc::jump_fcontext(self.carrier, nullptr);
  self.carrier = from.fctx;
  self.sanitizer.FinishSwitch(&self.sanitizer);
}

void MakeReady(Fiber& fiber) { Scheduler::Get().MakeReady(fiber); }

Result<void> StartPooledFiber(absl::AnyInvocable<void()> fn) { return Scheduler::Get().Start(std::move(fn)); }

Result<void> StartFiber(FiberKind kind, std::string_view name, absl::AnyInvocable<void()> fn) {
  if (kind == FiberKind::kPooled) return StartPooledFiber(std::move(fn));
  // The carrier chooses its CPU itself once it has a platform context.
  HostThread t = TRY(HostThread::Start(name, std::move(fn), /*inherit_affinity=*/true));
  t.Detach();
  return {};
}

void YieldFiber() {
  Fiber* self = CurrentFiber();
  if (self == nullptr) {
    sched_yield();
    return;
  }
  SuspendFiber(
      *self,
      [](void* arg) {
        MakeReady(*static_cast<Fiber*>(arg));
        return true;
      },
      self);
}

int PooledFiberCount() { return Scheduler::Get().live(); }

}  // namespace moat
