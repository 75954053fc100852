// The vDSO that guests get: our own ELF shared object, built from sentry/loader/vdso/ and embedded in the binary, above
// a page of clock parameters. Their memory is in the memory file and shared by all address spaces, read-only.
// Thread-safe. Source: vdso(7).
#ifndef MOAT_SENTRY_LOADER_VDSO_H_
#define MOAT_SENTRY_LOADER_VDSO_H_

#include <cstdint>

#include "platform/base/result.h"
#include "platform/memory/memory_file.h"
#include "sentry/mm/memory_manager.h"

namespace moat {

// Makes the memory of both, and the clock that keeps the page true: `env`'s `vdso` and `clock`. Once per sandbox, at
// boot. kENOMEM.
Result<void> MakeVdso(MmEnvironment* env);

// Maps the environment's vDSO into `mm`. Returns the address for AT_SYSINFO_EHDR, 0 when there is none.
Result<GuestAddr> MapVdso(MemoryManager& mm, const MmLimits& limits, Context* caller);

}  // namespace moat

#endif  // MOAT_SENTRY_LOADER_VDSO_H_
