#include "runsc/boot/lockdown.h"

#include <malloc.h>
#include <signal.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "platform/base/log.h"
#include "platform/fiber/thread.h"
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
  // A thread inherits from its creator whether it registers itself for restartable sequences, and ends the process
  // when that fails then: the first one withdraws, so that none asks (rseq(2), glibc's pthread_create).
  if (__rseq_size != 0) {
    // The area was registered with the size of the first ABI, whatever part of it is in use.
    unsigned size = std::max(32u, static_cast<unsigned>(__rseq_size));
    if (syscall(SYS_rseq, static_cast<char*>(__builtin_thread_pointer()) + __rseq_offset, size, RSEQ_FLAG_UNREGISTER,
                RSEQ_SIG) != 0)
      MOAT_LOG(kWarning, "cannot withdraw from restartable sequences: {}", ErrnoText(errno));
  }
  tzset();  // would open a file at the first use
}

absl::Status LockDown(const FilterProgram& filter, int log_fd) {
#ifdef MOAT_SANITIZED
  MOAT_LOG(kWarning, "a sanitizer build: the sentry's seccomp filter is not loaded");
  return absl::OkStatus();
#else
  // What HostThread gives its threads; the list has no rt_sigprocmask, so threads made later inherit it from here.
  const sigset_t blocked = HostThread::BlockedSignals();
  sigprocmask(SIG_SETMASK, &blocked, nullptr);
  InstallViolationHandler("sentry", log_fd);
  if (int error = LoadFilter(filter); error != 0)
    return Failed("load the sentry's seccomp filter: {}", ErrnoText(error));
  return absl::OkStatus();
#endif
}

}  // namespace moat
