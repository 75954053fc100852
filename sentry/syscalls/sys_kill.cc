// Sending signals. Source: kill(2), tkill(2), tgkill(2), rt_sigqueueinfo(2), pidfd_send_signal(2).
#include <climits>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/syscalls/handlers.h"

namespace moat {

namespace {

// kill(2), "For a process to have permission to send a signal".
Result<void> MaySignal(Task& t, Task& target, int signo) {
  if (&target.thread_group() == &t.thread_group()) return {};
  const Credentials& mine = t.cred();
  RefPtr<const Credentials> theirs = target.credentials();
  if (mine.euid == theirs->suid || mine.euid == theirs->uid || mine.uid == theirs->suid || mine.uid == theirs->uid)
    return {};
  if (mine.HasCapabilityIn(CAP_KILL, *theirs->user_ns)) return {};
  if (signo == SIGCONT && t.thread_group().session() == target.thread_group().session().get()) return {};
  return kEPERM;
}

// The sender's ids as the receiver sees them.
SigInfo InfoFor(Task& t, Task& target, int signo, int code) {
  return UserSigInfo(signo, code, t.TgidIn(*target.pid_ns()), target.credentials()->user_ns->FromKuid(t.cred().uid));
}

bool FromOutside(Task& t, Task& target) { return t.TgidIn(*target.pid_ns()) == 0; }

Result<void> SendToProcess(Task& t, ThreadGroup& group, int signo) {
  RefPtr<Task> leader = group.leader();
  if (!leader) return kESRCH;
  TRY(MaySignal(t, *leader, signo));
  if (signo == 0) return {};
  return group.SendSignal(InfoFor(t, *leader, signo, SI_USER), FromOutside(t, *leader));
}

Result<int64_t> SendToThread(Task& t, int tgid, int tid, int signo) {
  if (!ValidSignal(signo) && signo != 0) return kEINVAL;
  RefPtr<Task> target = t.kernel().FindTask(tid, *t.pid_ns());
  if (!target || (tgid > 0 && target->TgidIn(*t.pid_ns()) != tgid)) return kESRCH;
  if (target->leaving() && target != target->thread_group().leader()) return kESRCH;
  TRY(MaySignal(t, *target, signo));
  if (signo == 0 || target->exited()) return 0;
  TRY(target->SendSignal(InfoFor(t, *target, signo, SI_TKILL), FromOutside(t, *target)));
  return 0;
}

// rt_sigqueueinfo(2): only the kernel may claim to be the kernel, or kill.
Result<SigInfo> ReadInfo(Task& t, UserIn<abi::SigInfo> at, int signo, bool to_self) {
  SigInfo info = TRY(at.Read(t.memory()));
  info.si_signo = signo;
  if ((info.si_code >= 0 || info.si_code == SI_TKILL) && !to_self) return kEPERM;
  return info;
}

}  // namespace

Result<int64_t> SysKill(Task& t, int pid, SignalNum signal) {
  const int signo = Raw(signal);
  if (!ValidSignal(signo) && signo != 0) return kEINVAL;
  Kernel& kernel = t.kernel();
  RefPtr<PidNamespace> ns = t.pid_ns();
  if (pid > 0) {
    RefPtr<Task> target = kernel.FindTask(pid, *ns);
    if (!target) return kESRCH;
    TRY(SendToProcess(t, target->thread_group(), signo));
    return 0;
  }
  if (pid == INT_MIN) return kESRCH;
  std::vector<RefPtr<ThreadGroup>> targets;
  if (pid == -1) {
    // All but init and ourselves.
    for (RefPtr<ThreadGroup>& group : kernel.ThreadGroups(*ns)) {
      if (group != &t.thread_group() && group->IdIn(*ns) > 1) targets.push_back(std::move(group));
    }
  } else {
    MutexLock lock(kernel.tree_mutex());
    ProcessGroup* process_group = &t.thread_group().process_group_locked();
    if (pid != 0) {
      Pid* id = ns->Find(-pid);
      process_group = id == nullptr ? nullptr : id->process_group;
    }
    if (process_group != nullptr) {
      for (ThreadGroup* member : process_group->members()) targets.emplace_back(member);
    }
  }
  if (targets.empty()) return kESRCH;
  // One that could be signalled is success.
  Errno error = kESRCH;
  bool sent = false;
  for (RefPtr<ThreadGroup>& group : targets) {
    Result<void> one = SendToProcess(t, *group, signo);
    if (one.ok()) {
      sent = true;
    } else {
      error = one.error();
    }
  }
  if (!sent && !(pid == -1 && error == kEPERM)) return error;
  return sent ? Result<int64_t>(0) : Result<int64_t>(error);
}

Result<int64_t> SysTkill(Task& t, int tid, SignalNum signal) {
  if (tid <= 0) return kEINVAL;
  return SendToThread(t, 0, tid, Raw(signal));
}

Result<int64_t> SysTgkill(Task& t, int tgid, int tid, SignalNum signal) {
  if (tgid <= 0 || tid <= 0) return kEINVAL;
  return SendToThread(t, tgid, tid, Raw(signal));
}

Result<int64_t> SysRtSigqueueinfo(Task& t, int pid, SignalNum signal, UserIn<abi::SigInfo> info_at) {
  const int signo = Raw(signal);
  SigInfo info = TRY(ReadInfo(t, info_at, signo, pid == t.tgid()));
  if (!ValidSignal(signo) && signo != 0) return kEINVAL;
  RefPtr<Task> target = t.kernel().FindTask(pid, *t.pid_ns());
  if (!target) return kESRCH;
  TRY(MaySignal(t, *target, signo));
  if (signo == 0) return 0;
  TRY(target->thread_group().SendSignal(info, FromOutside(t, *target)));
  return 0;
}

Result<int64_t> SysRtTgsigqueueinfo(Task& t, int tgid, int tid, SignalNum signal, UserIn<abi::SigInfo> info_at) {
  if (tgid <= 0 || tid <= 0) return kEINVAL;
  const int signo = Raw(signal);
  SigInfo info = TRY(ReadInfo(t, info_at, signo, tgid == t.tgid()));
  if (!ValidSignal(signo) && signo != 0) return kEINVAL;
  RefPtr<Task> target = t.kernel().FindTask(tid, *t.pid_ns());
  if (!target || target->TgidIn(*t.pid_ns()) != tgid) return kESRCH;
  TRY(MaySignal(t, *target, signo));
  if (signo == 0 || target->exited()) return 0;
  TRY(target->SendSignal(info, FromOutside(t, *target)));
  return 0;
}

Result<int64_t> SysPidfdSendSignal(Task& t, FdNum fd, SignalNum signal, UserIn<abi::SigInfo> info_at, unsigned flags) {
  if (flags != 0) return kEINVAL;
  const int signo = Raw(signal);
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  RefPtr<Pid> pid = TRY(ProcessOf(*file));
  RefPtr<ThreadGroup> group;
  {
    MutexLock lock(t.kernel().tree_mutex());
    group = RefPtr<ThreadGroup>(pid->thread_group);
  }
  if (pid->NrIn(*t.pid_ns()) == 0) return kEINVAL;  // not visible from here
  SigInfo info;
  if (info_at) {
    info = TRY(info_at.Read(t.memory()));
    if (info.si_signo != signo) return kEINVAL;
    const bool to_self = group == &t.thread_group();
    if ((info.si_code >= 0 || info.si_code == SI_TKILL) && !to_self) return kEPERM;
  }
  if (!ValidSignal(signo) && signo != 0) return kEINVAL;
  if (!group) return kESRCH;
  if (!info_at) {
    TRY(SendToProcess(t, *group, signo));
    return 0;
  }
  RefPtr<Task> leader = group->leader();
  if (!leader) return kESRCH;
  TRY(MaySignal(t, *leader, signo));
  if (signo != 0) TRY(group->SendSignal(info, FromOutside(t, *leader)));
  return 0;
}

}  // namespace moat
