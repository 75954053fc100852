// Source: membarrier(2).
#include <linux/membarrier.h>

#include "sentry/kernel/kernel.h"
#include "sentry/syscalls/handlers.h"

namespace moat {

namespace {

constexpr int kSupported = MEMBARRIER_CMD_GLOBAL | MEMBARRIER_CMD_GLOBAL_EXPEDITED |
                           MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED | MEMBARRIER_CMD_PRIVATE_EXPEDITED |
                           MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED | MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ |
                           MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ;

// A task that enters the sentry and leaves it again has passed a full barrier, and its critical section of rseq(2) is
// aborted: interrupt everyone who runs guest code
// and wait until each has been out once, or sleeps.
void BarrierOf(Task& t, const std::vector<RefPtr<Task>>& tasks) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  for (const RefPtr<Task>& other : tasks) {
    if (other == &t || other->exited()) continue;
    const uint64_t entries = other->guest_entries();
    if (!other->in_guest()) continue;
    other->Kick();
    while (other->in_guest() && other->guest_entries() == entries) t.SleepBriefly();
  }
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

}  // namespace

Result<int64_t> SysMembarrier(Task& t, int command, unsigned flags, int cpu) {
  const bool one_cpu = command == MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ && flags == MEMBARRIER_CMD_FLAG_CPU;
  if (flags != 0 && !one_cpu) return kEINVAL;
  ThreadGroup& group = t.thread_group();
  switch (command) {
    case MEMBARRIER_CMD_QUERY:
      return kSupported;
    case MEMBARRIER_CMD_GLOBAL:
    case MEMBARRIER_CMD_GLOBAL_EXPEDITED:
      for (const RefPtr<ThreadGroup>& other : t.kernel().ThreadGroups(*t.kernel().root_pid_ns()))
        BarrierOf(t, other->tasks());
      return 0;
    case MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED:
      return 0;
    case MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED:
      group.membarrier_registered.store(true, std::memory_order_relaxed);
      return 0;
    case MEMBARRIER_CMD_PRIVATE_EXPEDITED:
      if (!group.membarrier_registered.load(std::memory_order_relaxed)) return kEPERM;
      BarrierOf(t, group.tasks());
      return 0;
    case MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ:
      group.membarrier_rseq_registered.store(true, std::memory_order_relaxed);
      return 0;
    case MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ:
      if (!group.membarrier_rseq_registered.load(std::memory_order_relaxed)) return kEPERM;
      // Threads on other CPUs than the one that was named are interrupted too: which they are on is not known for sure.
      if (!one_cpu || t.kernel().allowed_cpus().Has(cpu)) BarrierOf(t, group.tasks());
      return 0;
    default:
      return kEINVAL;
  }
}

}  // namespace moat
