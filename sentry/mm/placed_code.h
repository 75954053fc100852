// PlacedCode: where in an address space pages of a CodeImage have taken the place of a file's. Value type; guarded by
// MemoryManager's mapping lock.
#ifndef MOAT_SENTRY_MM_PLACED_CODE_H_
#define MOAT_SENTRY_MM_PLACED_CODE_H_

#include <vector>

#include "sentry/code/code_image.h"

namespace moat {

struct PlacedCode {
  RefPtr<const CodeImage> image;
  uint64_t bias;         // the address of the file's offset 0
  GuestAddr start, end;  // whole pages; what lies outside is the file's own again, or gone

  bool Covers(const CodeSite& site) const { return bias + site.page() >= start && bias + site.page() < end; }
};

// Takes [start, end), rounded to whole pages, out of each element; what was taken out comes back.
std::vector<PlacedCode> CutPlacedCode(std::vector<PlacedCode>& placed, GuestAddr start, GuestAddr end);

}  // namespace moat

#endif  // MOAT_SENTRY_MM_PLACED_CODE_H_
