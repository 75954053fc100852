#include "sentry/kernel/child_event.h"

#include <sys/epoll.h>

#include "sentry/kernel/kernel.h"

namespace moat {

SigInfo ChildSigInfo(ThreadGroup& child, ThreadGroup& parent, int signo, int code, int status) {
  SigInfo info = MakeSigInfo(signo, code);
  info.si_pid = child.IdIn(parent.pid_ns());
  RefPtr<Task> leader = child.leader_locked();
  if (leader) {
    RefPtr<const Credentials> cred = leader->credentials();
    RefPtr<Task> parent_leader = parent.leader_locked();
    info.si_uid = parent_leader ? parent_leader->credentials()->user_ns->FromKuid(cred->uid) : cred->uid;
  }
  info.si_status = status;
  constexpr Nanos kTick = kNanosPerSec / 100;
  const CpuTimes times = child.cpu_times();
  info.si_utime = times.user / kTick;
  info.si_stime = times.system / kTick;
  return info;
}

SigInfo ThreadSigInfo(Task& thread, ThreadGroup& tracer, int code, int status) {
  SigInfo info = MakeSigInfo(SIGCHLD, code);
  info.si_pid = thread.TidIn(tracer.pid_ns());
  RefPtr<Task> leader = tracer.leader_locked();
  const Kuid uid = thread.credentials()->uid;
  info.si_uid = leader ? leader->credentials()->user_ns->FromKuid(uid) : uid;
  info.si_status = status;
  constexpr Nanos kTick = kNanosPerSec / 100;
  const CpuTimes times = thread.cpu_times();
  info.si_utime = times.user / kTick;
  info.si_stime = times.system / kTick;
  return info;
}

namespace {

// With the tree mutex held.
void Tell(ThreadGroup& child, int code, int status) {
  ThreadGroup* parent = child.parent_locked();
  if (parent == nullptr) {
    if (code == CLD_STOPPED && child.outside_job() != nullptr) child.outside_job()->OnStop();
    return;
  }
  const abi::KernelSigAction action = parent->actions()->Get(SIGCHLD);
  if (action.handler != 1 && (action.flags & SA_NOCLDSTOP) == 0)
    (void)parent->SendSignal(ChildSigInfo(child, *parent, SIGCHLD, code, status), true);
  parent->child_queue().Notify(EPOLLIN);
}

}  // namespace

void ReportContinued(ThreadGroup& group) {
  MutexLock lock(group.kernel().tree_mutex());
  if (group.IsZombie()) return;
  group.SetReportsLocked(0, true);
  Tell(group, CLD_CONTINUED, SIGCONT);
}

void ReportStopped(ThreadGroup& group, int signo) {
  MutexLock lock(group.kernel().tree_mutex());
  if (group.IsZombie()) return;
  group.SetReportsLocked(signo, false);
  Tell(group, CLD_STOPPED, signo);
}

}  // namespace moat
