// Resource limits and usage: prlimit64(2), getrlimit(2), getrusage(2).
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/process_timers.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/syscalls/handlers.h"

namespace moat {
namespace {

// Gets, and with `next` sets, a limit of `group` with the rights of `t`.
Result<Rlimit> ChangeLimit(Task& t, ThreadGroup& group, uint32_t resource, const Rlimit* next) {
  if (resource >= kRlimitCount) return kEINVAL;
  if (next == nullptr) return group.rlimits().Get(static_cast<int>(resource));
  if (next->soft > next->hard) return kEINVAL;
  bool may_raise = t.cred().HasCapabilityIn(CAP_SYS_RESOURCE, *t.kernel().root_user_ns());
  // /proc/sys/fs/nr_open bounds RLIMIT_NOFILE for everybody.
  if (resource == RLIMIT_NOFILE && next->hard > 1'048'576) return kEPERM;
  Rlimit old = TRY(group.rlimits().Exchange(static_cast<int>(resource), *next, may_raise));
  if (resource == RLIMIT_CPU) group.timers().UpdateCpuLimit();
  return old;
}

// prlimit(2): the same ids, all of them, or CAP_SYS_RESOURCE in the target's user namespace.
bool MayChangeLimitsOf(Task& t, Task& target) {
  const Credentials& mine = t.cred();
  RefPtr<const Credentials> theirs = target.credentials();
  bool same = mine.uid == theirs->uid && mine.uid == theirs->euid && mine.uid == theirs->suid &&
              mine.gid == theirs->gid && mine.gid == theirs->egid && mine.gid == theirs->sgid;
  return same || mine.HasCapabilityIn(CAP_SYS_RESOURCE, *theirs->user_ns);
}

}  // namespace

Result<int64_t> SysGetrlimit(Task& t, uint32_t resource, UserOut<abi::Rlimit64> out) {
  Rlimit limit = TRY(ChangeLimit(t, t.thread_group(), resource, nullptr));
  TRY(out.Write(t.memory(), {limit.soft, limit.hard}));
  return 0;
}

Result<int64_t> SysSetrlimit(Task& t, uint32_t resource, UserIn<abi::Rlimit64> in) {
  abi::Rlimit64 limit = TRY(in.Read(t.memory()));
  Rlimit next{limit.soft, limit.hard};
  TRY(ChangeLimit(t, t.thread_group(), resource, &next));
  return 0;
}

Result<int64_t> SysPrlimit64(Task& t, int pid, uint32_t resource, UserIn<abi::Rlimit64> in,
                             UserOut<abi::Rlimit64> out) {
  Rlimit next;
  if (in) {
    abi::Rlimit64 limit = TRY(in.Read(t.memory()));
    next = {limit.soft, limit.hard};
  }
  RefPtr<Task> target(&t);
  if (pid != 0 && pid != t.tid()) {
    target = t.kernel().FindTask(pid, *t.pid_ns());
    if (!target) return kESRCH;
    if (!MayChangeLimitsOf(t, *target)) return kEPERM;
  }
  Rlimit old = TRY(ChangeLimit(t, target->thread_group(), resource, in ? &next : nullptr));
  if (out) TRY(out.Write(t.memory(), {old.soft, old.hard}));
  return 0;
}

Result<int64_t> SysGetrusage(Task& t, int who, UserOut<abi::Rusage> out) {
  ResourceUsage usage;
  switch (who) {
    case RUSAGE_SELF:
      usage = t.thread_group().Usage();
      break;
    case RUSAGE_CHILDREN:
      usage = t.thread_group().ChildrenUsage();
      break;
    case RUSAGE_THREAD: {
      usage.user = t.cpu_times().user;
      usage.system = t.cpu_times().system;
      usage.voluntary_switches = t.voluntary_switches();
      usage.max_rss = t.memory().Usage().peak_rss;
      break;
    }
    default:
      return kEINVAL;
  }
  TRY(out.Write(t.memory(), usage.ToRusage()));
  return 0;
}

}  // namespace moat
