// Ids of processes, groups and sessions. Source: getpid(2), gettid(2), setpgid(2), getsid(2), setsid(2),
// set_tid_address(2).
#include "sentry/kernel/kernel.h"
#include "sentry/syscalls/handlers.h"

namespace moat {

namespace {

// The process that a pid argument names; 0 is the caller.
Result<RefPtr<ThreadGroup>> GroupOf(Task& t, int32_t pid) {
  if (pid == 0) return RefPtr<ThreadGroup>(&t.thread_group());
  RefPtr<Task> target = t.kernel().FindTask(pid, *t.pid_ns());
  if (!target) return kESRCH;
  return RefPtr<ThreadGroup>(&target->thread_group());
}

}  // namespace

Result<int64_t> SysGetpid(Task& t) { return t.tgid(); }
Result<int64_t> SysGettid(Task& t) { return t.tid(); }
Result<int64_t> SysGetppid(Task& t) { return t.thread_group().ParentIdIn(*t.pid_ns()); }
Result<int64_t> SysGetpgrp(Task& t) { return t.thread_group().ProcessGroupIdIn(*t.pid_ns()); }

Result<int64_t> SysGetpgid(Task& t, int pid) {
  RefPtr<ThreadGroup> group = TRY(GroupOf(t, pid));
  return group->ProcessGroupIdIn(*t.pid_ns());
}

Result<int64_t> SysGetsid(Task& t, int pid) {
  RefPtr<ThreadGroup> group = TRY(GroupOf(t, pid));
  return group->SessionIdIn(*t.pid_ns());
}

Result<int64_t> SysSetpgid(Task& t, int pid, int pgid) {
  TRY(ThreadGroup::SetProcessGroup(t, pid, pgid));
  return 0;
}

Result<int64_t> SysSetsid(Task& t) {
  int32_t id = 0;
  TRY(t.thread_group().SetSession(&id));
  return id;
}

Result<int64_t> SysSetTidAddress(Task& t, GuestAddr addr) {
  t.clear_child_tid = addr;
  return t.tid();
}

}  // namespace moat
