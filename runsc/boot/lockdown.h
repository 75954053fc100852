// The sentry gives up what it does not need any more: from here on only the host calls of the lists are possible.
#ifndef MOAT_RUNSC_BOOT_LOCKDOWN_H_
#define MOAT_RUNSC_BOOT_LOCKDOWN_H_

#include "absl/status/status.h"
#include "runsc/seccomp/filters.h"

namespace moat {

// Settings of the C library that keep its host calls few; before any other thread exists.
void PrepareLibraries();

// Loads `filter` for all threads. In sanitizer builds it loads none: their runtimes call the host as they please.
absl::Status LockDown(const FilterProgram& filter, int log_fd);

}  // namespace moat

#endif  // MOAT_RUNSC_BOOT_LOCKDOWN_H_
