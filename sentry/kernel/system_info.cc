#include "sentry/kernel/system_info.h"

#include <algorithm>

#include "sentry/kernel/kernel.h"

namespace moat {

MemoryInfo ReadMemoryInfo(Kernel& kernel) {
  MemoryInfo info;
  info.total = kernel.total_memory();
  info.page_cache = kernel.memory_file().Usage(MemoryKind::kPageCache);
  info.shared = info.page_cache;
  // Allocated is an upper bound of committed: reservations are sparse. Never more than there is.
  info.anonymous = std::min(kernel.memory_file().Usage(MemoryKind::kAnonymous), info.total);
  uint64_t used = std::min(info.anonymous + info.page_cache, info.total);
  info.free = info.total - used;
  info.available = info.free;
  return info;
}

}  // namespace moat
