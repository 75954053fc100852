#include "platform/ptrace/tracee.h"

#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/fiber/parker.h"
#include "platform/stub/layout.h"

#ifndef PTRACE_SYSEMU
#define PTRACE_SYSEMU static_cast<__ptrace_request>(31)
#endif

namespace moat::ptrace_platform {
namespace {

constexpr uint64_t kUserCs = 0x33;
constexpr uint64_t kUserSs = 0x2b;

template <typename... Args>
long Ptrace(int request, pid_t tid, Args... args) {
  return ptrace(static_cast<__ptrace_request>(request), tid, args...);
}

}  // namespace

Result<int> Tracee::Run(int request) {
  if (Ptrace(request, tid_, nullptr, nullptr) != 0) return kESRCH;
  int status;
  pid_t got;
  do {
    got = wait4(tid_, &status, __WALL, nullptr);
  } while (got < 0 && errno == EINTR);
  if (got != tid_) return kESRCH;
  return status;
}

Result<void> Tracee::Attach() {
  long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL;
  if (Ptrace(PTRACE_SEIZE, tid_, nullptr, options) != 0) return HostErrno();
  attached_ = true;
  for (;;) {
    if (Ptrace(PTRACE_INTERRUPT, tid_, nullptr, nullptr) != 0) return kESRCH;
    int status;
    pid_t got;
    do {
      got = wait4(tid_, &status, __WALL, nullptr);
    } while (got < 0 && errno == EINTR);
    if (got != tid_ || !WIFSTOPPED(status)) {
      attached_ = false;
      return kESRCH;
    }
    user_regs_struct regs;
    TRY(GetRegisters(regs));
    const stub::Entries& e = stub::TrampolineEntries();
    // pause() was interrupted: the instruction pointer is behind its syscall instruction, or at it for the restart.
    if (regs.rip >= e.idle && regs.rip < e.idle_end) return {};
    // Still on its way there: it was made a moment ago.
    if (Ptrace(PTRACE_CONT, tid_, nullptr, nullptr) != 0) return kESRCH;
    Parker pause;
    pause.Park(DeadlineAfter(20'000));
  }
}

void Tracee::DetachToExit() {
  user_regs_struct regs;
  if (GetRegisters(regs).ok()) {
    regs.rip = stub::TrampolineEntries().exit;
    regs.orig_rax = ~uint64_t{0};
    regs.cs = kUserCs;
    regs.ss = kUserSs;
    regs.eflags &= ~uint64_t{0x100};  // no single step
    (void)SetRegisters(regs);
  }
  Ptrace(PTRACE_DETACH, tid_, nullptr, nullptr);
  attached_ = false;
}

Result<void> Tracee::GetRegisters(user_regs_struct& regs) {
  if (Ptrace(PTRACE_GETREGS, tid_, nullptr, &regs) != 0) return kESRCH;
  return {};
}

Result<void> Tracee::SetRegisters(const user_regs_struct& regs) {
  if (Ptrace(PTRACE_SETREGS, tid_, nullptr, &regs) != 0) return errno == ESRCH ? kESRCH : kEINVAL;
  return {};
}

Result<siginfo_t> Tracee::GetSigInfo() {
  siginfo_t info;
  if (Ptrace(PTRACE_GETSIGINFO, tid_, nullptr, &info) != 0) return kESRCH;
  return info;
}

Result<user_regs_struct> Tracee::RunToBreakpoint(const user_regs_struct& regs) {
  TRY(SetRegisters(regs));
  for (;;) {
    int status = TRY(Run(PTRACE_CONT));
    if (!WIFSTOPPED(status)) return kESRCH;
    // A fault in the trampoline comes back for ever: the stub is broken.
    if (status >> 16 == 0 && (WSTOPSIG(status) == SIGSEGV || WSTOPSIG(status) == SIGBUS)) return kESRCH;
    if (WSTOPSIG(status) != SIGTRAP || status >> 16 != 0) continue;  // an interrupt: its flag is looked at later
    user_regs_struct after;
    TRY(GetRegisters(after));
    return after;
  }
}

Result<int64_t> Tracee::Call(uint64_t entry, uint64_t number, const uint64_t (&args)[6]) {
  user_regs_struct regs;
  TRY(GetRegisters(regs));
  regs.orig_rax = ~uint64_t{0};  // no restart of whatever call the thread was in
  regs.rip = entry;
  regs.cs = kUserCs;
  regs.ss = kUserSs;
  regs.eflags &= ~uint64_t{0x100};
  regs.rax = number;
  regs.rdi = args[0];
  regs.rsi = args[1];
  regs.rdx = args[2];
  regs.r10 = args[3];
  regs.r8 = args[4];
  regs.r9 = args[5];
  return static_cast<int64_t>(TRY(RunToBreakpoint(regs)).rax);
}

Result<int64_t> Tracee::RunBatch(uint64_t commands, int count) {
  user_regs_struct regs;
  TRY(GetRegisters(regs));
  regs.orig_rax = ~uint64_t{0};
  regs.rip = stub::TrampolineEntries().batch;
  regs.cs = kUserCs;
  regs.ss = kUserSs;
  regs.eflags &= ~uint64_t{0x500};  // neither single step nor the direction flag
  regs.rbx = commands;
  regs.r12 = static_cast<uint64_t>(count);
  return static_cast<int64_t>(TRY(RunToBreakpoint(regs)).r13);
}

}  // namespace moat::ptrace_platform
