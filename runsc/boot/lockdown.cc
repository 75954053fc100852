#include "runsc/boot/lockdown.h"

#include <malloc.h>
#include <time.h>

#include "platform/base/log.h"
#include "runsc/error/error.h"
#include "runsc/seccomp/filters.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MOAT_SANITIZED 1
#endif

namespace moat {

void PrepareLibraries() {
  // One arena: further ones ask for the number of CPUs (a file) and grow with mprotect.
  mallopt(M_ARENA_MAX, 1);
  // Fixed thresholds: the automatic ones turn mmap and munmap into mremap and back.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
  tzset();  // would open a file at the first use
}

absl::Status LockDown(int log_fd) {
#ifdef MOAT_SANITIZED
  MOAT_LOG(kWarning, "a sanitizer build: the sentry's seccomp filter is not loaded");
  return absl::OkStatus();
#else
  InstallViolationHandler("sentry", log_fd);
  if (int error = LoadFilter(kSentryFilter); error != 0)
    return Failed("load the sentry's seccomp filter: {}", ErrnoText(error));
  return absl::OkStatus();
#endif
}

}  // namespace moat
