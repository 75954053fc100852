#include "sentry/kernel/seccomp_filter.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>

#include "platform/base/log.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/trace_stop.h"

namespace moat {

namespace {

// Precedence: the smaller as a signed number wins (KILL_PROCESS is the most negative).
int32_t Precedence(uint32_t action) { return static_cast<int32_t>(action & SECCOMP_RET_ACTION_FULL); }

constexpr int kMaxSeccompErrno = 4095;
constexpr int kSysSeccomp = 1;  // SYS_SECCOMP of <asm-generic/siginfo.h>

void SendSigsys(Task& t, uint32_t data, bool force_kill) {
  SigInfo info = MakeSigInfo(SIGSYS, kSysSeccomp);
  info.si_errno = static_cast<int>(data & SECCOMP_RET_DATA);
  info.si_call_addr = reinterpret_cast<void*>(t.regs().gp.rip);
  info.si_syscall = static_cast<int>(t.regs().SyscallNumber());
  info.si_arch = AUDIT_ARCH_X86_64;
  if (force_kill) t.thread_group().actions()->Exchange(SIGSYS, {});
  t.ForceSignal(info);
}

bool StrictAllows(uint64_t nr) { return nr == SYS_read || nr == SYS_write || nr == SYS_exit || nr == SYS_rt_sigreturn; }

}  // namespace

uint32_t SeccompFilter::Run(const seccomp_data& data) const {
  uint32_t answer = SECCOMP_RET_ALLOW;
  for (const SeccompFilter* f = this; f != nullptr; f = f->next_.get()) {
    const uint32_t one = RunSeccompProgram(f->program_, data);
    if (Precedence(one) < Precedence(answer)) answer = one;
  }
  return answer;
}

bool SeccompFilter::IsAncestorOf(const SeccompFilter* o) const {
  for (; o != nullptr; o = o->next_.get()) {
    if (o == this) return true;
  }
  return false;
}

namespace {

// `traced`: a tracer has had its say about the call.
bool Check(Task& t, Result<int64_t>* result, bool traced) {
  const Registers& regs = t.regs();
  if (t.seccomp_mode() == SECCOMP_MODE_STRICT) {
    if (StrictAllows(regs.SyscallNumber())) return true;
    t.RequestGroupExit(SIGKILL);
    *result = kENOSYS;
    return false;
  }
  RefPtr<SeccompFilter> filter = t.seccomp_filter();
  if (!filter) return true;
  seccomp_data data{};
  data.nr = static_cast<int>(regs.SyscallNumber());
  data.arch = AUDIT_ARCH_X86_64;
  data.instruction_pointer = regs.gp.rip;
  for (int i = 0; i < 6; ++i) data.args[i] = regs.SyscallArg(i);
  const uint32_t answer = filter->Run(data);
  const uint32_t value = answer & SECCOMP_RET_DATA;
  switch (answer & SECCOMP_RET_ACTION_FULL) {
    case SECCOMP_RET_ALLOW:
      return true;
    case SECCOMP_RET_LOG:
      MOAT_LOG(kInfo, "seccomp: task {} made call {}", t.RootTid(), data.nr);
      return true;
    case SECCOMP_RET_ERRNO: {
      const int error = std::min<int>(static_cast<int>(value), kMaxSeccompErrno);
      *result = error == 0 ? Result<int64_t>(0) : Result<int64_t>(int64_t{-error});
      return false;
    }
    case SECCOMP_RET_TRAP:
      SendSigsys(t, value, false);
      *result = static_cast<int64_t>(regs.gp.orig_rax);  // the registers stay as they were
      return false;
    case SECCOMP_RET_TRACE:
      if (traced) return true;
      if (!TraceStop::Wants(t, PTRACE_EVENT_SECCOMP)) {
        *result = kENOSYS;
        return false;
      }
      TraceStop::Event(t, PTRACE_EVENT_SECCOMP, value);
      if (t.IsKilled() || static_cast<int32_t>(regs.gp.orig_rax) < 0) {
        *result = regs.Return();  // what the tracer has set
        return false;
      }
      // The tracer may have made it another call.
      return Check(t, result, true);
    case SECCOMP_RET_USER_NOTIF:
      *result = kENOSYS;  // no listener
      return false;
    case SECCOMP_RET_KILL_THREAD:
      // The last thread's death is the process's, with the signal for all to see.
      if (t.thread_group().task_count() > 1) {
        t.RequestExit(SIGSYS);
        *result = kENOSYS;
        return false;
      }
      [[fallthrough]];
    default:  // SECCOMP_RET_KILL_PROCESS, and what a filter made up
      SendSigsys(t, value, true);
      t.RequestGroupExit(SIGSYS);
      *result = kENOSYS;
      return false;
  }
}

}  // namespace

bool CheckSeccomp(Task& t, Result<int64_t>* result) { return Check(t, result, false); }

}  // namespace moat
