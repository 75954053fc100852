#include "platform/memory/safe_copy.h"

#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdlib>

#include "platform/base/log.h"

extern "C" {
size_t moat_copy(void* dst, const void* src, size_t n);
size_t moat_zero(void* dst, size_t n);
int moat_load32(const void* p, uint32_t* out);
int moat_cmpxchg32(void* p, uint32_t* expected, uint32_t desired);
extern const char moat_copy_fault[], moat_copy_fixup[];
extern const char moat_zero_fault[], moat_zero_fixup[];
extern const char moat_load32_fault[], moat_load32_fixup[];
extern const char moat_cmpxchg32_fault[], moat_cmpxchg32_fixup[];
}

namespace moat {
namespace {

struct Fixup {
  const char* fault;
  const char* fixup;
};

void OnFault(int signo, siginfo_t* info, void* context) {
  const Fixup fixups[] = {{moat_copy_fault, moat_copy_fixup},
                          {moat_zero_fault, moat_zero_fixup},
                          {moat_load32_fault, moat_load32_fixup},
                          {moat_cmpxchg32_fault, moat_cmpxchg32_fixup}};
  greg_t* regs = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  for (const Fixup& f : fixups) {
    if (regs[REG_RIP] == reinterpret_cast<greg_t>(f.fault)) {
      regs[REG_RIP] = reinterpret_cast<greg_t>(f.fixup);
      return;
    }
  }
  // Not a copy: a bug of ours. Say where, then die of the same signal.
  char text[160];
  auto end = fmt::format_to_n(text, sizeof text, "moat: fatal signal {} at rip {:#x}, address {:#x}\n", signo,
                              regs[REG_RIP], reinterpret_cast<uintptr_t>(info->si_addr));
  [[maybe_unused]] ssize_t n = write(STDERR_FILENO, text, std::min(end.size, sizeof text));
  __builtin_trap();  // dies of SIGILL: no host call outside of the lists
}

}  // namespace

void InstallSafeCopyHandlers() {
  struct sigaction action = {};
  action.sa_sigaction = OnFault;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  MOAT_CHECK(sigaction(SIGSEGV, &action, nullptr) == 0);
  MOAT_CHECK(sigaction(SIGBUS, &action, nullptr) == 0);
}

size_t SafeCopy(void* dst, const void* src, size_t n) { return n - moat_copy(dst, src, n); }

size_t SafeZero(void* dst, size_t n) { return n - moat_zero(dst, n); }

Result<uint32_t> SafeLoad32(const void* p) {
  uint32_t value;
  if (moat_load32(p, &value) != 0) return kEFAULT;
  return value;
}

Result<uint32_t> SafeCompareExchange32(void* p, uint32_t expected, uint32_t desired) {
  if (moat_cmpxchg32(p, &expected, desired) != 0) return kEFAULT;
  return expected;
}

}  // namespace moat
