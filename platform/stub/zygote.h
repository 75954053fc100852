// The zygote: a process with nothing but the trampoline, from which stubs are cloned. It shares its descriptor table
// with the sentry (CLONE_FILES), so that a stub can map the memory file and donated files by the sentry's numbers.
// Made before the sentry's lockdown; dies with the sentry.
#ifndef MOAT_PLATFORM_STUB_ZYGOTE_H_
#define MOAT_PLATFORM_STUB_ZYGOTE_H_

#include <sys/types.h>

#include "platform/base/result.h"

struct sock_fprog;

namespace moat::stub {

// `filter`: what zygote and stubs may call; null: no filter. Its pid; it idles, untraced, once it has unmapped itself.
Result<pid_t> StartZygote(const sock_fprog* filter);

}  // namespace moat::stub

#endif  // MOAT_PLATFORM_STUB_ZYGOTE_H_
