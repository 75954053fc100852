#include "platform/systrap/decode.h"

#include <capstone/capstone.h>

#include <utility>

#include "platform/base/mutex.h"

namespace moat::systrap_platform {
namespace {

// Capstone's handle, which is not thread-safe. Sites are found rarely.
class Decoder {
 public:
  static Decoder& Get() {
    static Decoder* d = new Decoder;
    return *d;
  }
  Mutex mu{LockRank::kLeaf};
  csh handle = 0;
  cs_insn* insn = nullptr;
  bool ok() const { return insn != nullptr; }

 private:
  Decoder() {
    if (cs_open(CS_ARCH_X86, CS_MODE_64, &handle) == CS_ERR_OK) insn = cs_malloc(handle);
  }
};

bool Ends(unsigned id) { return id == X86_INS_RET || id == X86_INS_JMP || id == X86_INS_UD2 || id == X86_INS_HLT; }
bool Pads(unsigned id) { return id == X86_INS_NOP || id == X86_INS_INT3; }

}  // namespace

std::vector<Padding> FindPaddings(std::span<const uint8_t> code, uint64_t address) {
  std::vector<Padding> found;
  Decoder& d = Decoder::Get();
  MutexLock lock(d.mu);
  if (!d.ok()) return found;
  const uint8_t* at = code.data();
  size_t left = code.size();
  bool ended = false, padding = false;
  while (left > 0) {
    const size_t offset = code.size() - left;
    if (!cs_disasm_iter(d.handle, &at, &left, &address, d.insn)) break;
    if (!ended || !Pads(d.insn->id)) {
      // In a new function or block: its end comes next.
      ended = Ends(d.insn->id);
      padding = false;
      continue;
    }
    if (!std::exchange(padding, true)) found.push_back({offset, 0});
    found.back().length += d.insn->size;
  }
  return found;
}

std::vector<uint64_t> FindCpuids(std::span<const uint8_t> code, uint64_t address) {
  std::vector<uint64_t> found;
  Decoder& d = Decoder::Get();
  MutexLock lock(d.mu);
  if (!d.ok()) return found;
  const uint8_t* at = code.data();
  size_t left = code.size();
  while (left > 0 && cs_disasm_iter(d.handle, &at, &left, &address, d.insn)) {
    if (d.insn->id == X86_INS_CPUID) found.push_back(address);
  }
  return found;
}

}  // namespace moat::systrap_platform

// Capstone's way into its decoders of other processors, which would be linked in with them: two thirds of the binary's
// relocated data, 1.4 MB that every start of runsc would have to write.
#define MOAT_WITHOUT(arch)                                            \
  extern "C" cs_err arch##_global_init(void*) { return CS_ERR_ARCH; } \
  extern "C" cs_err arch##_option(void*, cs_opt_type, size_t) { return CS_ERR_OPTION; }
MOAT_WITHOUT(AArch64)
MOAT_WITHOUT(ARM)
MOAT_WITHOUT(EVM)
MOAT_WITHOUT(M680X)
MOAT_WITHOUT(M68K)
MOAT_WITHOUT(Mips)
MOAT_WITHOUT(PPC)
MOAT_WITHOUT(Sparc)
MOAT_WITHOUT(SystemZ)
MOAT_WITHOUT(TMS320C64x)
MOAT_WITHOUT(XCore)
