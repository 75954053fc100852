// Source: include/uapi/linux/rseq.h.
#include "sentry/kernel/rseq.h"
#include "sentry/syscalls/handlers.h"

namespace moat {

Result<int64_t> SysRseq(Task& t, GuestAddr area, uint32_t length, int flags, uint32_t signature) {
  TRY(rseq::Call(t, area, length, flags, signature));
  return 0;
}

}  // namespace moat
