// What `cpuid` answers on this machine, for leaves of which every CPU says the same: a virtual machine's hypervisor
// takes microseconds for one, and a program that is started asks for dozens. Source: AMD64 APM volume 3, appendix E;
// Intel SDM volume 2A, "CPUID".
#ifndef MOAT_PLATFORM_SYSTRAP_CPUID_TABLE_H_
#define MOAT_PLATFORM_SYSTRAP_CPUID_TABLE_H_

#include "platform/systrap/layout.h"

namespace moat::systrap_platform {

struct CpuidAnswer {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
  bool operator==(const CpuidAnswer&) const = default;
};
// Of the CPU that the caller runs on, for any leaf.
CpuidAnswer AskCpu(uint32_t leaf, uint32_t subleaf);

// Whether the instruction is so slow here that to answer it otherwise pays. Asks the CPU once.
bool IsCpuidSlow();
// Whether answers for `leaf` may come from the table: not those that tell CPUs apart (APIC ids, topology), nor a
// hypervisor's own.
bool IsCpuidLeafShared(uint32_t leaf);
// Made with the first call, by asking the CPU some hundred times. Thread-safe.
const CpuidTable& SharedCpuidTable();

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_CPUID_TABLE_H_
