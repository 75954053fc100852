// Source: restart_syscall(2).
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/restart_calls.h"

namespace moat {

Result<int64_t> SysRestartSyscall(Task& t) {
  const RestartBlock block = t.restart_block();
  t.restart_block() = {};
  switch (block.kind) {
    case RestartBlock::Kind::kNanosleep:
      return RestartNanosleep(t, block);
    case RestartBlock::Kind::kPoll:
      return RestartPoll(t, block);
    case RestartBlock::Kind::kFutexWait:
      return RestartFutexWait(t, block);
    case RestartBlock::Kind::kNone:
      break;
  }
  return kEINTR;
}

}  // namespace moat
