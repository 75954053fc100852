// Second halves of calls that restart_syscall(2) continues.
#ifndef MOAT_SENTRY_SYSCALLS_RESTART_CALLS_H_
#define MOAT_SENTRY_SYSCALLS_RESTART_CALLS_H_

#include "sentry/kernel/task.h"

namespace moat {

Result<int64_t> RestartNanosleep(Task& t, const RestartBlock& block);  // sys_time.cc
Result<int64_t> RestartPoll(Task& t, const RestartBlock& block);       // sys_poll.cc
Result<int64_t> RestartFutexWait(Task& t, const RestartBlock& block);  // sys_futex.cc

}  // namespace moat

#endif  // MOAT_SENTRY_SYSCALLS_RESTART_CALLS_H_
