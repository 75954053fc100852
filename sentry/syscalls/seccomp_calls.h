// The two doors to a task's seccomp state, seccomp(2) and prctl(2), share these bodies.
#ifndef MOAT_SENTRY_SYSCALLS_SECCOMP_CALLS_H_
#define MOAT_SENTRY_SYSCALLS_SECCOMP_CALLS_H_

#include "sentry/syscalls/argument_types.h"

namespace moat {

Result<int64_t> SetSeccompStrict(Task& t);
// `flags`: SECCOMP_FILTER_FLAG_*; `program_at`: struct sock_fprog of the guest.
Result<int64_t> SetSeccompFilter(Task& t, uint32_t flags, GuestAddr program_at);

}  // namespace moat

#endif  // MOAT_SENTRY_SYSCALLS_SECCOMP_CALLS_H_
