#include "platform/systrap/cpuid_site.h"

#include <iterator>

#include "platform/systrap/cpuid_table.h"
#include "platform/systrap/saved_flags.h"

namespace moat::systrap_platform {
namespace {

void Set(user_regs_struct& regs, const CpuidAnswer& a) {
  regs.rax = a.eax;
  regs.rbx = a.ebx;
  regs.rcx = a.ecx;
  regs.rdx = a.edx;
}

CpuidAnswer Answer(uint32_t leaf, uint32_t subleaf) {
  if (!IsCpuidLeafShared(leaf)) return AskCpu(leaf, subleaf);
  const CpuidTable& table = SharedCpuidTable();
  for (const CpuidTable::Entry& e : table.entries) {
    if (CPUID_ENTRIES + static_cast<uint64_t>(&e - table.entries) * CPUID_ENTRY >= table.end) break;
    if (e.leaf == leaf && (e.any_subleaf != 0 || e.subleaf == subleaf)) return {e.eax, e.ebx, e.ecx, e.edx};
  }
  return AskCpu(leaf, subleaf);
}

// The entry that the trampoline is loading from.
CpuidAnswer EntryAt(uint64_t address) {
  const uint64_t index = (address - CPUID_ENTRIES) / CPUID_ENTRY;
  if (index >= std::size(SharedCpuidTable().entries)) return {};
  const CpuidTable::Entry& e = SharedCpuidTable().entries[index];
  return {e.eax, e.ebx, e.ecx, e.edx};
}

}  // namespace

bool InCpuidCode(uint64_t rip) { return rip >= CpuidAddress() && rip < CpuidEndAddress(); }

void DoCpuid(user_regs_struct& regs) {
  Set(regs, Answer(static_cast<uint32_t>(regs.rax), static_cast<uint32_t>(regs.rcx)));
}

uint32_t FinishCpuid(user_regs_struct& regs, const Area& area) {
  const uint64_t rip = regs.rip;
  const bool stored = rip >= CpuidStoredAddress() && rip < CpuidSlowAddress();
  const auto site = static_cast<uint32_t>((stored ? area.cpuid_site : regs.rbx) / 8);
  if (rip >= CpuidFinalAddress() && rip <= CpuidLastAddress()) {
    if (rip != CpuidLastAddress()) Set(regs, EntryAt(regs.rbx));
    return site;
  }
  if (rip > CpuidAddress() && rip < CpuidRestoredAddress()) {
    if (rip >= CpuidFlagsAddress()) regs.eflags = FlagsFromAx(regs.eflags, regs.rax);
    regs.rax = regs.rdx;
  }
  DoCpuid(regs);
  return site;
}

void FinishCpuidThunk(user_regs_struct& regs, uint64_t offset, uint32_t leaf) {
  if (offset == THUNK_CPUID_RETURN) return;
  if (offset < THUNK_CPUID_UNNUMBERED) regs.rax = leaf;
  DoCpuid(regs);
}

}  // namespace moat::systrap_platform
