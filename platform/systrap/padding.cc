#include "platform/systrap/padding.h"

#include <capstone/capstone.h>

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

std::optional<size_t> FindPadding(std::span<const uint8_t> code, uint64_t address, size_t length) {
  Decoder& d = Decoder::Get();
  MutexLock lock(d.mu);
  if (!d.ok()) return std::nullopt;
  const uint8_t* at = code.data();
  size_t left = code.size();
  bool ended = false;
  size_t begin = 0;
  while (left > 0) {
    const size_t offset = code.size() - left;
    if (!cs_disasm_iter(d.handle, &at, &left, &address, d.insn)) return std::nullopt;
    if (!ended) {
      ended = Ends(d.insn->id);
      begin = code.size() - left;
      continue;
    }
    if (!Pads(d.insn->id)) {
      // A new function or block: its end comes next.
      ended = Ends(d.insn->id);
      begin = code.size() - left;
      continue;
    }
    if (offset + d.insn->size - begin >= length) return begin;
  }
  return std::nullopt;
}

}  // namespace moat::systrap_platform
