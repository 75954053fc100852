#include "sentry/mm/committed.h"

#include <unistd.h>

#include <algorithm>

namespace moat {
namespace {

constexpr uint64_t kNear = 64 << 10;

}  // namespace

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

uint64_t CountCommitted(int fd, std::vector<FileRange> ranges, int max_probes) {
  std::ranges::sort(ranges, {}, &FileRange::start);
  uint64_t total = 0;
  int probes = 0;
  for (size_t first = 0; first < ranges.size();) {
    FileRange span = ranges[first];
    size_t end = first + 1;
    for (; end < ranges.size() && ranges[end].start <= span.end + kNear; ++end)
      span.end = std::max(span.end, ranges[end].end);
    probes += VisitCommitted(fd, span, max_probes - probes, [&](FileRange piece) {
      while (first < end && ranges[first].end <= piece.start) ++first;
      for (size_t i = first; i < end && ranges[i].start < piece.end; ++i) {
        const uint64_t from = std::max(ranges[i].start, piece.start), to = std::min(ranges[i].end, piece.end);
        if (from < to) total += to - from;
      }
    });
    first = end;
  }
  return total;
}

}  // namespace moat
