#include "platform/base/errno.h"

namespace moat {

std::string_view ErrnoName(Errno e) {
  switch (e) {
    case Errno::kOK:
      return "OK";
#define MOAT_ERRNO(name) \
  case Errno::k##name:   \
    return #name;
#include "platform/base/errno.inc"
#undef MOAT_ERRNO
    case Errno::kERESTARTSYS:
      return "ERESTARTSYS";
    case Errno::kERESTARTNOINTR:
      return "ERESTARTNOINTR";
    case Errno::kERESTARTNOHAND:
      return "ERESTARTNOHAND";
    case Errno::kERESTART_RESTARTBLOCK:
      return "ERESTART_RESTARTBLOCK";
  }
  return "E?";
}

}  // namespace moat
