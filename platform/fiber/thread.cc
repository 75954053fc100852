#include "platform/fiber/thread.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>
#include <utility>

#include "platform/base/log.h"
#include "platform/fiber/stack_pool.h"

namespace moat {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t kThreadStack = 2 << 20;  // sanitizers' frames are several times as large
#else
constexpr size_t kThreadStack = 256 << 10;
#endif
constexpr size_t kKeepStacks = 64;

StackPool& Stacks() {
  static StackPool* pool = new StackPool(kThreadStack, kKeepStacks);
  return *pool;
}

// Read before any thread is pinned, and before the sentry's lockdown.
const cpu_set_t& StartAffinity() {
  static const cpu_set_t set = HostThread::AllCpus().ToHost();
  return set;
}
[[maybe_unused]] const cpu_set_t& read_early = StartAffinity();

}  // namespace

sigset_t HostThread::BlockedSignals() {
  sigset_t set;
  sigfillset(&set);
  for (int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS}) sigdelset(&set, fault);
  return set;
}

const CpuSet& HostThread::AllCpus() {
  static const CpuSet set = CpuSet::OfThisThread();
  return set;
}

struct HostThread::State {
  absl::AnyInvocable<void()> fn;
  char name[16] = {};
  bool inherit_affinity = false;
  Stack stack;
  pthread_t thread{};
  std::atomic<int> fate{0};  // 0 running, 1 finished, 2 detached while running
  State* next = nullptr;     // in finished_detached
};

namespace {
// Detached threads that have ended, or are about to: the next thread to be started joins them and takes their
// stacks. (A thread cannot hand back the stack that it is running on.)
std::atomic<void*> finished_detached{nullptr};
}  // namespace

HostThread::HostThread(HostThread&& o) noexcept : state_(std::exchange(o.state_, nullptr)) {}
HostThread& HostThread::operator=(HostThread&& o) noexcept {
  std::swap(state_, o.state_);
  return *this;
}
HostThread::~HostThread() {
  if (joinable()) Join();
}

void* HostThread::Main(void* arg) {
  State* s = static_cast<State*>(arg);
  pthread_setname_np(pthread_self(), s->name);
  if (!s->inherit_affinity) sched_setaffinity(0, sizeof(cpu_set_t), &StartAffinity());
  s->fn();
  s->fn = nullptr;
  if (s->fate.exchange(1) == 2) {
    void* head = finished_detached.load(std::memory_order_relaxed);
    do {
      s->next = static_cast<State*>(head);
    } while (!finished_detached.compare_exchange_weak(head, s, std::memory_order_acq_rel));
  }
  return nullptr;
}

void HostThread::JoinFinished() {
  State* s = static_cast<State*>(finished_detached.exchange(nullptr, std::memory_order_acq_rel));
  while (s != nullptr) {
    State* next = s->next;
    pthread_join(s->thread, nullptr);
    Stacks().Give(s->stack);
    delete s;
    s = next;
  }
}

Result<HostThread> HostThread::Start(std::string_view name, absl::AnyInvocable<void()> fn, bool inherit_affinity) {
  JoinFinished();
  auto s = std::make_unique<State>();
  s->stack = Stacks().Take();
  if (s->stack.base == nullptr) return kENOMEM;
  s->fn = std::move(fn);
  memcpy(s->name, name.data(), std::min(name.size(), sizeof s->name - 1));
  s->inherit_affinity = inherit_affinity;
  pthread_attr_t attr;
  pthread_attr_init(&attr);
  pthread_attr_setstack(&attr, s->stack.base, s->stack.size);
  static const sigset_t blocked = BlockedSignals();
  pthread_attr_setsigmask_np(&attr, &blocked);
  int error = pthread_create(&s->thread, &attr, &Main, s.get());
  pthread_attr_destroy(&attr);
  if (error != 0) {
    Stacks().Give(s->stack);
    return static_cast<Errno>(error);
  }
  return HostThread(s.release());
}

void HostThread::Join() {
  State* s = std::exchange(state_, nullptr);
  MOAT_CHECK(s != nullptr);
  pthread_join(s->thread, nullptr);
  Stacks().Give(s->stack);
  delete s;
}

void HostThread::Detach() {
  State* s = std::exchange(state_, nullptr);
  MOAT_CHECK(s != nullptr);
  if (s->fate.exchange(2) == 0) return;
  pthread_join(s->thread, nullptr);
  Stacks().Give(s->stack);
  delete s;
}

}  // namespace moat
