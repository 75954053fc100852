#include "platform/ptrace/context.h"

#include <elf.h>
#include <sched.h>
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "platform/base/log.h"
#include "platform/stub/rseq.h"

#ifndef PTRACE_SYSEMU
#define PTRACE_SYSEMU static_cast<__ptrace_request>(31)
#endif

namespace moat::ptrace_platform {
namespace {

constexpr uint64_t kUserCs = 0x33;  // 64-bit user code

// Interrupts a stub thread; ignored by default, so that one which arrives late hurts nobody.
constexpr int kKickSignal = SIGURG;
constexpr uint64_t kThreadFlags =
    CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_UNTRACED;

pid_t OwnTid() {
  thread_local const pid_t tid = static_cast<pid_t>(syscall(SYS_gettid));
  return tid;
}

// The state that execve leaves: x87 and SSE control words at their defaults, everything else in its initial state.
void MakeInitialState(ExtendedState& state) {
  std::fill(state.begin(), state.end(), uint8_t{0});
  constexpr uint16_t kFcw = 0x37f;
  constexpr uint32_t kMxcsr = 0x1f80;
  memcpy(&state[0], &kFcw, sizeof kFcw);
  memcpy(&state[24], &kMxcsr, sizeof kMxcsr);
  constexpr uint64_t kX87AndSse = 3;  // XSTATE_BV: the others are "initial"
  if (state.size() >= 520) memcpy(&state[512], &kX87AndSse, sizeof kX87AndSse);
}

}  // namespace

PtraceContext::~PtraceContext() { Release(); }

ExitEvent PtraceContext::Died(int status) {
  Unbind();
  return ExitEvent{status};
}

Result<void> PtraceContext::SetRseq(const RseqArea& area) {
  if (area.address != 0 && !stub::HostHasRseq()) return kENOSYS;
  rseq_ = area;
  // Ended now, while the area surely is there: other threads may unmap it as soon as they know that this one leaves.
  // The last thread of a stub is killed with it.
  if (area.address == 0 && tracee_.attached() && !space_->IsLast(*this)) return tracee_.SetRseq(area);
  return {};
}

Result<void> PtraceContext::Bind(PtraceAddressSpace& as) {
  if (space_) rseq_ = {};  // of the old space
  Unbind();
  const bool spare = spare_space_ == &as;
  if (!spare) DropSpare();
  pid_t tid = spare ? std::exchange(spare_thread_, 0) : as.TakeFirstThread();
  if (tid == 0) return kESRCH;
  space_ = RefPtr<PtraceAddressSpace>(&as);
  as.AddContext(*this);
  if (spare) {
    as.RemoveSpare();
    spare_space_.reset();
  }
  tracee_ = Tracee(as.pid(), tid);
  seat_.Sit(OwnTid(), tid);
  TRY(tracee_.Attach());
  tgid_.store(as.pid(), std::memory_order_relaxed);
  tid_.store(tid, std::memory_order_release);
  if (new_state_) {
    ExtendedState state = std::move(*new_state_);
    new_state_.reset();
    return SetExtendedState(state);
  }
  // A stub's first thread has what the zygote's registers held: bytes of the sentry.
  if (!spare) ResetExtendedState();
  return {};
}

void PtraceContext::DropSpare() {
  if (!spare_space_) return;
  tracee_ = Tracee(spare_space_->pid(), std::exchange(spare_thread_, 0));
  bool attached = tracee_.Attach().ok();
  if (spare_space_->RemoveSpare()) {
    KillStub();
  } else if (attached) {
    tracee_.DetachToExit();
  }
  tracee_ = Tracee();
  spare_space_.reset();
}

void PtraceContext::KillStub() {
  // To a thread that is surely alive: SIGKILL for a first thread that has exited long ago would end nobody.
  syscall(SYS_tgkill, tracee_.tgid(), tracee_.tid(), SIGKILL);
  int status;
  while (wait4(tracee_.tid(), &status, __WALL, nullptr) == tracee_.tid() && !WIFEXITED(status) &&
         !WIFSIGNALED(status)) {
  }
}

void PtraceContext::Unbind() {
  if (!space_) return;
  tid_.store(0, std::memory_order_relaxed);
  bool last = space_->RemoveContext(*this);
  if (tracee_.attached()) {
    if (last) {
      // The address space has no thread left: end the stub as a whole, and reap our part of it.
      KillStub();
    } else {
      tracee_.DetachToExit();
    }
    tracee_ = Tracee();
  }
  space_.reset();
}

void PtraceContext::Release() {
  Unbind();
  DropSpare();
  seat_.GetUp();
}

Event PtraceContext::Switch(AddressSpace& address_space, Registers& regs) {
  auto& as = static_cast<PtraceAddressSpace&>(address_space);
  if (space_ != &as) [[unlikely]] {
    if (Result<void> bound = Bind(as); !bound.ok()) {
      MOAT_LOG(kError, "no thread in stub {}: {}", as.pid(), ErrnoName(bound.error()));
      return Died(SIGKILL);
    }
  }
  // Whether the caller has seen the registers that the guest code stopped with.
  bool seen = true;
  for (;;) {
    // Published before the look at the flags and the queue: whoever sets one of them later sees us and kicks.
    in_guest_.store(true, std::memory_order_seq_cst);
    if (interrupt_.load(std::memory_order_relaxed) && interrupt_.exchange(false)) {
      in_guest_.store(false, std::memory_order_seq_cst);
      return InterruptEvent{};
    }
    if (as.HasPending()) {
      // Operations of other tasks, in the middle of guest code: perhaps of a critical section.
      if (!seen && tracee_.rseq().address != 0) {
        in_guest_.store(false, std::memory_order_seq_cst);
        return InterruptEvent{};
      }
      user_regs_struct probe;  // the batch left its own registers in the thread: `regs` keep the guest's
      if (!as.Apply(tracee_).ok() && !tracee_.GetRegisters(probe).ok()) {
        in_guest_.store(false, std::memory_order_seq_cst);
        return Died(SIGKILL);
      }
      continue;
    }
    if (tracee_.rseq() != rseq_) [[unlikely]] {
      if (!tracee_.SetRseq(rseq_).ok()) {
        in_guest_.store(false, std::memory_order_seq_cst);
        return Died(SIGSEGV);
      }
      continue;
    }
    user_regs_struct gp = regs.gp;
    gp.orig_rax = ~uint64_t{0};  // whatever call the thread was stopped in is over: no restart by the host
    if (!tracee_.SetRegisters(gp).ok()) [[unlikely]] {
      in_guest_.store(false, std::memory_order_seq_cst);
      user_regs_struct probe;
      if (!tracee_.GetRegisters(probe).ok()) return Died(SIGKILL);
      // Segment or address values that the CPU cannot hold: what iret would fault on.
      return FaultEvent{SIGSEGV, SI_KERNEL, 0};
    }
    Result<int> status = tracee_.Run(PTRACE_SYSEMU);
    in_guest_.store(false, std::memory_order_seq_cst);
    if (!status.ok()) return Died(SIGKILL);
    if (!WIFSTOPPED(*status)) return Died(*status);
    if (!tracee_.GetRegisters(regs.gp).ok()) return Died(SIGKILL);
    if (WSTOPSIG(*status) == (SIGTRAP | 0x80)) [[likely]] {
      // `syscall` leaves the return address in rcx. The other ways in (int 0x80, sysenter) are not ours to serve: a
      // kernel without 32-bit emulation raises a general protection fault.
      if (regs.gp.rcx != regs.gp.rip) [[unlikely]] {
        if (regs.gp.cs == kUserCs) regs.gp.rip -= 2;  // int 0x80, which is two bytes long, faults where it stands
        return FaultEvent{SIGSEGV, SI_KERNEL, 0};
      }
      return SyscallEvent{};
    }
    bool resume = false;
    Event event = Classify(*status, regs, resume);
    if (!resume) return event;
    seen = false;
  }
}

Event PtraceContext::Classify(int status, Registers&, bool& resume) {
  const int signo = WSTOPSIG(status);
  if (status >> 16 != 0) {  // a ptrace event stop: ours from PTRACE_INTERRUPT, or a group stop that we do not follow
    resume = true;
    return InterruptEvent{};
  }
  switch (signo) {
    case SIGSEGV:
    case SIGBUS:
    case SIGFPE:
    case SIGILL:
    case SIGTRAP:
    case SIGSYS: {
      Result<siginfo_t> info = tracee_.GetSigInfo();
      if (!info.ok()) break;
      // Sent by a process, not raised by an instruction: the host's doing, no business of the guest.
      if (info->si_code <= 0 && info->si_code != SI_KERNEL) break;
      // The stub's filter stopped a call that did not come through us (the vsyscall page).
      if (signo == SIGSYS) return FaultEvent{SIGSEGV, SI_KERNEL, 0};
      auto address = reinterpret_cast<GuestAddr>(info->si_addr);
      return FaultEvent{signo, info->si_code, info->si_code == SI_KERNEL ? 0 : address};
    }
    default:
      break;
  }
  // A kick (the loop looks at its flags again) or a stray signal: swallowed.
  resume = true;
  return InterruptEvent{};
}

void PtraceContext::Kick() {
  pid_t tid = tid_.load(std::memory_order_acquire);
  if (tid != 0) syscall(SYS_tgkill, tgid_.load(std::memory_order_relaxed), tid, kKickSignal);
}

void PtraceContext::Interrupt() {
  interrupt_.store(true, std::memory_order_seq_cst);
  if (InGuest()) Kick();
}

Result<ExtendedState> PtraceContext::GetExtendedState() {
  if (new_state_) return *new_state_;
  if (!tracee_.attached()) return kESRCH;
  ExtendedState state(16 << 10);
  iovec io{state.data(), state.size()};
  if (ptrace(PTRACE_GETREGSET, tracee_.tid(), NT_X86_XSTATE, &io) != 0) return HostErrno();
  state.resize(io.iov_len);
  return state;
}

Result<void> PtraceContext::SetExtendedState(const ExtendedState& state) {
  if (!tracee_.attached()) {
    new_state_ = state;
    return {};
  }
  iovec io{const_cast<uint8_t*>(state.data()), state.size()};
  if (ptrace(PTRACE_SETREGSET, tracee_.tid(), NT_X86_XSTATE, &io) != 0) return errno == ESRCH ? kESRCH : kEINVAL;
  return {};
}

void PtraceContext::ResetExtendedState() {
  Result<ExtendedState> state = GetExtendedState();
  if (!state.ok()) return;
  MakeInitialState(*state);
  (void)SetExtendedState(*state);
}

Result<std::unique_ptr<Context>> PtraceContext::Clone(bool same_space) {
  auto child = std::make_unique<PtraceContext>(shared_);
  if (!tracee_.attached()) return kESRCH;
  if (same_space) {
    // The new thread starts with a copy of the caller's extended state: the host's clone does that.
    int64_t tid = TRY(tracee_.Call(stub::TrampolineEntries().clone_thread, SYS_clone, {kThreadFlags, 0, 0, 0, 0, 0}));
    if (tid < 0) return tid == -EAGAIN || tid == -ENOMEM ? kEAGAIN : static_cast<Errno>(-tid);
    child->spare_thread_ = static_cast<pid_t>(tid);
    child->spare_space_ = space_;
    space_->AddSpare();
  }
  // Kept for a thread, too: who asks for it may come before the thread's first Switch.
  child->new_state_ = TRY(GetExtendedState());
  return std::unique_ptr<Context>(std::move(child));
}

}  // namespace moat::ptrace_platform
