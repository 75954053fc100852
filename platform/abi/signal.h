// Signal structures at the guest boundary, x86-64. Source: <asm/signal.h>, <asm/sigcontext.h>, <asm/ucontext.h>,
// rt_sigaction(2), sigaltstack(2); arch/x86/kernel/signal_64.c for the order of a frame.
#ifndef MOAT_PLATFORM_ABI_SIGNAL_H_
#define MOAT_PLATFORM_ABI_SIGNAL_H_

#include <signal.h>

#include <cstddef>
#include <cstdint>

namespace moat::abi {

// The kernel's sigset_t: bit signo - 1.
using SigSetBits = uint64_t;
inline constexpr size_t kSigSetSize = 8;
inline constexpr int kSignalCount = 64;  // signals are 1..64
inline constexpr int kFirstRealtime = 32;

using SigInfo = ::siginfo_t;
static_assert(sizeof(SigInfo) == 128);
static_assert(offsetof(SigInfo, _sifields) == 16);

inline constexpr uint32_t kSsAutodisarm = 1u << 31;  // SS_AUTODISARM of <linux/signal.h>

// The kernel's struct sigaction, which differs from libc's.
struct KernelSigAction {
  uint64_t handler = 0;  // SIG_DFL 0, SIG_IGN 1 or an address
  uint64_t flags = 0;
  uint64_t restorer = 0;
  SigSetBits mask = 0;
};
static_assert(sizeof(KernelSigAction) == 32);

struct SigStack {
  uint64_t sp;
  int32_t flags;
  uint32_t pad;
  uint64_t size;
};
static_assert(sizeof(SigStack) == 24);

struct SigContext {
  uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
  uint64_t rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
  uint16_t cs, gs, fs, ss;
  uint64_t err, trapno, oldmask, cr2;
  uint64_t fpstate;
  uint64_t reserved[8];
};
static_assert(sizeof(SigContext) == 256);

struct UContext {
  uint64_t flags;
  uint64_t link;
  SigStack stack;
  SigContext mcontext;
  SigSetBits sigmask;
};
static_assert(sizeof(UContext) == 304);
static_assert(offsetof(UContext, mcontext) == 40);

inline constexpr uint64_t kUcFpXstate = 1;
inline constexpr uint64_t kUcSigcontextSs = 2;
inline constexpr uint64_t kUcStrictRestoreSs = 4;

// What a handler's stack pointer points to.
struct RtSigFrame {
  uint64_t return_address;  // the restorer
  UContext uc;
  SigInfo info;
};
static_assert(sizeof(RtSigFrame) == 440);

// Bytes 464..511 of the legacy FXSAVE area, software's own (struct _fpx_sw_bytes).
struct FpxSwBytes {
  uint32_t magic1;
  uint32_t extended_size;
  uint64_t xfeatures;
  uint32_t xstate_size;
  uint32_t padding[7];
};
static_assert(sizeof(FpxSwBytes) == 48);
inline constexpr uint32_t kFpXstateMagic1 = 0x46505853;
inline constexpr uint32_t kFpXstateMagic2 = 0x46505845;
inline constexpr size_t kFxsaveSize = 512;
inline constexpr size_t kFpxSwOffset = 464;

// struct sigevent as the kernel reads it.
struct SigEvent {
  uint64_t value;
  int32_t signo;
  int32_t notify;
  int32_t tid;
  uint32_t pad[11];
};
static_assert(sizeof(SigEvent) == 64);

// The sixth argument of pselect6.
struct SigMaskArg {
  uint64_t mask;
  uint64_t size;
};

}  // namespace moat::abi

#endif  // MOAT_PLATFORM_ABI_SIGNAL_H_
