// The zygote: a process with nothing but the trampoline, from which stubs are cloned on orders in its mailbox. It
// shares its descriptor table with the sentry, so that stubs map the memory file and donated files by the sentry's
// numbers, and their listeners appear in the sentry's table. Made before the sentry's lockdown; dies with the sentry.
#ifndef MOAT_PLATFORM_SYSTRAP_ZYGOTE_H_
#define MOAT_PLATFORM_SYSTRAP_ZYGOTE_H_

#include <sys/types.h>

#include "platform/base/result.h"

struct sock_fprog;

namespace moat::systrap_platform {

// `filter`: what zygote and stubs may call; null: no filter. `mailbox_fd`: a file whose first page is the Mailbox.
Result<pid_t> StartZygote(const sock_fprog* filter, int mailbox_fd);

}  // namespace moat::systrap_platform

#endif  // MOAT_PLATFORM_SYSTRAP_ZYGOTE_H_
