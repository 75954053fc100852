// Waiting for several files at once: the engine of poll(2) and select(2).
#ifndef MOAT_SENTRY_SYSCALLS_POLL_WAIT_H_
#define MOAT_SENTRY_SYSCALLS_POLL_WAIT_H_

#include <vector>

#include "fs/vfs/file.h"
#include "platform/abi/time.h"
#include "platform/fiber/clock.h"
#include "sentry/kernel/signals.h"
#include "sentry/syscalls/argument_types.h"

namespace moat {

struct PollEntry {
  RefPtr<File> file;  // null: skipped; `ready` keeps what the caller put there
  EventMask interest = 0;
  EventMask ready = 0;
};

// Fills in `ready` of each entry and returns how many have any; 0 when `deadline` passed first. kERESTARTSYS on a
// signal. An entry without a file and with `ready` set counts (POLLNVAL).
Result<int64_t> PollWait(Task& t, std::vector<PollEntry>& entries, Deadline deadline);

// The deadline of a relative timeout; kNoDeadline for a null pointer. kEINVAL.
Result<Deadline> ReadTimeout(Task& t, UserIn<abi::Timespec> timeout);
// What is left until `deadline` goes back to the guest, as select, pselect6 and ppoll do; faults are ignored.
void WriteTimeLeft(Task& t, GuestAddr timeout, Deadline deadline);
// The temporary signal mask of ppoll, pselect6 and epoll_pwait; null: none. kEINVAL for another size than 8.
Result<void> ApplyTemporaryMask(Task& t, UserIn<uint64_t> mask, size_t size);

}  // namespace moat

#endif  // MOAT_SENTRY_SYSCALLS_POLL_WAIT_H_
