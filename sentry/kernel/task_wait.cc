#include "sentry/kernel/task_wait.h"

#include <sys/epoll.h>
#include <sys/wait.h>

#include "sentry/kernel/blocking.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task_exit.h"
#include "sentry/kernel/trace_link.h"

namespace moat {

bool ChildWaiter::IsMeant(const Task& child, const WaitRequest& r) {
  switch (r.whom) {
    case WaitRequest::Whom::kPid:
      return r.pid == child.pid();
    case WaitRequest::Whom::kGroup: {
      const RefPtr<ProcessGroup>& group = child.thread_group().process_group_;
      return group && r.pid == &group->id();
    }
    default:
      return true;
  }
}

bool ChildWaiter::Matches(Task& t, ThreadGroup& child, const WaitRequest& r) {
  if (!IsMeant(*child.leader_, r)) return false;
  if ((r.options & __WNOTHREAD) != 0 && child.parent_task_ != &t) return false;
  // A "clone" child is one that does not announce its end with SIGCHLD.
  if ((r.options & __WALL) != 0) return true;
  const bool clone_child = child.exit_signal() != SIGCHLD;
  return clone_child == ((r.options & __WCLONE) != 0);
}

void ChildWaiter::Explain(int status, WaitResult& out) {
  out.wait_status = status;
  if (WIFEXITED(status)) {
    out.code = CLD_EXITED;
    out.status = WEXITSTATUS(status);
  } else {
    out.code = WCOREDUMP(status) ? CLD_DUMPED : CLD_KILLED;
    out.status = WTERMSIG(status);
  }
}

bool ChildWaiter::TakeStop(Task& t, Task& tracee, int options, WaitResult& out) {
  MutexLock lock(tracee.thread_group().signal_mu_);
  TraceState& s = tracee.trace_;
  if (!s.in_stop || s.listening || s.code == 0) return false;
  out.code = CLD_TRAPPED;
  out.status = s.code;
  out.wait_status = s.code << 8 | 0x7f;
  if ((options & WNOWAIT) == 0) s.code = 0;
  return true;
}

bool ChildWaiter::TakeTraced(Task& t, Task& tracee, int options, WaitResult& out, DeferredSignals& signals,
                             std::vector<RefPtr<RefCounted>>& dropped) {
  ThreadGroup& group = tracee.thread_group();
  const bool leader = group.leader_ == &tracee;
  bool ended = false;
  if (leader && group.IsZombie()) {
    // The parent's own wait takes it (Take).
    if (group.parent_ == &t.thread_group() || group.traced_zombies_ != 0 || (options & WEXITED) == 0) return false;
    Explain(group.exit_status(), out);
    ended = true;
  } else if (tracee.trace_.zombie) {
    if ((options & WEXITED) == 0) return false;
    Explain(tracee.exit_status_, out);
    ended = true;
  } else if (!TakeStop(t, tracee, options, out)) {
    return false;
  }
  out.pid = tracee.TidIn(*t.pid_ns());
  out.uid = t.cred().user_ns->FromKuid(tracee.credentials()->uid);
  if (leader) {
    out.usage = group.UsageLocked();
    out.usage.Add(group.children_usage_);
  } else {
    const CpuTimes times = tracee.cpu_times();
    out.usage.user = times.user;
    out.usage.system = times.system;
  }
  if (ended && (options & WNOWAIT) == 0) TaskExit::TracerWaitedLocked(tracee, signals, dropped);
  return true;
}

bool ChildWaiter::Take(Task& t, ThreadGroup& child, int options, WaitResult& out,
                       std::vector<RefPtr<RefCounted>>& dropped) {
  const bool keep = (options & WNOWAIT) != 0;
  bool reap = false;
  const bool traced_here = TraceLink::TracedByParentLocked(*child.leader_);
  if (child.IsZombie()) {
    // Its tracer waits for it first, and a tracer for each of its threads.
    if ((options & WEXITED) == 0 || child.traced_zombies_ != 0) return false;
    if (child.leader_->trace_.tracer != nullptr && !traced_here) return false;
    Explain(child.exit_status(), out);
    reap = !keep;
  } else if (traced_here) {
    return false;  // TakeTraced tells of its stops
  } else if (child.stop_report_ != 0 && (options & WSTOPPED) != 0) {
    out.code = CLD_STOPPED;
    out.status = child.stop_report_;
    out.wait_status = child.stop_report_ << 8 | 0x7f;
    if (!keep) child.stop_report_ = 0;
  } else if (child.continue_report_ && (options & WCONTINUED) != 0) {
    out.code = CLD_CONTINUED;
    out.status = SIGCONT;
    out.wait_status = 0xffff;
    if (!keep) child.continue_report_ = false;
  } else {
    return false;
  }
  out.pid = child.IdIn(*t.pid_ns());
  if (child.leader_) out.uid = t.cred().user_ns->FromKuid(child.leader_->credentials()->uid);
  out.usage = child.UsageLocked();
  out.usage.Add(child.children_usage_);
  if (reap) {
    t.thread_group().children_usage_.Add(out.usage);
    TaskExit::ReleaseLocked(child, dropped);
  }
  return true;
}

Result<WaitResult> ChildWaiter::Look(Task& t, const WaitRequest& r) {
  std::vector<RefPtr<RefCounted>> dropped;
  DeferredSignals signals;
  MutexLock lock(t.kernel().tree_mutex());
  bool any = false;
  for (const RefPtr<ThreadGroup>& child : t.thread_group().children_) {
    if (!Matches(t, *child, r)) continue;
    any = true;
    WaitResult result;
    if (Take(t, *child, r.options, result, dropped)) return result;
  }
  for (const RefPtr<Task>& thread : t.thread_group().tasks_) {
    if ((r.options & __WNOTHREAD) != 0 && thread != &t) continue;
    for (const RefPtr<Task>& tracee : thread->trace_.tracees) {
      if (!IsMeant(*tracee, r)) continue;
      any = true;
      WaitResult result;
      RefPtr<Task> keep = tracee;
      if (TakeTraced(t, *keep, r.options, result, signals, dropped)) {
        dropped.emplace_back(RefPtr<RefCounted>(keep.get()));
        return result;
      }
    }
  }
  return any ? kEAGAIN : kECHILD;
}

Result<WaitResult> WaitForChild(Task& t, const WaitRequest& request) {
  if (request.whom != WaitRequest::Whom::kAny && !request.pid) return kECHILD;
  if ((request.options & WNOHANG) != 0) {
    Result<WaitResult> result = ChildWaiter::Look(t, request);
    if (!result.ok() && result.error() == kEAGAIN) return WaitResult{};
    return result;
  }
  return BlockingOp(t, t.thread_group().child_queue(), EPOLLIN, kNoDeadline,
                    [&] { return ChildWaiter::Look(t, request); });
}

}  // namespace moat
