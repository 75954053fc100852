#include "sentry/mm/placed_code.h"

#include <algorithm>

namespace moat {

std::vector<PlacedCode> CutPlacedCode(std::vector<PlacedCode>& placed, GuestAddr start, GuestAddr end) {
  start = PageFloor(start);
  end = PageCeil(end);
  std::vector<PlacedCode> rest, cut;
  for (PlacedCode& p : placed) {
    if (p.end <= start || p.start >= end) {
      rest.push_back(std::move(p));
      continue;
    }
    if (p.start < start) rest.push_back({p.image, p.bias, p.start, start});
    if (p.end > end) rest.push_back({p.image, p.bias, end, p.end});
    cut.push_back({p.image, p.bias, std::max(p.start, start), std::min(p.end, end)});
  }
  placed = std::move(rest);
  return cut;
}

}  // namespace moat
