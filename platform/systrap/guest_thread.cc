#include "platform/systrap/guest_thread.h"

#include <linux/rseq.h>
#include <sys/syscall.h>

#include <cstring>
#include <utility>

#include "platform/abi/signal.h"
#include "platform/stub/rseq.h"
#include "platform/systrap/extended_state.h"

namespace moat::systrap_platform {
namespace {

constexpr uint64_t kUserCs = 0x33, kUserSs = 0x2b;
// Where MakeFrame puts its frame: the far end of the signal stack, which is in nobody's way.
constexpr uint64_t kMadeFrame = kSignalStack;
constexpr uint64_t kMadeState = kSignalStack + 1024;
static_assert(sizeof(abi::UContext) <= kMadeState - kMadeFrame);
constexpr uint64_t kUserAddressEnd = uint64_t{1} << 47;
constexpr int kReturnPatience = 2;  // seconds

}  // namespace

std::byte* GuestThread::At(uint64_t address, uint64_t size) const {
  const uint64_t offset = address - address_;
  if (offset < kSignalStack || offset > kAreaSize || size > kAreaSize - offset) return nullptr;
  return reinterpret_cast<std::byte*>(&area_) + offset;
}

template <typename T>
bool GuestThread::ReadArea(uint64_t address, T& out) const {
  const std::byte* p = At(address, sizeof out);
  if (p != nullptr) memcpy(&out, p, sizeof out);
  return p != nullptr;
}

template <typename T>
bool GuestThread::WriteArea(uint64_t address, const T& value) {
  std::byte* p = At(address, sizeof value);
  if (p != nullptr) memcpy(p, &value, sizeof value);
  return p != nullptr;
}

void GuestThread::MakeFrame(const ExtendedState& state) {
  frame_ = address_ + kMadeFrame;
  fs_base_ = gs_base_ = 0;
  in_mailbox_ = in_copy_ = sleeping_ = falls_asleep_ = false;
  ExpectCopy(-1, -1);
  area_.listening.store(0, std::memory_order_relaxed);
  area_.state.store(MAILBOX_EMPTY, std::memory_order_relaxed);
  abi::UContext uc{};
  uc.flags = abi::kUcSigcontextSs | abi::kUcStrictRestoreSs | abi::kUcFpXstate;
  // Returning through the frame sets the signal stack again: a guest that broke into rt_sigreturn may have changed it.
  uc.stack.sp = address_ + kSignalStack;
  uc.stack.size = kAreaSize - kSignalStack;
  uc.mcontext.fpstate = address_ + kMadeState;
  WriteArea(frame_, uc);
  ExtendedState in_frame = state;
  if (!PrepareForFrame(in_frame).ok()) in_frame = InitialExtendedState(), (void)PrepareForFrame(in_frame);
  memcpy(At(uc.mcontext.fpstate, in_frame.size()), in_frame.data(), in_frame.size());
}

void GuestThread::Publish(const CallerIdentity& identity) {
  area_.tgid.store(identity.tgid, std::memory_order_relaxed);
  area_.tid.store(identity.tid, std::memory_order_relaxed);
  area_.ppid.store(identity.ppid, std::memory_order_relaxed);
  area_.uid.store(static_cast<int32_t>(identity.uid), std::memory_order_relaxed);
  area_.euid.store(static_cast<int32_t>(identity.euid), std::memory_order_relaxed);
  area_.gid.store(static_cast<int32_t>(identity.gid), std::memory_order_relaxed);
  area_.egid.store(static_cast<int32_t>(identity.egid), std::memory_order_relaxed);
  area_.answers.store(1, std::memory_order_release);
}

void GuestThread::SetWayBack() {
  in_copy_ = false;
  area_.fs_base = fs_base_;
  // A guest without a gs base of its own, which is nearly every one, lends it to the thunks.
  area_.gs_base = gs_base_ != 0 ? gs_base_ : address_;
  area_.frame = frame_;
}

Result<void> GuestThread::Resume() {
  SetWayBack();
  return Return(SYSTRAP_RESUME);
}

Result<void> GuestThread::CarryOut() {
  if (in_copy_) SetWayBack();
  return listener_.Continue();
}

Result<void> GuestThread::Return(int64_t value) {
  if (!in_mailbox_) return listener_.Answer(value);
  in_mailbox_ = false;
  area_.result = static_cast<uint64_t>(value);
  const uint32_t before = area_.state.exchange(MAILBOX_ANSWERED, std::memory_order_acq_rel);
  if (std::exchange(sleeping_, false)) return listener_.Answer(0);
  falls_asleep_ = (before & MAILBOX_SLEEPING) != 0;
  return {};
}

bool GuestThread::TakeFromMailbox() {
  uint32_t state = area_.state.load(std::memory_order_relaxed);
  do {
    if ((state & ~uint32_t{MAILBOX_SLEEPING}) != MAILBOX_CALL) return false;
  } while (
      !area_.state.compare_exchange_weak(state, MAILBOX_TAKEN | (state & MAILBOX_SLEEPING), std::memory_order_acq_rel));
  // Copied once: another thread of the guest may be writing there.
  const uint32_t site = area_.site;
  mailbox_call_.nr = static_cast<int>(area_.number);
  memcpy(mailbox_call_.args, area_.args, sizeof mailbox_call_.args);
  mailbox_call_.instruction_pointer = SYSTRAP_THUNKS + (site / 8) % SYSTRAP_MAX_SITES * THUNK_SIZE + THUNK_RETURN;
  in_mailbox_ = true;
  frame_ = 0;
  // Without a frame where there should be one, the guest has made it up: a call of some site, as good as any.
  if (site == MAILBOX_FRAME) (void)ReadFrameOfEnter(mailbox_call_);
  return true;
}

void GuestThread::LetSleep() {
  uint32_t taken = MAILBOX_TAKEN;
  if (in_mailbox_) area_.state.compare_exchange_strong(taken, MAILBOX_TAKEN | MAILBOX_LONG, std::memory_order_acq_rel);
}

bool GuestThread::IsSleep() const {
  const seccomp_data& c = listener_.call();
  return c.nr == SYSTRAP_SLEEP &&
         (c.instruction_pointer == SleepAddress() || c.instruction_pointer == FrameSleepAddress());
}

bool GuestThread::IsEnter() const {
  const seccomp_data& c = listener_.call();
  return c.nr == SYSTRAP_ENTER && c.instruction_pointer == EnterAddress();
}

Result<void> GuestThread::Wait() {
  area_.listening.store(0, std::memory_order_seq_cst);
  while (!TakeFromMailbox()) {
    if (TRY(Receive())) break;
  }
  return {};
}

Result<bool> GuestThread::Receive() {
  TRY(listener_.Receive());
  falls_asleep_ = false;
  if (IsSleep()) [[unlikely]] {
    // It slept before its call was taken, or before it saw the answer.
    sleeping_ = TakeFromMailbox();
    if (sleeping_) return true;
    if (area_.state.load(std::memory_order_acquire) != MAILBOX_ANSWERED) return kESRCH;  // nobody sleeps for nothing
    TRY(listener_.Answer(0));
    return false;
  }
  TRY(ReadEvent());
  return true;
}

Result<void> GuestThread::ReadEvent() {
  if (IsEnter()) return ReadFrameOfEnter(listener_.call());
  const seccomp_data& c = listener_.call();
  if (c.nr == SYS_mmap && c.instruction_pointer == CopyAddress()) [[unlikely]] {
    in_copy_ = true;
    return ReadFrame(SIGSEGV, area_.fault_info, area_.fault_frame, area_.fault_fs, area_.fault_gs);
  }
  frame_ = 0;
  return {};
}

Result<void> GuestThread::WaitForFrame() {
  if (std::exchange(sleeping_, false)) TRY(listener_.Answer(0));
  in_mailbox_ = false;
  TRY(ReceiveEnter());  // a thread that sleeps is kicked when it wakes
  return ReadFrameOfEnter(listener_.call());
}

Result<void> GuestThread::ReceiveEnter(int patience) {
  do {
    if (patience != 0 && !listener_.AwaitCall(patience)) return kESRCH;
    TRY(listener_.Receive());
  } while (IsSleep() && listener_.Answer(0).ok());
  return IsEnter() ? Result<void>() : kESRCH;
}

Result<void> GuestThread::LeaveMailbox() {
  if (!in_mailbox_ || !HasFrame()) return {};
  TRY(Return(SYSTRAP_AGAIN));
  // Another thread of the guest may have made the frame up, and this one compute.
  return ReceiveEnter(kReturnPatience);
}

Result<void> GuestThread::ReadFrameOfEnter(const seccomp_data& c) {
  return ReadFrame(static_cast<int>(c.args[0]), c.args[1], c.args[2], c.args[3], c.args[4]);
}

// From the handler; or from guest code that jumped there, so nothing of it is sure. Stub addresses.
Result<void> GuestThread::ReadFrame(int signo, uint64_t info, uint64_t frame, uint64_t fs_base, uint64_t gs_base) {
  abi::UContext uc;
  if (!ReadArea(info, info_) || !ReadArea(frame, uc)) return kESRCH;
  frame_ = frame;
  fs_base_ = fs_base;
  gs_base_ = gs_base == address_ ? 0 : gs_base;
  info_.si_signo = signo;
  trapno_ = uc.mcontext.trapno;
  error_code_ = uc.mcontext.err;
  return {};
}

bool GuestThread::IsRseqCall(const RseqArea& area) const {
  const seccomp_data& c = call();
  const RseqArea& told = area.address != 0 ? area : rseq_;
  const uint64_t flags = area.address != 0 ? 0 : uint64_t{RSEQ_FLAG_UNREGISTER};
  return c.nr == SYS_rseq && c.args[0] == told.address && static_cast<uint32_t>(c.args[1]) == stub::kRseqLength &&
         static_cast<uint32_t>(c.args[2]) == flags && static_cast<uint32_t>(c.args[3]) == told.signature;
}

Result<void> GuestThread::SetRseq(const RseqArea& area) {
  TRY(LeaveMailbox());
  if (rseq_.address != 0) TRY(CallRseq(rseq_, RSEQ_FLAG_UNREGISTER));
  rseq_ = {};
  if (area.address != 0) TRY(CallRseq(area, 0));
  rseq_ = area;
  return {};
}

Result<void> GuestThread::CallRseq(const RseqArea& area, uint32_t flags) {
  area_.rseq = area.address;
  area_.rseq_flags = flags;
  area_.rseq_signature = area.signature;
  TRY(listener_.Answer(SYSTRAP_RSEQ));
  TRY(listener_.Receive());
  // The guest can write the area: the call counts, not what was stored there.
  const seccomp_data& c = listener_.call();
  if (c.nr != SYS_rseq || c.args[0] != area.address || c.args[1] != stub::kRseqLength || c.args[2] != flags ||
      c.args[3] != area.signature)
    return kESRCH;
  TRY(listener_.Continue());
  TRY(listener_.Receive());
  if (!IsEnter()) return kESRCH;
  return c.args[5] == 0 ? Result<void>() : kESRCH;
}

Result<void> GuestThread::LoadRegisters(user_regs_struct& regs) const {
  abi::UContext uc;
  if (!ReadArea(frame_, uc)) return kESRCH;
  const abi::SigContext& sc = uc.mcontext;
  regs.r8 = sc.r8, regs.r9 = sc.r9, regs.r10 = sc.r10, regs.r11 = sc.r11;
  regs.r12 = sc.r12, regs.r13 = sc.r13, regs.r14 = sc.r14, regs.r15 = sc.r15;
  regs.rdi = sc.rdi, regs.rsi = sc.rsi, regs.rbp = sc.rbp, regs.rbx = sc.rbx;
  regs.rdx = sc.rdx, regs.rax = sc.rax, regs.rcx = sc.rcx, regs.rsp = sc.rsp;
  regs.rip = sc.rip, regs.eflags = sc.eflags;
  regs.cs = sc.cs, regs.ss = sc.ss;
  regs.ds = regs.es = regs.fs = regs.gs = 0;
  regs.fs_base = fs_base_, regs.gs_base = gs_base_;
  regs.orig_rax = ~uint64_t{0};
  return {};
}

Result<void> GuestThread::StoreRegisters(const user_regs_struct& regs) {
  // The trampoline loads the bases: it must not fault.
  if (regs.fs_base >= kUserAddressEnd || regs.gs_base >= kUserAddressEnd || regs.rip >= kUserAddressEnd) return kEINVAL;
  fs_base_ = regs.fs_base;
  gs_base_ = regs.gs_base;
  abi::UContext uc;
  if (!ReadArea(frame_, uc)) return kESRCH;
  abi::SigContext& sc = uc.mcontext;
  sc.r8 = regs.r8, sc.r9 = regs.r9, sc.r10 = regs.r10, sc.r11 = regs.r11;
  sc.r12 = regs.r12, sc.r13 = regs.r13, sc.r14 = regs.r14, sc.r15 = regs.r15;
  sc.rdi = regs.rdi, sc.rsi = regs.rsi, sc.rbp = regs.rbp, sc.rbx = regs.rbx;
  sc.rdx = regs.rdx, sc.rax = regs.rax, sc.rcx = regs.rcx, sc.rsp = regs.rsp;
  sc.rip = regs.rip, sc.eflags = regs.eflags;
  sc.cs = kUserCs, sc.ss = kUserSs;
  uc.sigmask = {};
  WriteArea(frame_, uc);
  return {};
}

Result<ExtendedState> GuestThread::LoadExtendedState() const {
  abi::UContext uc;
  if (!ReadArea(frame_, uc)) return kESRCH;
  ExtendedState state(ExtendedStateSize());
  const std::byte* p = At(uc.mcontext.fpstate, state.size());
  if (p == nullptr) return kESRCH;
  memcpy(state.data(), p, state.size());
  return state;
}

Result<void> GuestThread::StoreExtendedState(const ExtendedState& state) {
  abi::UContext uc;
  if (!ReadArea(frame_, uc)) return kESRCH;
  ExtendedState in_frame = state;
  TRY(PrepareForFrame(in_frame));
  std::byte* p = At(uc.mcontext.fpstate, in_frame.size());
  if (p == nullptr) return kESRCH;
  memcpy(p, in_frame.data(), in_frame.size());
  return {};
}

}  // namespace moat::systrap_platform
