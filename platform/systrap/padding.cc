#include "platform/systrap/padding.h"

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

}  // namespace moat::systrap_platform
