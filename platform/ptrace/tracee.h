// Tracee: one stub thread under ptrace(2). All calls come from the thread that attached. A tracee is stopped whenever
// one of these functions returns.
#ifndef MOAT_PLATFORM_PTRACE_TRACEE_H_
#define MOAT_PLATFORM_PTRACE_TRACEE_H_

#include <signal.h>
#include <sys/types.h>

#include "platform/base/result.h"
#include "platform/platform.h"
#include "platform/registers.h"
#include "platform/stub/layout.h"

namespace moat::ptrace_platform {

class Tracee {
 public:
  Tracee() = default;
  Tracee(pid_t tgid, pid_t tid) : tgid_(tgid), tid_(tid) {}
  pid_t tgid() const { return tgid_; }
  pid_t tid() const { return tid_; }
  bool attached() const { return attached_; }

  // Seizes the thread and stops it where it idles (trampoline.S). kESRCH: it is gone.
  Result<void> Attach();
  // Lets the thread run the trampoline's exit, untraced. Ends the registration for restartable sequences first.
  void DetachToExit();

  Result<void> GetRegisters(user_regs_struct& regs);
  Result<void> SetRegisters(const user_regs_struct& regs);

  // Resumes with `request` (PTRACE_SYSEMU or PTRACE_CONT) and waits for the next stop; the wait(2) status.
  // kESRCH: the thread has died; `status` then says how if the host told.
  Result<int> Run(int request);

  // One host call in the stub, or one trampoline entry; returns rax (an error as -errno) or r13 for a batch.
  // Other stops on the way (interrupts) are passed over. kESRCH: the thread has died.
  Result<int64_t> Call(uint64_t entry, uint64_t number, const uint64_t (&args)[6]);
  // `commands` as the stub sees them at stub::kCommands. The first error or 0.
  Result<int64_t> RunBatch(const stub::Command* commands, int count);

  // Registers the thread for restartable sequences, or ends that. See Step: such a thread never runs the trampoline
  // freely. RunBatch and Call may end the registration; rseq() says what it is now.
  Result<void> SetRseq(const RseqArea& area);
  const RseqArea& rseq() const { return rseq_; }

  Result<siginfo_t> GetSigInfo();

 private:
  Result<user_regs_struct> RunToBreakpoint(const user_regs_struct& regs);
  // One host call of a thread that is registered for restartable sequences, made so that the guest cannot use them to
  // break out: where the trampoline lies in what the guest calls a critical section, the host kernel sends the thread
  // to an address of the guest's choice. The step is one instruction long: either the call, or one instruction of the
  // guest's with our registers, and then again. May make the call twice. kESRCH: the guest does not let it happen; the
  // stub is dead then.
  Result<int64_t> Step(uint64_t number, const uint64_t (&args)[6]);
  // Ends the stub; kESRCH, as every call from then on.
  Errno Kill();
  pid_t tgid_ = 0;
  pid_t tid_ = 0;
  bool attached_ = false;
  RseqArea rseq_;
};

}  // namespace moat::ptrace_platform

#endif  // MOAT_PLATFORM_PTRACE_TRACEE_H_
