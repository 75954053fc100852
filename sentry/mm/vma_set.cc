#include "sentry/mm/vma_set.h"

#include <algorithm>

namespace moat {

bool VmaSet::IsFree(GuestAddr start, GuestAddr end) {
  iterator it = FirstAbove(start);
  return it == this->end() || GapStart(it->second) >= end;
}

std::optional<GuestAddr> VmaSet::FindTopDown(GuestAddr low, GuestAddr high, uint64_t length) {
  if (length == 0 || high < low || length > high - low) return std::nullopt;
  // `ceiling` is the top of the free room under consideration; walk down area by area.
  GuestAddr ceiling = high;
  iterator it = FirstAbove(high - 1);
  if (it != end()) ceiling = std::min(ceiling, GapStart(it->second));
  while (true) {
    const GuestAddr floor = it == begin() ? low : std::max(low, std::prev(it)->second.end);
    if (ceiling > floor && ceiling - floor >= length) return ceiling - length;
    if (it == begin() || ceiling <= low) return std::nullopt;
    --it;
    ceiling = std::min(ceiling, GapStart(it->second));
  }
}

std::optional<GuestAddr> VmaSet::FindBottomUp(GuestAddr low, GuestAddr high, uint64_t length) {
  if (length == 0 || high < low || length > high - low) return std::nullopt;
  GuestAddr floor = low;
  for (iterator it = FirstAbove(low);; ++it) {
    const GuestAddr ceiling = it == end() ? high : std::min(high, GapStart(it->second));
    if (ceiling > floor && ceiling - floor >= length) return floor;
    if (it == end() || it->second.end >= high) return std::nullopt;
    floor = std::max(floor, it->second.end);
  }
}

}  // namespace moat
