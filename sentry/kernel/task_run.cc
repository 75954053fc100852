// The straight line of a task: guest code until it needs the kernel, the kernel's answer, signals, guest code again.
#include "platform/base/log.h"
#include "platform/fiber/fiber.h"
#include "sentry/kernel/async_io.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/rseq.h"
#include "sentry/kernel/signal_delivery.h"
#include "sentry/kernel/syscall_entry.h"
#include "sentry/kernel/trace_stop.h"

namespace moat {

SyscallEntry syscall_entry = nullptr;

namespace {
// x86 exception numbers.
constexpr uint32_t kPageFault = 14;
// Page-fault error code bits.
constexpr uint64_t kProtectionFault = 1, kUserAccess = 4, kInstructionFetch = 16;

// The exception behind a signal, for platforms that do not tell.
uint64_t TrapNumber(int signo, int code) {
  switch (signo) {
    case SIGFPE:
      return code == FPE_INTDIV ? 0 : 16;
    case SIGTRAP:
      return code == TRAP_TRACE || code == TRAP_HWBKPT ? 1 : 3;
    case SIGILL:
      return 6;
    case SIGBUS:
      return 17;
    default:
      return 13;
  }
}
}  // namespace

Task* CurrentTask() { return static_cast<Task*>(FiberValue()); }
void SetCurrentTask(Task* t) { SetFiberValue(t); }

Result<void> Task::Start() {
  const FiberKind kind = kernel_.platform().pins_carrier() ? FiberKind::kPinned : FiberKind::kPooled;
  AddRef();  // the fiber's
  Result<void> started = StartFiber(kind, "moat-task", [this] {
    Run();
    SetCurrentTask(nullptr);
    Unref();
  });
  if (!started.ok()) Unref();
  return started;
}

void Task::Run() {
  SetCurrentTask(this);
  if (gate_ != nullptr) gate_->Wait(parker_);
  kernel_.cpu_share().Enter();
  clock_mark_.store(kernel_.cpu_share().Now(), std::memory_order_relaxed);
  if (set_child_tid_ != 0) {
    const int32_t id = tid();
    (void)mm_->CopyOut(set_child_tid_, &id, sizeof id);
  }
  while (!exit_requested_) {
    if (async_io::pending.load(std::memory_order_relaxed)) [[unlikely]]
      async_io::Deliver();
    if (HasPendingInterrupt() || interrupted_call_ || signals_.has_saved_mask) {
      if (!regs_.complete && !IsKilled() && !context_->Complete(regs_).ok())
        RequestGroupExit(rseq::Broken(*this) ? SIGSEGV : SIGKILL);
      SignalDelivery::Run(*this);
      if (exit_requested_) break;
    }
    Event event = EnterGuest();
    if (std::holds_alternative<InterruptEvent>(event)) [[unlikely]] {
      rseq::Abort(*this);
      if (!StepIntoCall()) continue;
      event = SyscallEvent{};
    }
    if (std::holds_alternative<SyscallEvent>(event)) {
      last_syscall_.store(regs_.SyscallNumber(), std::memory_order_relaxed);
      syscalls_.fetch_add(1, std::memory_order_relaxed);
      const SyscallEvent call = std::get<SyscallEvent>(event);
      const GuestAddr behind = regs_.gp.rip;
      if (trace_.flags.load(std::memory_order_relaxed) != 0) [[unlikely]] {
        TraceStop::Call(*this);
        continue;
      }
      syscall_entry(*this);
      if (call.wants_identity) PublishIdentity();
      if (call.hot) [[unlikely]]
        mm_->PatchCall(behind, last_syscall_, mm_limits(), context_.get());
    } else if (const auto* fault = std::get_if<FaultEvent>(&event)) {
      HandleFault(*fault);
    } else if (const auto* exit = std::get_if<ExitEvent>(&event)) {
      // The host took the stub away (out of memory) or it broke: what is left of the process cannot run.
      MOAT_LOG(kWarning, "task {}: its stub ended with wait status {:#x}", RootTid(), exit->wait_status);
      RequestGroupExit(rseq::Broken(*this) ? SIGSEGV : SIGKILL);
    }
  }
  kernel_.cpu_share().Leave();  // not after Exit: the kernel may be gone
  Exit();
}

void Task::PublishIdentity() {
  const uint64_t generation = context_->identity_generation();
  // A filter or a trace wants to see every call; ids of a namespace without mappings change when it gets some.
  if (seccomp_mode() != 0 || kernel_.trace_syscalls.load(std::memory_order_relaxed) || TraceStop::Traced(*this)) return;
  const Credentials& c = *cred_;
  const UserNamespace& ns = *c.user_ns;
  if (!ns.HasMaps()) return;
  context_->Publish({.tgid = tgid(),
                     .tid = tid(),
                     .ppid = thread_group_->ParentIdIn(*pid_ns()),
                     .uid = ns.FromKuid(c.uid),
                     .euid = ns.FromKuid(c.euid),
                     .gid = ns.FromKgid(c.gid),
                     .egid = ns.FromKgid(c.egid)},
                    generation);
}

// An interrupt may meet a call that is on its way here, and take it back. For a signal that would make a wide door of
// the narrow one between a program's last look and its wait: a call that comes next is made, and the signal interrupts
// it.
bool Task::StepIntoCall() {
  if (!regs_.complete || exit_requested_ || IsKilled() || TraceStop::Traced(*this) || !mm_->IsCall(regs_.gp.rip))
    return false;
  user_regs_struct& gp = regs_.gp;
  gp.orig_rax = static_cast<uint32_t>(gp.rax);
  gp.rax = static_cast<uint64_t>(-ENOSYS);
  gp.rip = gp.rcx = gp.rip + kSyscallLength;
  gp.r11 = gp.eflags;
  return true;
}

Event Task::EnterGuest() {
  const CpuShare& share = kernel_.cpu_share();
  Nanos now = share.Now();
  system_time_.fetch_add(now - clock_mark_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  clock_mark_.store(now, std::memory_order_relaxed);
  guest_entries_.store(guest_entries_.load(std::memory_order_relaxed) + 1, std::memory_order_release);
  // Either a Kick sees in_guest_ and interrupts, or we see its flag here.
  in_guest_.store(true, std::memory_order_seq_cst);
  if (interrupt_.load(std::memory_order_seq_cst)) {
    in_guest_.store(false, std::memory_order_relaxed);
    return InterruptEvent{};
  }
  Event event = context_->Switch(mm_->address_space(), regs_);
  in_guest_.store(false, std::memory_order_relaxed);
  now = share.Now();
  user_time_.fetch_add(now - clock_mark_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  clock_mark_.store(now, std::memory_order_relaxed);
  return event;
}

void Task::HandleFault(const FaultEvent& fault) {
  rseq::Abort(*this);
  if (fault.si_code == SI_KERNEL && rseq::Broken(*this)) RequestGroupExit(SIGSEGV);
  if (exit_requested_) return;
  last_fault_ = {fault.trapno, fault.error_code, fault.address};
  int signo = fault.signo;
  int code = fault.si_code;
  const bool memory_fault = (signo == SIGSEGV || signo == SIGBUS) && code != SI_KERNEL;
  if (memory_fault) {
    FaultOutcome outcome = mm_->HandleFault(fault, mm_limits(), context_.get());
    if (outcome.resolved()) return;
    signo = outcome.signo;
    code = outcome.si_code;
    if (last_fault_.trapno == 0) {
      last_fault_.trapno = kPageFault;
      last_fault_.error_code = kUserAccess | (code == SEGV_ACCERR ? kProtectionFault : 0) |
                               (fault.address == regs_.gp.rip ? kInstructionFetch : 0);
    }
  } else if (last_fault_.trapno == 0) {
    last_fault_.trapno = TrapNumber(signo, code);
  }
  ForceSignal(FaultSigInfo(signo, code, code == SI_KERNEL ? 0 : fault.address));
}

}  // namespace moat
