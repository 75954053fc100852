// Signal frames of x86-64, as the kernel's <asm/sigcontext.h> and <asm/ucontext.h> describe them: from the top
//   red zone (128 bytes) | extended state, 64-aligned, closed by FP_XSTATE_MAGIC2 | siginfo | ucontext | return address
#include <cpuid.h>

#include <bit>
#include <cstring>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/signal_delivery.h"

namespace moat {

namespace {

constexpr uint64_t kRedZone = 128;
constexpr uint64_t kMinAltStack = 2048;  // the kernel's MINSIGSTKSZ
constexpr uint64_t kUserCs = 0x33;
constexpr uint64_t kUserDs = 0x2b;
constexpr uint64_t kEflagsDf = 1 << 10, kEflagsRf = 1 << 16, kEflagsTf = 1 << 8;
// What sigreturn may change: AC, OF, DF, TF, SF, ZF, AF, PF, CF, RF.
constexpr uint64_t kFixEflags =
    1 << 18 | 1 << 11 | kEflagsDf | kEflagsTf | 1 << 7 | 1 << 6 | 1 << 4 | 1 << 2 | 1 | kEflagsRf;
constexpr uint64_t kSaRestorer = 0x04000000;
// The largest extended state that we take from a guest's frame: AVX-512, PKRU and AMX tile data fit.
constexpr uint64_t kMaxExtendedState = 16384;

uint64_t EnabledFeatures() {
  static const uint64_t features = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(0xd, 0, &a, &b, &c, &d) == 0) return uint64_t{3};
    return static_cast<uint64_t>(d) << 32 | a;
  }();
  return features;
}

uint64_t ExtendedStateSize() {
  static const uint64_t size = [] {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid_count(0xd, 0, &a, &b, &c, &d) == 0) return uint64_t{abi::kFxsaveSize};
    return static_cast<uint64_t>(b);
  }();
  return size;
}

// True when an address can be a user-space instruction or stack pointer: the host refuses others.
bool Canonical(uint64_t addr) { return addr < uint64_t{1} << 47; }

}  // namespace

uint64_t MinSignalStackSize() {
  return (sizeof(abi::RtSigFrame) + ExtendedStateSize() + sizeof(uint32_t) + 64 + 16 + kRedZone + 15) & ~uint64_t{15};
}

Result<void> PushSignalFrame(Task& t, const SigInfo& info, const abi::KernelSigAction& action, SignalSet mask) {
  if ((action.flags & kSaRestorer) == 0) return kEFAULT;
  user_regs_struct& regs = t.regs().gp;
  abi::SigStack& alt = t.signals().alt_stack;
  bool on_alt = SignalDelivery::OnAltStack(t, regs.rsp);
  uint64_t sp = regs.rsp - kRedZone;
  if ((action.flags & SA_ONSTACK) != 0 && !on_alt && alt.size != 0 &&
      !((static_cast<uint32_t>(alt.flags) & abi::kSsAutodisarm) != 0 && regs.rsp > alt.sp &&
        regs.rsp - alt.sp <= alt.size)) {
    sp = alt.sp + alt.size;
    on_alt = true;
  }

  ExtendedState state = TRY(t.context().GetExtendedState());
  if (state.size() < abi::kFxsaveSize) return kEFAULT;
  const uint64_t state_bytes = state.size();
  if (state_bytes > abi::kFxsaveSize) {
    const abi::FpxSwBytes sw{abi::kFpXstateMagic1,
                             static_cast<uint32_t>(state_bytes + sizeof(uint32_t)),
                             EnabledFeatures(),
                             static_cast<uint32_t>(state_bytes),
                             {}};
    memcpy(state.data() + abi::kFpxSwOffset, &sw, sizeof sw);
    const uint32_t magic2 = abi::kFpXstateMagic2;
    state.insert(state.end(), reinterpret_cast<const uint8_t*>(&magic2),
                 reinterpret_cast<const uint8_t*>(&magic2) + sizeof magic2);
  }
  const uint64_t fp_at = (sp - state.size()) & ~uint64_t{63};
  const uint64_t frame_at = ((fp_at - sizeof(abi::RtSigFrame)) & ~uint64_t{15}) - 8;
  // A frame that does not fit on the alternate stack must not run over what lies below it.
  if (on_alt && !(frame_at > alt.sp && frame_at - alt.sp <= alt.size)) return kEFAULT;

  abi::RtSigFrame frame;
  memset(&frame, 0, sizeof frame);
  frame.return_address = action.restorer;
  frame.info = info;
  abi::UContext& uc = frame.uc;
  uc.flags = abi::kUcSigcontextSs | abi::kUcStrictRestoreSs;
  if (state_bytes > abi::kFxsaveSize) uc.flags |= abi::kUcFpXstate;
  uc.stack = alt;
  uc.sigmask = mask.bits;
  abi::SigContext& sc = uc.mcontext;
  sc.r8 = regs.r8, sc.r9 = regs.r9, sc.r10 = regs.r10, sc.r11 = regs.r11;
  sc.r12 = regs.r12, sc.r13 = regs.r13, sc.r14 = regs.r14, sc.r15 = regs.r15;
  sc.rdi = regs.rdi, sc.rsi = regs.rsi, sc.rbp = regs.rbp, sc.rbx = regs.rbx;
  sc.rdx = regs.rdx, sc.rax = regs.rax, sc.rcx = regs.rcx, sc.rsp = regs.rsp;
  sc.rip = regs.rip, sc.eflags = regs.eflags;
  sc.cs = static_cast<uint16_t>(regs.cs), sc.ss = static_cast<uint16_t>(regs.ss);
  sc.trapno = t.last_fault().trapno, sc.err = t.last_fault().error_code, sc.cr2 = t.last_fault().address;
  sc.oldmask = mask.bits;
  sc.fpstate = fp_at;

  MemoryManager& memory = t.memory();
  if (memory.CopyOut(fp_at, state.data(), state.size()) != state.size()) return kEFAULT;
  if (memory.CopyOut(frame_at, &frame, sizeof frame) != sizeof frame) return kEFAULT;
  if (!Canonical(action.handler)) return kEFAULT;

  if ((static_cast<uint32_t>(alt.flags) & abi::kSsAutodisarm) != 0) alt = {0, SS_DISABLE, 0, 0};
  regs.rdi = static_cast<uint64_t>(info.si_signo);
  regs.rsi = frame_at + offsetof(abi::RtSigFrame, info);
  regs.rdx = frame_at + offsetof(abi::RtSigFrame, uc);
  regs.rax = 0;
  regs.rip = action.handler;
  regs.rsp = frame_at;
  regs.eflags &= ~(kEflagsDf | kEflagsRf | kEflagsTf);
  regs.cs = kUserCs;
  regs.ss = kUserDs;
  regs.orig_rax = ~uint64_t{0};
  t.context().ResetExtendedState();
  return {};
}

namespace {

Result<void> RestoreExtendedState(Task& t, GuestAddr at) {
  if (at == 0) {
    t.context().ResetExtendedState();
    return {};
  }
  ExtendedState state(abi::kFxsaveSize);
  MemoryManager& memory = t.memory();
  if (memory.CopyIn(state.data(), at, state.size()) != state.size()) return kEFAULT;
  abi::FpxSwBytes sw;
  memcpy(&sw, state.data() + abi::kFpxSwOffset, sizeof sw);
  ExtendedState current = TRY(t.context().GetExtendedState());
  const bool extended = sw.magic1 == abi::kFpXstateMagic1 && sw.xstate_size >= abi::kFxsaveSize + 64 &&
                        sw.xstate_size <= kMaxExtendedState && sw.xstate_size <= current.size() &&
                        sw.extended_size >= sw.xstate_size + sizeof(uint32_t);
  uint32_t magic2 = 0;
  if (extended) memory.CopyIn(&magic2, at + sw.xstate_size, sizeof magic2);
  if (extended && magic2 == abi::kFpXstateMagic2) {
    state.resize(sw.xstate_size);
    if (memory.CopyIn(state.data(), at, state.size()) != state.size()) return kEFAULT;
    state.resize(current.size());
  } else {
    // A frame with the legacy area only: the rest goes back to its initial state (XSTATE_BV of the header).
    state.resize(current.size());
    if (current.size() > abi::kFxsaveSize) state[abi::kFxsaveSize] = 3;
  }
  // The host reads its own mask of features from here (PTRACE_SETREGSET ignores it, but keep what it gave).
  memcpy(state.data() + abi::kFpxSwOffset, current.data() + abi::kFpxSwOffset, sizeof sw);
  return t.context().SetExtendedState(state);
}

}  // namespace

Result<void> PopSignalFrame(Task& t) {
  user_regs_struct& regs = t.regs().gp;
  // The handler's return popped the first word.
  const GuestAddr frame_at = regs.rsp - 8;
  abi::UContext uc;
  if (t.memory().CopyIn(&uc, frame_at + offsetof(abi::RtSigFrame, uc), sizeof uc) != sizeof uc) return kEFAULT;
  const abi::SigContext& sc = uc.mcontext;
  if (!Canonical(sc.rip)) return kEFAULT;
  t.SetSignalMask({uc.sigmask});
  regs.r8 = sc.r8, regs.r9 = sc.r9, regs.r10 = sc.r10, regs.r11 = sc.r11;
  regs.r12 = sc.r12, regs.r13 = sc.r13, regs.r14 = sc.r14, regs.r15 = sc.r15;
  regs.rdi = sc.rdi, regs.rsi = sc.rsi, regs.rbp = sc.rbp, regs.rbx = sc.rbx;
  regs.rdx = sc.rdx, regs.rax = sc.rax, regs.rcx = sc.rcx, regs.rsp = sc.rsp;
  regs.rip = sc.rip;
  regs.eflags = (regs.eflags & ~kFixEflags) | (sc.eflags & kFixEflags);
  // Guests run in 64-bit mode only: the selectors are never anything else.
  regs.cs = kUserCs;
  regs.ss = kUserDs;
  regs.orig_rax = ~uint64_t{0};
  TRY(RestoreExtendedState(t, sc.fpstate));
  // As sigaltstack(2) would set it; what it would refuse is left as it is.
  const uint32_t mode = static_cast<uint32_t>(uc.stack.flags) & ~abi::kSsAutodisarm;
  if (!SignalDelivery::OnAltStack(t, regs.rsp)) {
    if (mode == SS_DISABLE) {
      t.signals().alt_stack = {0, SS_DISABLE, 0, 0};
    } else if ((mode == 0 || mode == SS_ONSTACK) && uc.stack.size >= kMinAltStack) {
      t.signals().alt_stack = uc.stack;
    }
  }
  return {};
}

}  // namespace moat
