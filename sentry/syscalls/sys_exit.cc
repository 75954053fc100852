// Source: exit(2), exit_group(2), wait4(2), waitid(2).
#include <fcntl.h>
#include <sys/wait.h>

#include <climits>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/task_wait.h"
#include "sentry/syscalls/handlers.h"

namespace moat {

namespace {

constexpr int kExitShift = 8;  // wait(2)'s status word
constexpr int kPidfd = 3;      // P_PIDFD
constexpr int kWaitFlags = __WALL | __WCLONE | __WNOTHREAD;

RefPtr<Pid> OwnGroup(Task& t) {
  MutexLock lock(t.kernel().tree_mutex());
  return RefPtr<Pid>(&t.thread_group().process_group_locked().id());
}

}  // namespace

Result<int64_t> SysExit(Task& t, int status) {
  t.RequestExit((status & 0xff) << kExitShift);
  return 0;
}

Result<int64_t> SysExitGroup(Task& t, int status) {
  t.RequestGroupExit((status & 0xff) << kExitShift);
  return 0;
}

Result<int64_t> SysWait4(Task& t, int pid, UserOut<int32_t> status, int options, UserOut<abi::Rusage> usage) {
  if ((options & ~(WNOHANG | WUNTRACED | WCONTINUED | kWaitFlags)) != 0) return kEINVAL;
  if (pid == INT_MIN) return kESRCH;
  WaitRequest r;
  r.options = options | WEXITED;
  RefPtr<PidNamespace> ns = t.pid_ns();
  if (pid < -1) {
    r.whom = WaitRequest::Whom::kGroup;
    r.pid = t.kernel().FindPid(-pid, *ns);
  } else if (pid == 0) {
    r.whom = WaitRequest::Whom::kGroup;
    r.pid = OwnGroup(t);
  } else if (pid > 0) {
    r.whom = WaitRequest::Whom::kPid;
    r.pid = t.kernel().FindPid(pid, *ns);
  }
  WaitResult result = TRY(WaitForChild(t, r));
  if (result.pid != 0) {
    if (status) TRY(status.Write(t.memory(), result.wait_status));
    if (usage) TRY(usage.Write(t.memory(), result.usage.ToRusage()));
  }
  return result.pid;
}

Result<int64_t> SysWaitid(Task& t, int idtype, int id, UserOut<abi::SigInfo> info_at, int options,
                          UserOut<abi::Rusage> usage) {
  if ((options & ~(WNOHANG | WNOWAIT | WEXITED | WSTOPPED | WCONTINUED | kWaitFlags)) != 0) return kEINVAL;
  if ((options & (WEXITED | WSTOPPED | WCONTINUED)) == 0) return kEINVAL;
  WaitRequest r;
  r.options = options;
  bool nonblocking = false;
  RefPtr<PidNamespace> ns = t.pid_ns();
  switch (idtype) {
    case P_ALL:
      break;
    case P_PID:
      if (id <= 0) return kEINVAL;
      r.whom = WaitRequest::Whom::kPid;
      r.pid = t.kernel().FindPid(id, *ns);
      break;
    case P_PGID:
      if (id < 0) return kEINVAL;
      r.whom = WaitRequest::Whom::kGroup;
      r.pid = id == 0 ? OwnGroup(t) : t.kernel().FindPid(id, *ns);
      break;
    case kPidfd: {
      if (id < 0) return kEINVAL;
      RefPtr<File> file = TRY(t.GetFile(id));
      PidFile* pidfd = PidFile::Cast(*file);
      if (pidfd == nullptr) return kEBADF;
      r.whom = WaitRequest::Whom::kPid;
      r.pid = pidfd->pid();
      if ((file->flags() & O_NONBLOCK) != 0) {
        r.options |= WNOHANG;
        nonblocking = (options & WNOHANG) == 0;
      }
      break;
    }
    default:
      return kEINVAL;
  }
  WaitResult result = TRY(WaitForChild(t, r));
  if (result.pid == 0 && nonblocking) return kEAGAIN;  // pidfd_open(2), PIDFD_NONBLOCK
  if (usage && result.pid != 0) TRY(usage.Write(t.memory(), result.usage.ToRusage()));
  if (info_at) {
    SigInfo info = MakeSigInfo(result.pid != 0 ? SIGCHLD : 0, result.code);
    info.si_pid = result.pid;
    info.si_uid = result.uid;
    info.si_status = result.status;
    TRY(info_at.Write(t.memory(), info));
  }
  return 0;
}

}  // namespace moat
