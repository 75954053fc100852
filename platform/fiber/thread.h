// HostThread: the one way in which this process makes a thread. Every signal is blocked but those that report the
// thread's own faults (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS); the stack is small, mapped by us,
// with a guard page below, and used again by later threads. Source: pthread_attr_setstack(3), pthread_sigmask(3).
#ifndef MOAT_PLATFORM_FIBER_THREAD_H_
#define MOAT_PLATFORM_FIBER_THREAD_H_

#include <signal.h>

#include <cstddef>
#include <memory>
#include <string_view>

#include "absl/functional/any_invocable.h"
#include "platform/base/cpu_set.h"
#include "platform/base/result.h"

namespace moat {

class HostThread {
 public:
  HostThread() = default;
  HostThread(HostThread&& o) noexcept;
  HostThread& operator=(HostThread&& o) noexcept;
  // A thread that was neither joined nor detached is joined.
  ~HostThread();

  // Runs `fn` on a new thread called `name` (15 bytes of it are kept). kEAGAIN or kENOMEM when the host has no more.
  // The thread runs on any CPU that the process was started with, unless `inherit_affinity`: then where its creator
  // may run, which saves a host call when the thread will choose its CPU itself.
  static Result<HostThread> Start(std::string_view name, absl::AnyInvocable<void()> fn, bool inherit_affinity = false);
  // What every thread blocks; the process's first one does the same before the sentry's lockdown.
  static sigset_t BlockedSignals();
  // The CPUs that the process was started with.
  static const CpuSet& AllCpus();
  bool joinable() const { return state_ != nullptr; }
  void Join();
  // Lets the thread end by itself; its stack comes back to the pool.
  void Detach();

 private:
  struct State;
  explicit HostThread(State* state) : state_(state) {}
  static void* Main(void* state);
  static void JoinFinished();
  State* state_ = nullptr;
};

}  // namespace moat

#endif  // MOAT_PLATFORM_FIBER_THREAD_H_
