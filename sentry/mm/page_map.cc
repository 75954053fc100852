#include "sentry/mm/page_map.h"

#include <sys/mman.h>

#include <algorithm>

namespace moat {

uint8_t PageRun::AllowedHostProt() const { return writable_now() ? prot : static_cast<uint8_t>(prot & ~PROT_WRITE); }

bool PageRun::Continues(const PageRun& next) const {
  if (fd != next.fd || offset + length() != next.offset || owned != next.owned || cow != next.cow ||
      in_memory_file != next.in_memory_file || fd_writable != next.fd_writable || prot != next.prot ||
      host_prot != next.host_prot || !(mappable == next.mappable))
    return false;
  if (shadow == kNoShadow || next.shadow == kNoShadow) return shadow == next.shadow;
  return shadow + length() == next.shadow;
}

PageMap::Gap PageMap::NextGap(GuestAddr start, GuestAddr end) {
  iterator it = FirstAbove(start);
  for (; it != this->end() && it->second.start <= start; it = FirstAbove(start)) {
    start = it->second.end;
    if (start >= end) return {end, end};
  }
  return {start, it == this->end() ? end : std::min(end, it->second.start)};
}

void PageMap::JoinRange(GuestAddr start, GuestAddr end) {
  iterator it = FirstAbove(start == 0 ? 0 : start - 1);
  while (it != this->end() && it->second.start <= end) {
    const size_t before = size();
    it = Join(it);
    if (size() == before) ++it;
  }
}

void UnrefAll(MemoryFile& memory, std::vector<FileRange> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const FileRange& a, const FileRange& b) { return a.start < b.start; });
  for (size_t i = 0; i < ranges.size();) {
    FileRange r = ranges[i++];
    while (i < ranges.size() && ranges[i].start == r.end) r.end = ranges[i++].end;
    memory.Unref(r);
  }
}

}  // namespace moat
