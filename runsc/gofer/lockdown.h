// What a gofer gives up before it serves its first request.
#ifndef MOAT_RUNSC_GOFER_LOCKDOWN_H_
#define MOAT_RUNSC_GOFER_LOCKDOWN_H_

#include "platform/base/result.h"

namespace moat::gofer {

// Raises the soft RLIMIT_NOFILE and RLIMIT_FSIZE as far as they go: every object that the sentry knows is a descriptor
// here. (Who starts the gofer raises the hard one before: runsc/sandbox/confine.cc.)
void RaiseFileLimits();

// Keeps the capabilities that file access on behalf of the container's root needs, drops all others from all
// sets and sets no_new_privs. Per thread: to be called before other threads exist.
Result<void> DropCapabilities();

}  // namespace moat::gofer

#endif  // MOAT_RUNSC_GOFER_LOCKDOWN_H_
