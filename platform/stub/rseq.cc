#include "platform/stub/rseq.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace moat::stub {

bool HostHasRseq() {
  // A registration that is refused for its length.
  static const bool has = syscall(SYS_rseq, nullptr, 0, 0, 0) != 0 && errno != ENOSYS;
  return has;
}

}  // namespace moat::stub
