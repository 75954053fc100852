// Whether a stub or the zygote still lives. Source: pidfd_open(2).
#ifndef MOAT_PLATFORM_STUB_LIVENESS_H_
#define MOAT_PLATFORM_STUB_LIVENESS_H_

#include <sys/types.h>

namespace moat::stub {

// True also for a process that has ended and waits to be reaped. Any thread.
bool IsDead(pid_t pid);

}  // namespace moat::stub

#endif  // MOAT_PLATFORM_STUB_LIVENESS_H_
