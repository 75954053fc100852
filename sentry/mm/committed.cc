#include "sentry/mm/committed.h"

#include <unistd.h>

#include <algorithm>
#include <array>

#include "platform/memory/safe_copy.h"
#include "platform/usermem/guest_memory.h"

namespace moat {
namespace {

bool IsZero(MemoryFile& memory, uint64_t offset) {
  alignas(64) std::array<std::byte, kPageSize> page;
  Result<std::byte*> at = memory.Pointer(offset);
  if (!at.ok() || SafeCopy(page.data(), *at, page.size()) != page.size()) return true;
  return std::all_of(page.begin(), page.end(), [](std::byte b) { return b == std::byte{0}; });
}

}  // namespace

int VisitCommitted(MemoryFile& memory, FileRange range, bool exact, int max_probes,
                   absl::FunctionRef<void(FileRange)> visit) {
  const bool look = exact && memory.MayBeUntouched(range);
  int probes = 0;
  for (uint64_t at = range.start; at < range.end && probes < max_probes; ++probes) {
    const off_t data = lseek(memory.fd(), static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 || static_cast<uint64_t>(data) >= range.end) break;
    const off_t hole = lseek(memory.fd(), data, SEEK_HOLE);
    const uint64_t start = static_cast<uint64_t>(data);
    const uint64_t end = hole < 0 ? range.end : std::min(static_cast<uint64_t>(hole), range.end);
    if (!look) {
      visit({start, end});
    } else {
      for (uint64_t page = start; page < end; page += kPageSize) {
        if (!IsZero(memory, page)) visit({page, page + kPageSize});
      }
    }
    at = end;
  }
  return probes;
}

}  // namespace moat
