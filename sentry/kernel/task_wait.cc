#include "sentry/kernel/task_wait.h"

#include <sys/epoll.h>
#include <sys/wait.h>

#include "sentry/kernel/blocking.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task_exit.h"

namespace moat {

bool ChildWaiter::Matches(Task& t, ThreadGroup& child, const WaitRequest& r) {
  switch (r.whom) {
    case WaitRequest::Whom::kAny:
      break;
    case WaitRequest::Whom::kPid:
      if (r.pid != &child.pid()) return false;
      break;
    case WaitRequest::Whom::kGroup:
      if (!child.process_group_ || r.pid != &child.process_group_->id()) return false;
      break;
  }
  if ((r.options & __WNOTHREAD) != 0 && child.parent_task_ != &t) return false;
  // A "clone" child is one that does not announce its end with SIGCHLD.
  if ((r.options & __WALL) != 0) return true;
  const bool clone_child = child.exit_signal() != SIGCHLD;
  return clone_child == ((r.options & __WCLONE) != 0);
}

bool ChildWaiter::Take(Task& t, ThreadGroup& child, int options, WaitResult& out,
                       std::vector<RefPtr<RefCounted>>& dropped) {
  const bool keep = (options & WNOWAIT) != 0;
  bool reap = false;
  if (child.IsZombie()) {
    if ((options & WEXITED) == 0) return false;
    out.wait_status = child.exit_status();
    if (WIFEXITED(out.wait_status)) {
      out.code = CLD_EXITED;
      out.status = WEXITSTATUS(out.wait_status);
    } else {
      out.code = WCOREDUMP(out.wait_status) ? CLD_DUMPED : CLD_KILLED;
      out.status = WTERMSIG(out.wait_status);
    }
    reap = !keep;
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
  MutexLock lock(t.kernel().tree_mutex());
  bool any = false;
  for (const RefPtr<ThreadGroup>& child : t.thread_group().children_) {
    if (!Matches(t, *child, r)) continue;
    any = true;
    WaitResult result;
    if (Take(t, *child, r.options, result, dropped)) return result;
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
