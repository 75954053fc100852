// The prototypes of all handlers, made from syscalls.inc. Bodies: sys_<topic>.cc, which include this header.
#ifndef MOAT_SENTRY_SYSCALLS_HANDLERS_H_
#define MOAT_SENTRY_SYSCALLS_HANDLERS_H_

#include "sentry/syscalls/argument_types.h"

namespace moat {

#define MOAT_ARGUMENTS(...) __VA_OPT__(, ) __VA_ARGS__
#define SYSCALL(number, name, handler, types) Result<int64_t> handler(Task& MOAT_ARGUMENTS types);
#define PARTIAL(number, name, handler, note, types) Result<int64_t> handler(Task& MOAT_ARGUMENTS types);
#define MISSING(number, name, error, note)
#include "sentry/syscalls/syscalls.inc"
#undef SYSCALL
#undef PARTIAL
#undef MISSING
#undef MOAT_ARGUMENTS

}  // namespace moat

#endif  // MOAT_SENTRY_SYSCALLS_HANDLERS_H_
