#include "platform/usermem/user_ptr.h"

#include <algorithm>
#include <cstring>

namespace moat {

Result<std::string> UserString::Read(GuestMemory& m, size_t max) const {
  std::string out;
  GuestAddr at = addr_;
  char chunk[256];
  while (out.size() < max) {
    // Never cross a page in one copy: the byte after the NUL may be unmapped.
    size_t n = std::min({sizeof chunk, max - out.size(), static_cast<size_t>(kPageSize - at % kPageSize)});
    size_t got = m.CopyIn(chunk, at, n);
    if (const void* nul = memchr(chunk, 0, got)) {
      out.append(chunk, static_cast<const char*>(nul) - chunk);
      return out;
    }
    out.append(chunk, got);
    if (got != n) return kEFAULT;
    at += n;
  }
  return kENAMETOOLONG;
}

}  // namespace moat
