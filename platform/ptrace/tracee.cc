#include "platform/ptrace/tracee.h"

#include <linux/rseq.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "platform/base/log.h"
#include "platform/fiber/parker.h"
#include "platform/stub/layout.h"
#include "platform/stub/rseq.h"

#ifndef PTRACE_SYSEMU
#define PTRACE_SYSEMU static_cast<__ptrace_request>(31)
#endif

namespace moat::ptrace_platform {
namespace {

constexpr uint64_t kUserCs = 0x33;
constexpr uint64_t kUserSs = 0x2b;
constexpr uint64_t kTrapFlag = 0x100, kDirectionFlag = 0x400;
// Up to here single steps are cheaper than to end the registration and to begin it again.
constexpr int kBatchToStep = 3;
// A guest whose other threads make every step fail is left to itself for long enough by then.
constexpr int kMaxSteps = 1000;

template <typename... Args>
long Ptrace(int request, pid_t tid, Args... args) {
  return ptrace(static_cast<__ptrace_request>(request), tid, args...);
}

void PrepareCall(user_regs_struct& regs, uint64_t entry, uint64_t number, const uint64_t (&args)[6]) {
  regs.orig_rax = ~uint64_t{0};  // no restart of whatever call the thread was in
  regs.rip = entry;
  regs.cs = kUserCs;
  regs.ss = kUserSs;
  regs.eflags &= ~kTrapFlag;
  regs.rax = number;
  regs.rdi = args[0];
  regs.rsi = args[1];
  regs.rdx = args[2];
  regs.r10 = args[3];
  regs.r8 = args[4];
  regs.r9 = args[5];
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
  (void)SetRseq({});
  user_regs_struct regs;
  if (GetRegisters(regs).ok()) {
    regs.rip = stub::TrampolineEntries().exit;
    regs.orig_rax = ~uint64_t{0};
    regs.cs = kUserCs;
    regs.ss = kUserSs;
    regs.eflags &= ~kTrapFlag;
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
  TRY(SetRseq({}));
  user_regs_struct regs;
  TRY(GetRegisters(regs));
  PrepareCall(regs, entry, number, args);
  return static_cast<int64_t>(TRY(RunToBreakpoint(regs)).rax);
}

Result<int64_t> Tracee::Step(uint64_t number, const uint64_t (&args)[6]) {
  const uint64_t entry = stub::TrampolineEntries().syscall;
  user_regs_struct regs, after;
  TRY(GetRegisters(regs));
  PrepareCall(regs, entry, number, args);
  // The trap flag, and not PTRACE_SINGLESTEP, which stops once more at the end of the guest's own call. `syscall`
  // leaves the next instruction's address in rcx, which no other single instruction can do that ends there.
  regs.eflags |= kTrapFlag;
  regs.rcx = 0;
  for (int i = 0; i < kMaxSteps; ++i) {
    TRY(SetRegisters(regs));
    const int status = TRY(Run(PTRACE_CONT));
    if (!WIFSTOPPED(status)) return kESRCH;
    TRY(GetRegisters(after));
    // Behind the breakpoint, or in front of it when a signal was first.
    const uint64_t behind = entry + kSyscallLength;
    if (after.rcx == behind && after.rip - behind <= 1) return static_cast<int64_t>(after.rax);
  }
  return Kill();
}

Errno Tracee::Kill() {
  MOAT_LOG(kWarning, "stub {}: the guest's restartable sequences leave its thread no way out", tgid_);
  syscall(SYS_tgkill, tgid_, tid_, SIGKILL);
  return kESRCH;
}

Result<void> Tracee::SetRseq(const RseqArea& area) {
  if (area == rseq_) return {};
  if (rseq_.address != 0) {
    const int64_t error =
        TRY(Step(SYS_rseq, {rseq_.address, stub::kRseqLength, RSEQ_FLAG_UNREGISTER, rseq_.signature, 0, 0}));
    // EINVAL: an earlier try has ended it. Anything else leaves it, and the thread may not run the trampoline then.
    if (error != 0 && error != -EINVAL) return Kill();
    rseq_ = {};
  }
  if (area.address == 0) return {};
  const int64_t error = TRY(Step(SYS_rseq, {area.address, stub::kRseqLength, 0, area.signature, 0, 0}));
  if (error != 0 && error != -EBUSY) return static_cast<Errno>(-error);
  rseq_ = area;
  return {};
}

Result<int64_t> Tracee::RunBatch(const stub::Command* commands, int count) {
  if (rseq_.address != 0 && count <= kBatchToStep) {
    int64_t first = 0;
    for (int i = 0; i < count; ++i) {
      const int64_t result = TRY(Step(commands[i].number, commands[i].args));
      if (first == 0 && result < 0 && result >= -4095) first = result;
    }
    return first;
  }
  TRY(SetRseq({}));
  user_regs_struct regs;
  TRY(GetRegisters(regs));
  regs.orig_rax = ~uint64_t{0};
  regs.rip = stub::TrampolineEntries().batch;
  regs.cs = kUserCs;
  regs.ss = kUserSs;
  regs.eflags &= ~(kTrapFlag | kDirectionFlag);
  regs.rbx = stub::kCommands;
  regs.r12 = static_cast<uint64_t>(count);
  return static_cast<int64_t>(TRY(RunToBreakpoint(regs)).r13);
}

}  // namespace moat::ptrace_platform
