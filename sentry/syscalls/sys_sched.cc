// Scheduling: what guests set they read back; the host's scheduler runs the threads, on the CPUs that they chose.
// Source: sched(7), sched_setattr(2), sched_setaffinity(2), getpriority(2), ioprio_set(2).
#include <linux/sched.h>

#include <algorithm>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/syscalls/handlers.h"

namespace moat {
namespace {

constexpr int kPolicyDeadline = 6;      // SCHED_DEADLINE
constexpr int kIdlePolicy = 5;          // SCHED_IDLE
constexpr uint64_t kKnownFlags = 0x7f;  // SCHED_FLAG_ALL

// 0 is the caller. kESRCH.
Result<RefPtr<Task>> FindTarget(Task& t, int tid) {
  if (tid == 0 || tid == t.tid()) return RefPtr<Task>(&t);
  RefPtr<Task> target = t.kernel().FindTask(tid, *t.pid_ns());
  if (!target) return kESRCH;
  return target;
}

// The scheduling calls refuse negative ids as such; those of affinity and priority only do not find them, as on Linux.
Result<RefPtr<Task>> Target(Task& t, int tid) {
  if (tid < 0) return kEINVAL;
  return FindTarget(t, tid);
}

// The caller's effective id is the target's real or effective one, or CAP_SYS_NICE.
bool MayScheduleOther(Task& t, Task& target) {
  RefPtr<const Credentials> theirs = target.credentials();
  const Credentials& mine = t.cred();
  return mine.euid == theirs->euid || mine.euid == theirs->uid || mine.HasCapabilityIn(CAP_SYS_NICE, *theirs->user_ns);
}

bool IsRealtime(int policy) { return policy == SCHED_FIFO || policy == SCHED_RR; }
bool IsFair(int policy) { return policy == SCHED_OTHER || policy == SCHED_BATCH || policy == kIdlePolicy; }

// sched_setscheduler and its kin: Linux's checks, in its order.
Result<void> ChangePolicy(Task& t, Task& target, SchedState next) {
  if (!IsRealtime(next.policy) && !IsFair(next.policy) && next.policy != kPolicyDeadline) return kEINVAL;
  if (next.priority < 0 || next.priority > 99 || IsRealtime(next.policy) != (next.priority != 0)) return kEINVAL;
  if (next.policy == kPolicyDeadline && (next.runtime == 0 || next.deadline == 0 || next.runtime > next.deadline ||
                                         (next.period != 0 && next.deadline > next.period))) {
    return kEINVAL;
  }
  SchedState now = target.sched();
  if (!t.cred().HasCapability(CAP_SYS_NICE)) {
    if (!MayScheduleOther(t, target)) return kEPERM;
    uint64_t rt_limit = target.thread_group().rlimits().Soft(RLIMIT_RTPRIO);
    if (IsRealtime(next.policy)) {
      if (rt_limit == 0 && next.policy != now.policy) return kEPERM;
      if (next.priority > now.priority && static_cast<uint64_t>(next.priority) > rt_limit) return kEPERM;
    }
    if (next.policy == kPolicyDeadline) return kEPERM;
    int64_t nice_floor =
        20 - static_cast<int64_t>(std::min<uint64_t>(target.thread_group().rlimits().Soft(RLIMIT_NICE), 40));
    if (IsFair(next.policy) && next.nice < now.nice && next.nice < nice_floor) return kEPERM;
    if (now.policy == kIdlePolicy && next.policy != kIdlePolicy && now.nice < nice_floor) return kEPERM;
    if (now.reset_on_fork && !next.reset_on_fork) return kEPERM;
  }
  target.SetSched(next);
  return {};
}

// The tasks that getpriority(2)'s `which` and `who` mean. kEINVAL, kESRCH.
Result<std::vector<RefPtr<Task>>> PriorityTargets(Task& t, int which, int who) {
  RefPtr<PidNamespace> ns = t.pid_ns();
  std::vector<RefPtr<Task>> tasks;
  switch (which) {
    case PRIO_PROCESS: {
      tasks.push_back(TRY(FindTarget(t, who)));
      return tasks;
    }
    case PRIO_PGRP: {
      int32_t group = who == 0 ? t.thread_group().ProcessGroupIdIn(*ns) : who;
      for (const RefPtr<ThreadGroup>& g : t.kernel().ThreadGroups(*ns)) {
        if (g->ProcessGroupIdIn(*ns) != group) continue;
        for (RefPtr<Task>& task : g->tasks()) tasks.push_back(std::move(task));
      }
      break;
    }
    case PRIO_USER: {
      Kuid uid = who == 0 ? t.cred().uid : t.user_ns().ToKuid(static_cast<uint32_t>(who));
      for (const RefPtr<ThreadGroup>& g : t.kernel().ThreadGroups(*ns)) {
        for (RefPtr<Task>& task : g->tasks()) {
          if (task->credentials()->uid == uid) tasks.push_back(std::move(task));
        }
      }
      break;
    }
    default:
      return kEINVAL;
  }
  if (tasks.empty()) return kESRCH;
  return tasks;
}

size_t MaskBytes(Task& t) { return (static_cast<size_t>(t.kernel().cpus()) + 63) / 64 * 8; }

}  // namespace

Result<int64_t> SysSchedYield(Task&) {
  // The host runs whoever else wants this CPU: returning to the guest goes through its scheduler anyway.
  return 0;
}

Result<int64_t> SysSchedGetscheduler(Task& t, int tid) {
  SchedState s = TRY(Target(t, tid))->sched();
  return s.policy | (s.reset_on_fork ? SCHED_RESET_ON_FORK : 0);
}

Result<int64_t> SysSchedSetscheduler(Task& t, int tid, int policy, UserIn<abi::SchedParam> param) {
  if (policy < 0 || !param) return kEINVAL;
  RefPtr<Task> target = TRY(Target(t, tid));
  SchedState next = target->sched();
  next.reset_on_fork = (policy & SCHED_RESET_ON_FORK) != 0;
  next.policy = policy & ~SCHED_RESET_ON_FORK;
  next.priority = TRY(param.Read(t.memory())).priority;
  if (next.policy == kPolicyDeadline) return kEINVAL;  // only sched_setattr can say its parameters
  TRY(ChangePolicy(t, *target, next));
  return 0;
}

Result<int64_t> SysSchedGetparam(Task& t, int tid, UserOut<abi::SchedParam> param) {
  if (!param) return kEINVAL;
  SchedState s = TRY(Target(t, tid))->sched();
  TRY(param.Write(t.memory(), {s.priority}));
  return 0;
}

Result<int64_t> SysSchedSetparam(Task& t, int tid, UserIn<abi::SchedParam> param) {
  if (!param) return kEINVAL;
  RefPtr<Task> target = TRY(Target(t, tid));
  SchedState next = target->sched();
  next.priority = TRY(param.Read(t.memory())).priority;
  TRY(ChangePolicy(t, *target, next));
  return 0;
}

Result<int64_t> SysSchedGetattr(Task& t, int tid, GuestAddr out, uint32_t size, uint32_t flags) {
  if (out == 0 || flags != 0 || size < abi::kSchedAttrSizeV0 || size > kPageSize) return kEINVAL;
  SchedState s = TRY(Target(t, tid))->sched();
  abi::SchedAttr attr{};
  attr.size = std::min<uint32_t>(size, sizeof attr);
  attr.policy = static_cast<uint32_t>(s.policy);
  attr.flags = s.reset_on_fork ? SCHED_FLAG_RESET_ON_FORK : 0;
  attr.nice = IsFair(s.policy) ? s.nice : 0;
  attr.priority = static_cast<uint32_t>(s.priority);
  attr.runtime = s.runtime;
  attr.deadline = s.deadline;
  attr.period = s.period;
  attr.util_max = 1024;
  if (t.memory().CopyOut(out, &attr, attr.size) != attr.size) return kEFAULT;
  return 0;
}

Result<int64_t> SysSchedSetattr(Task& t, int tid, UserInOut<uint32_t> in, uint32_t flags) {
  if (flags != 0 || !in) return kEINVAL;
  uint32_t size = TRY(in.Read(t.memory()));
  if (size == 0) size = abi::kSchedAttrSizeV0;
  if (size < abi::kSchedAttrSizeV0 || size > kPageSize) {
    TRY(in.Write(t.memory(), sizeof(abi::SchedAttr)));
    return kE2BIG;
  }
  std::vector<std::byte> raw(std::max<size_t>(size, sizeof(abi::SchedAttr)));
  if (t.memory().CopyIn(raw.data(), in.addr(), size) != size) return kEFAULT;
  // Fields that we do not know must be zero.
  if (std::any_of(raw.begin() + sizeof(abi::SchedAttr), raw.end(), [](std::byte b) { return b != std::byte{0}; })) {
    return kE2BIG;
  }
  abi::SchedAttr attr;
  memcpy(&attr, raw.data(), sizeof attr);
  if (attr.flags & ~kKnownFlags) return kEINVAL;
  RefPtr<Task> target = TRY(Target(t, tid));
  SchedState next = target->sched();
  next.policy = static_cast<int32_t>(attr.policy);
  next.priority = static_cast<int32_t>(attr.priority);
  next.nice = std::clamp(attr.nice, -20, 19);
  next.reset_on_fork = (attr.flags & SCHED_FLAG_RESET_ON_FORK) != 0;
  next.runtime = attr.runtime;
  next.deadline = attr.deadline;
  next.period = attr.period;
  TRY(ChangePolicy(t, *target, next));
  return 0;
}

Result<int64_t> SysSchedGetPriorityMax(Task&, int policy) {
  if (IsRealtime(policy)) return 99;
  if (IsFair(policy) || policy == kPolicyDeadline) return 0;
  return kEINVAL;
}

Result<int64_t> SysSchedGetPriorityMin(Task&, int policy) {
  if (IsRealtime(policy)) return 1;
  if (IsFair(policy) || policy == kPolicyDeadline) return 0;
  return kEINVAL;
}

Result<int64_t> SysSchedRrGetInterval(Task& t, int tid, UserOut<abi::Timespec> out) {
  SchedState s = TRY(Target(t, tid))->sched();
  Nanos slice = s.policy == SCHED_RR ? 100'000'000 : IsFair(s.policy) ? 3'000'000 : 0;
  TRY(out.Write(t.memory(), {0, slice}));
  return 0;
}

Result<int64_t> SysSchedGetaffinity(Task& t, int tid, uint32_t length, GuestAddr out) {
  if (length * 8ull < static_cast<uint64_t>(t.kernel().cpus()) || length % sizeof(uint64_t) != 0) return kEINVAL;
  const SchedState s = TRY(FindTarget(t, tid))->sched();
  std::vector<uint64_t> mask = (s.affinity.empty() ? t.kernel().allowed_cpus() : s.affinity).words();
  mask.resize(MaskBytes(t) / sizeof(uint64_t));
  const size_t bytes = std::min<size_t>(MaskBytes(t), length);
  if (t.memory().CopyOut(out, mask.data(), bytes) != bytes) return kEFAULT;
  return static_cast<int64_t>(bytes);
}

Result<int64_t> SysSchedSetaffinity(Task& t, int tid, uint32_t length, GuestAddr in) {
  std::vector<uint64_t> mask(MaskBytes(t) / sizeof(uint64_t));
  const size_t bytes = std::min<size_t>(length, mask.size() * sizeof(uint64_t));
  if (t.memory().CopyIn(mask.data(), in, bytes) != bytes) return kEFAULT;
  RefPtr<Task> target = TRY(FindTarget(t, tid));
  if (!MayScheduleOther(t, *target)) return kEPERM;
  const CpuSet cpus = CpuSet(std::move(mask)) & t.kernel().allowed_cpus();
  if (cpus.empty()) return kEINVAL;
  target->SetAffinity(cpus);
  return 0;
}

Result<int64_t> SysGetpriority(Task& t, int which, int who) {
  int best = 20;
  for (const RefPtr<Task>& task : TRY(PriorityTargets(t, which, who))) best = std::min(best, task->sched().nice);
  return 20 - best;  // 40..1: libc turns it back
}

Result<int64_t> SysSetpriority(Task& t, int which, int who, int nice) {
  nice = std::clamp(nice, -20, 19);
  for (const RefPtr<Task>& task : TRY(PriorityTargets(t, which, who))) {
    if (!MayScheduleOther(t, *task)) return kEPERM;
    SchedState s = task->sched();
    uint64_t limit = task->thread_group().rlimits().Soft(RLIMIT_NICE);
    bool allowed = nice >= s.nice || static_cast<uint64_t>(20 - nice) <= limit || t.cred().HasCapability(CAP_SYS_NICE);
    if (!allowed) return kEACCES;
    s.nice = nice;
    task->SetSched(s);
  }
  return 0;
}

Result<int64_t> SysIoprioGet(Task& t, int which, int who) {
  constexpr int kProcess = 1, kGroup = 2, kUser = 3;
  int map = which == kProcess ? PRIO_PROCESS : which == kGroup ? PRIO_PGRP : which == kUser ? PRIO_USER : -1;
  int best = 0;
  for (const RefPtr<Task>& task : TRY(PriorityTargets(t, map, who))) {
    int prio = task->sched().ioprio;
    if (best == 0 || (prio != 0 && prio < best)) best = prio;
  }
  return best;
}

Result<int64_t> SysIoprioSet(Task& t, int which, int who, int ioprio) {
  constexpr int kProcess = 1, kGroup = 2, kUser = 3;
  constexpr int kNone = 0, kRealtime = 1, kBestEffort = 2, kIdle = 3;
  int level = ioprio & 0x1fff;
  switch (ioprio >> 13) {
    case kRealtime:
      if (!t.cred().HasCapability(CAP_SYS_ADMIN) && !t.cred().HasCapability(CAP_SYS_NICE)) return kEPERM;
      [[fallthrough]];
    case kBestEffort:
      if (level >= 8) return kEINVAL;
      break;
    case kIdle:
      break;
    case kNone:
      if (level != 0) return kEINVAL;
      break;
    default:
      return kEINVAL;
  }
  int map = which == kProcess ? PRIO_PROCESS : which == kGroup ? PRIO_PGRP : which == kUser ? PRIO_USER : -1;
  for (const RefPtr<Task>& task : TRY(PriorityTargets(t, map, who))) {
    if (!MayScheduleOther(t, *task)) return kEPERM;
    SchedState s = task->sched();
    s.ioprio = ioprio;
    task->SetSched(s);
  }
  return 0;
}

// The vDSO asks the CPU itself. The carrier runs where its guest thread does, or close to it: on another CPU than the
// guest thread may use it stands for one of those.
Result<int64_t> SysGetcpu(Task& t, UserOut<uint32_t> cpu, UserOut<uint32_t> node) {
  const CpuSet chosen = t.sched().affinity;
  const CpuSet& allowed = chosen.empty() ? t.kernel().allowed_cpus() : chosen;
  int now = sched_getcpu();
  if (!allowed.Has(now)) now = allowed.lowest();
  if (cpu) TRY(cpu.Write(t.memory(), static_cast<uint32_t>(now)));
  if (node) TRY(node.Write(t.memory(), 0));
  return 0;
}

}  // namespace moat
