// A guest thread's general registers, as ptrace(2) PTRACE_GETREGS has them (struct user_regs_struct), and
// its extended state (XSAVE layout, standard form) as an opaque blob.
#ifndef MOAT_PLATFORM_REGISTERS_H_
#define MOAT_PLATFORM_REGISTERS_H_

#include <sys/user.h>

#include <cstdint>
#include <vector>

namespace moat {

constexpr uint64_t kSyscallLength = 2;  // of the instruction

struct Registers {
  user_regs_struct gp{};  // includes orig_rax, eflags, fs_base, gs_base, segment selectors
  // After a SyscallEvent a platform may know no more than the call: orig_rax, the arguments, rip and rcx. Then only the
  // result may be set before the next Switch; Context::Complete gets the rest.
  bool complete = true;

  uint64_t SyscallNumber() const { return static_cast<uint32_t>(gp.orig_rax); }  // Linux looks at eax only
  uint64_t SyscallArg(int i) const {
    switch (i) {
      case 0:
        return gp.rdi;
      case 1:
        return gp.rsi;
      case 2:
        return gp.rdx;
      case 3:
        return gp.r10;
      case 4:
        return gp.r8;
      default:
        return gp.r9;
    }
  }
  void SetReturn(int64_t value) { gp.rax = static_cast<uint64_t>(value); }
  int64_t Return() const { return static_cast<int64_t>(gp.rax); }
};

using ExtendedState = std::vector<uint8_t>;

}  // namespace moat

#endif  // MOAT_PLATFORM_REGISTERS_H_
