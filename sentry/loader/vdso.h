// The vDSO that guests get: our own ELF shared object, built from sentry/loader/vdso/ and embedded in the binary. Its
// pages live in the memory file and are shared by all address spaces.
// Thread-safe. Source: vdso(7).
#ifndef MOAT_SENTRY_LOADER_VDSO_H_
#define MOAT_SENTRY_LOADER_VDSO_H_

#include <cstdint>

#include "platform/base/result.h"
#include "platform/memory/memory_file.h"
#include "sentry/mm/memory_manager.h"

namespace moat {

// The vDSO's memory, for MmEnvironment::vdso. Once per sandbox, at boot.
Result<RefPtr<Mappable>> MakeVdso(MemoryFile& memory, CommitAccount& commit);

// Maps the environment's vDSO into `mm`. Returns the address for AT_SYSINFO_EHDR, 0 when there is none.
Result<GuestAddr> MapVdso(MemoryManager& mm, const MmLimits& limits, Context* caller);

}  // namespace moat

#endif  // MOAT_SENTRY_LOADER_VDSO_H_
