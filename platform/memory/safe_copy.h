// Copies that survive SIGBUS and SIGSEGV on the mapped side: donated files may be truncated by the host,
// and the memfd may find the host out of memory. A fault ends the copy early instead of the process.
// InstallSafeCopyHandlers must have run in this process. Thread-safe.
#ifndef MOAT_PLATFORM_MEMORY_SAFE_COPY_H_
#define MOAT_PLATFORM_MEMORY_SAFE_COPY_H_

#include <cstddef>
#include <cstdint>

#include "platform/base/result.h"

namespace moat {

void InstallSafeCopyHandlers();

// Bytes copied before a fault, `n` when there was none.
size_t SafeCopy(void* dst, const void* src, size_t n);
size_t SafeZero(void* dst, size_t n);
// kEFAULT on a fault.
Result<uint32_t> SafeLoad32(const void* p);
// The value before; stored only when it equalled `expected`.
Result<uint32_t> SafeCompareExchange32(void* p, uint32_t expected, uint32_t desired);

}  // namespace moat

#endif  // MOAT_PLATFORM_MEMORY_SAFE_COPY_H_
