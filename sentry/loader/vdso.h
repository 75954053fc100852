// The vDSO that guests get: our own ELF shared object, built from sentry/loader/vdso/ and embedded in the binary. Its
// pages and a parameter page (vvar) live in the memory file and are shared by all address spaces, read-only.
// Thread-safe. Source: vdso(7).
#ifndef MOAT_SENTRY_LOADER_VDSO_H_
#define MOAT_SENTRY_LOADER_VDSO_H_

#include <cstdint>

#include "platform/base/result.h"
#include "platform/memory/memory_file.h"
#include "sentry/mm/memory_manager.h"

namespace moat {

// Maps parameter page and vDSO into `mm`. Returns the address for
// AT_SYSINFO_EHDR. The memory is made on first use and shared from then on.
Result<GuestAddr> MapVdso(MemoryManager& mm, const MmLimits& limits, Context* caller);

}  // namespace moat

#endif  // MOAT_SENTRY_LOADER_VDSO_H_
