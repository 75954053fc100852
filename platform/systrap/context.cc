#include "platform/systrap/context.h"

#include <linux/audit.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <bit>
#include <utility>

#include "platform/base/log.h"
#include "platform/fiber/fiber.h"
#include "platform/fiber/thread.h"
#include "platform/stub/rseq.h"
#include "platform/systrap/extended_state.h"

#ifndef SYS_SECCOMP
#define SYS_SECCOMP 1
#endif

namespace moat::systrap_platform {
namespace {

constexpr int kKickSignal = SIGURG;

// What `syscall` leaves in the registers of a stopped thread, as far as a notification tells.
void FromCall(const seccomp_data& call, user_regs_struct& regs) {
  regs.orig_rax = static_cast<uint32_t>(call.nr);
  regs.rax = static_cast<uint64_t>(-ENOSYS);
  regs.rdi = call.args[0], regs.rsi = call.args[1], regs.rdx = call.args[2];
  regs.r10 = call.args[3], regs.r8 = call.args[4], regs.r9 = call.args[5];
  regs.rip = regs.rcx = call.instruction_pointer;
}

// Unwinders and debuggers know a signal frame by the instructions that return from it. Memory calls are carried out by
// the thread that makes them (CanCarryOut), which it can only in the call itself: by the mailbox they cost twice as
// much.
bool MayBePatched(int call) { return call != SYS_rt_sigreturn && call != SYS_mprotect && call != SYS_munmap; }

// Those that the trampoline answers once it knows how.
bool ConcernsOnlyTheCaller(int call) {
  switch (call) {
    case SYS_getpid:
    case SYS_gettid:
    case SYS_getppid:
    case SYS_getuid:
    case SYS_geteuid:
    case SYS_getgid:
    case SYS_getegid:
      return true;
    default:
      return false;
  }
}

}  // namespace

SystrapContext::~SystrapContext() { Release(); }

ExitEvent SystrapContext::Died() {
  in_guest_.store(false, std::memory_order_seq_cst);
  if (space_) space_->Break();
  DropThread();
  Unbind();
  return ExitEvent{SIGKILL};
}

Result<void> SystrapContext::SetRseq(const RseqArea& area) {
  if (area.address != 0 && !stub::HostHasRseq()) return kENOSYS;
  desk_.ToPool();
  rseq_ = area;
  if (area.address != 0 || thread_ == nullptr || thread_->rseq().address == 0 || space_->LastUse()) return {};
  // Ended now, while the area surely is there: other threads may unmap it as soon as they know that this one leaves.
  // (The last thread of a stub is killed with it.) A thread that ends it by a call of its own does so when that goes
  // on.
  if (!thread_->HasFrame()) {
    if (thread_->IsRseqCall(area)) return {};
    Registers unused;
    unused.complete = false;
    TRY(Complete(unused));
  }
  return thread_->SetRseq(area);
}

Result<void> SystrapContext::Bind(SystrapAddressSpace& as) {
  if (space_) rseq_ = {};  // of the old space
  Unbind();
  thread_ = TRY(as.TakeThread());
  space_ = RefPtr<SystrapAddressSpace>(&as);
  thread_->MakeFrame(new_state_ ? *new_state_ : InitialExtendedState());
  thread_->Withdraw();
  thread_->ExpectCopy(copy_fd_, copy_offset_);
  new_state_.reset();
  tgid_.store(as.pid(), std::memory_order_relaxed);
  tid_.store(thread_->tid(), std::memory_order_release);
  MutexLock lock(affinity_mu_);
  if (!affinity_.empty()) Pin(affinity_);
  return {};
}

void SystrapContext::Pin(const CpuSet& cpus) {
  const cpu_set_t host = cpus.ToHost();
  const pid_t tid = tid_.load(std::memory_order_relaxed);
  if (tid != 0) sched_setaffinity(tid, sizeof host, &host);
}

void SystrapContext::SetAffinity(const CpuSet& cpus) {
  MutexLock lock(affinity_mu_);
  affinity_ = cpus;
  Pin(cpus);
}

std::unique_ptr<GuestThread> SystrapContext::DropThread() {
  MutexLock lock(affinity_mu_);
  if (!affinity_.empty()) Pin(HostThread::AllCpus());  // it serves somebody else next
  tid_.store(0, std::memory_order_relaxed);
  return std::move(thread_);
}

void SystrapContext::Unbind() {
  if (!space_) return;
  LeaveDesk();
  desk_.ToPool();
  if (thread_ != nullptr && !thread_->HasFrame() && !space_->LastUse()) {
    // Stopped in a call that nobody will answer: out of there, so that it can serve again.
    Registers unused;
    unused.complete = false;
    (void)Complete(unused);
  }
  if (thread_ != nullptr && thread_->HasFrame()) {
    const bool registered = thread_->rseq().address != 0;
    if (!(registered ? thread_->SetRseq({}) : thread_->LeaveMailbox()).ok()) {
      space_->Break();
      DropThread();
    }
  }
  space_->GiveThread(DropThread());
  space_.reset();
}

void SystrapContext::Release() {
  if (std::exchange(observing_, false)) SetCarrierObserver(nullptr);
  Unbind();
}

void SystrapContext::Kick() {
  pid_t tid = tid_.load(std::memory_order_acquire);
  if (tid != 0) syscall(SYS_tgkill, tgid_.load(std::memory_order_relaxed), tid, kKickSignal);
}

void SystrapContext::Publish(const CallerIdentity& identity, uint64_t generation) {
  MutexLock lock(affinity_mu_);
  if (thread_ != nullptr && identity_generation() == generation) thread_->Publish(identity);
}

void SystrapContext::Withdraw() {
  MutexLock lock(affinity_mu_);
  identity_generation_.fetch_add(1, std::memory_order_acq_rel);
  if (tid_.load(std::memory_order_relaxed) != 0) thread_->Withdraw();
}

void SystrapContext::ExpectCopy(int fd, uint64_t offset) {
  copy_fd_ = fd;
  copy_offset_ = static_cast<int64_t>(offset);
  if (thread_ != nullptr) thread_->ExpectCopy(copy_fd_, copy_offset_);
}

void SystrapContext::Interrupt() {
  interrupt_.store(true, std::memory_order_seq_cst);
  if (in_guest_.load(std::memory_order_seq_cst)) Kick();
}

Result<void> SystrapContext::Go(Registers& regs) {
  if (!thread_->HasFrame()) return thread_->Return(regs.Return());
  TRY(thread_->StoreRegisters(regs.gp));
  return thread_->Resume();
}

void SystrapContext::LeaveDesk(MailboxDesk::Came why) {
  if (!std::exchange(at_desk_, false)) return;
  desk_.Leave();
  if (why == MailboxDesk::Came::kSentAway) {
    policy_.OnSentAway();
  } else {
    policy_.End(/*preempted=*/why == MailboxDesk::Came::kPreempted);
  }
  MutexLock lock(affinity_mu_);
  if (std::exchange(kept_on_cpus_, false)) Pin(affinity_.empty() ? HostThread::AllCpus() : affinity_);
}

bool SystrapContext::JoinDesk() {
  const std::optional<CpuSet> cpus = desk_.Enter();
  if (!cpus) return false;
  MutexLock lock(affinity_mu_);
  if (!affinity_.empty()) {  // the guest chose
    desk_.Leave();
    return false;
  }
  Pin(*cpus);
  kept_on_cpus_ = at_desk_ = true;
  policy_.Begin();
  return true;
}

void SystrapContext::OnPark() {
  policy_.OnPark();
  if (!at_desk_) return;
  seat_.NotePark();
  if (desk_.IsShared()) thread_->LetSleep();
  desk_.SetActive(false);
}

void SystrapContext::OnUnpark() {
  if (at_desk_) desk_.SetActive(true);
}

Result<void> SystrapContext::WaitAtDesk() {
  using Came = MailboxDesk::Came;
  Came came;
  for (;;) {
    if (seat_.TakeLongCall()) policy_.OnLongCall();
    // Nobody waits for a guest here, who may have lied: the desk looks again for a sleep that is still to come.
    if (thread_->falls_asleep() && thread_->HasNotice()) {
      policy_.OnWakeUp(desk_.IsShared());
      if (TRY(thread_->Receive())) return {};
      seat_.woken = true;
    }
    seat_.thread = thread_.get();
    came = policy_.IsOverdrawn() ? Came::kNothing : desk_.Wait(seat_);
    seat_.woken = false;
    if (came == Came::kCall) {
      policy_.OnMailbox();
      return {};
    }
    if (came != Came::kNotice) break;
    policy_.OnNotice();
    if (TRY(thread_->Receive())) return {};
  }
  LeaveDesk(came);
  desk_.ToPool();
  return thread_->Wait();
}

Result<void> SystrapContext::Wait() {
  if (at_desk_) return WaitAtDesk();
  desk_.ToPool();
  BeforeHostSleep();
  const Nanos since = MonotonicNow();
  TRY(thread_->Wait());
  if (thread_->HasFrame()) {
    if (thread_->info().si_signo != SIGSYS) return {};
  } else if (const GuestAddr ip = thread_->call().instruction_pointer;
             !desk_.IsOpen() && space_->call_sites().Behind(ip) == ip) {
    return {};
  }
  const Nanos now = MonotonicNow();
  const bool frequent = desk_.NoteCall(now);
  join_next_ = policy_.OnNotified(now - since, frequent, desk_.active());
  return {};
}

Event SystrapContext::Switch(AddressSpace& address_space, Registers& regs) {
  auto& as = static_cast<SystrapAddressSpace&>(address_space);
  if (space_ != &as) [[unlikely]] {
    if (Result<void> bound = Bind(as); !bound.ok()) {
      MOAT_LOG(kError, "no thread in stub {}: {}", as.pid(), ErrnoName(bound.error()));
      return Died();
    }
  }
  if (!observing_) [[unlikely]] {
    SetCarrierObserver(this);
    observing_ = true;
  }
  for (;;) {
    // Published before the look at the flag: whoever sets it later sees us and kicks.
    in_guest_.store(true, std::memory_order_seq_cst);
    if (interrupt_.load(std::memory_order_relaxed) && interrupt_.exchange(false)) {
      in_guest_.store(false, std::memory_order_seq_cst);
      if (regs.complete) as.call_sites().Rewind(regs.gp, thread_->area());  // what Redirect has moved into a thunk
      return InterruptEvent{};
    }
    const bool settled = thread_->rseq() == rseq_;
    // What the host could carry out itself: the thread is in that very call, and the host knows of it.
    const bool in_own_call = thread_->InHostCall() && (thread_->in_copy() || regs.Return() == 0);
    bool carry_out = settled && in_own_call && as.HasPending() &&
                     (!thread_->in_copy() || thread_->StoreRegisters(regs.gp).ok()) && as.TakeIfJust(thread_->call());
    if (!carry_out && as.HasPending()) {
      if (as.Flush(nullptr).error() == kESRCH) return Died();
      continue;
    }
    if (!settled) [[unlikely]] {
      desk_.ToPool();
      carry_out = in_own_call && thread_->IsRseqCall(rseq_);
      if (!carry_out) {
        if (!Complete(regs).ok() || !thread_->SetRseq(rseq_).ok()) return Died();
        continue;
      }
      thread_->NoteRseq(rseq_);
    }
    if (std::exchange(join_next_, false) && JoinDesk()) thread_->AnnounceListening();
    if (Result<void> gone = carry_out ? thread_->CarryOut() : Go(regs); !gone.ok()) [[unlikely]] {
      if (gone.error() != kEINVAL) return Died();
      in_guest_.store(false, std::memory_order_seq_cst);
      return FaultEvent{SIGSEGV, SI_KERNEL, 0};  // what the return to user mode would fault on
    }
    const Result<void> back = Wait();
    if (!back.ok()) return Died();
    in_guest_.store(false, std::memory_order_seq_cst);
    if (!thread_->HasFrame()) [[likely]] {
      FromCall(thread_->call(), regs.gp);
      regs.complete = false;
      const GuestAddr ip = regs.gp.rip;
      if (const GuestAddr behind = as.call_sites().Behind(ip); behind != ip) {
        regs.gp.rip = regs.gp.rcx = behind;
        return SyscallEvent{.wants_identity = ConcernsOnlyTheCaller(thread_->call().nr)};
      }
      return SyscallEvent{.hot = MayBePatched(thread_->call().nr) &&
                                 CountCall(ip, static_cast<uint32_t>(thread_->call().nr))};
    }
    regs.complete = true;
    if (!thread_->LoadRegisters(regs.gp).ok()) return Died();
    if (as.call_sites().Redirect(regs.gp, thread_->area(), thread_->info().si_signo)) continue;
    as.call_sites().Rewind(regs.gp, thread_->area());
    if (std::optional<Event> event = Classify(regs)) return *event;
  }
}

void SystrapContext::TakeCalls(absl::FunctionRef<void(GuestAddr, uint32_t, uint32_t)> visit) {
  for (HotSite& site : hot_) {
    if (site.calls != 0) visit(site.ip, site.number, site.calls);
    site = {};
  }
}

bool SystrapContext::CountCall(GuestAddr ip, uint32_t number) {
  HotSite& site = hot_[(ip * 0x9e3779b97f4a7c15) >> (64 - std::countr_zero(kHotSites))];
  if (site.ip != ip) {
    if (site.calls > 0 && site.calls < kHotCalls) {
      --site.calls;
      return false;
    }
    site = {ip, 0};
  }
  site.number = number;
  return ++site.calls == kHotCalls;
}

std::optional<Event> SystrapContext::Classify(Registers& regs) {
  const siginfo_t& info = thread_->info();
  switch (info.si_signo) {
    case SIGSYS:
      if (info.si_code != SYS_SECCOMP) return std::nullopt;
      if (info.si_arch == AUDIT_ARCH_X86_64) {
        regs.gp.orig_rax = static_cast<uint32_t>(info.si_syscall);
        regs.gp.rax = static_cast<uint64_t>(-ENOSYS);
        return SyscallEvent{};
      }
      // int 0x80, which is two bytes long, and sysenter: a kernel without 32-bit emulation raises a general protection
      // fault where they stand.
      regs.gp.rip -= 2;
      return FaultEvent{SIGSEGV, SI_KERNEL, 0};
    case SIGSEGV:
    case SIGBUS:
    case SIGFPE:
    case SIGILL:
    case SIGTRAP: {
      // Sent by a process, not raised by an instruction: the host's doing, no business of the guest.
      if (info.si_code <= 0) return std::nullopt;
      FaultEvent fault{info.si_signo, info.si_code, reinterpret_cast<GuestAddr>(info.si_addr)};
      if (info.si_code == SI_KERNEL) fault.address = 0;
      fault.trapno = static_cast<uint32_t>(thread_->trapno());
      fault.error_code = static_cast<uint32_t>(thread_->error_code());
      return fault;
    }
    default:
      return std::nullopt;  // a kick, or a guest that plays with the trampoline: it only fools itself
  }
}

Result<void> SystrapContext::Complete(Registers& regs) {
  if (regs.complete) return {};
  if (thread_ == nullptr) return kESRCH;
  desk_.ToPool();  // the guest may let us wait
  // The signal is pending when the call ends: the thread comes to its handler before its next instruction. A guest
  // that has blocked it by breaking into rt_sigreturn comes back some other way, if at all.
  Kick();
  const int64_t result = regs.Return();
  const uint64_t call = regs.gp.orig_rax;
  LeaveDesk();
  const bool framed =
      thread_->in_mailbox() ? thread_->WaitForFrame().ok() : thread_->Return(0).ok() && thread_->Wait().ok();
  if (!framed || !thread_->HasFrame() || thread_->info().si_signo != kKickSignal ||
      !thread_->LoadRegisters(regs.gp).ok()) {
    space_->Break();
    DropThread();
    return kESRCH;
  }
  space_->call_sites().Rewind(regs.gp, thread_->area());
  regs.gp.orig_rax = call;
  regs.SetReturn(result);
  regs.complete = true;
  return {};
}

Result<ExtendedState> SystrapContext::GetExtendedState() {
  if (new_state_) return *new_state_;
  if (thread_ == nullptr || !thread_->HasFrame()) return kESRCH;
  return thread_->LoadExtendedState();
}

Result<void> SystrapContext::SetExtendedState(const ExtendedState& state) {
  if (thread_ == nullptr) {
    new_state_ = state;
    return {};
  }
  if (!thread_->HasFrame()) return kESRCH;
  return thread_->StoreExtendedState(state);
}

void SystrapContext::ResetExtendedState() { (void)SetExtendedState(InitialExtendedState()); }

Result<std::unique_ptr<Context>> SystrapContext::Clone(bool same_space) {
  auto child = std::make_unique<SystrapContext>(desk_);
  child->new_state_ = TRY(GetExtendedState());
  // The thread is made now, so that a host without more of them is clone's error.
  if (same_space) TRY(child->Bind(*space_));
  return std::unique_ptr<Context>(std::move(child));
}

}  // namespace moat::systrap_platform
