#include "sentry/mm/committed.h"

#include <unistd.h>

#include <algorithm>

namespace moat {

int VisitCommitted(int fd, FileRange range, int max_probes, absl::FunctionRef<void(FileRange)> visit) {
  int probes = 0;
  while (range.start < range.end && probes < max_probes) {
    ++probes;
    const off_t data = lseek(fd, static_cast<off_t>(range.start), SEEK_DATA);
    if (data < 0 || static_cast<uint64_t>(data) >= range.end) break;
    const off_t hole = lseek(fd, data, SEEK_HOLE);
    const uint64_t end = hole < 0 ? range.end : std::min(static_cast<uint64_t>(hole), range.end);
    visit({static_cast<uint64_t>(data), end});
    range.start = end;
  }
  return probes;
}

}  // namespace moat
