// Reading and writing a file description for a system call: waits where the description is in blocking mode, and
// keeps partial results. Used by read(2) and its kin, sendfile and splice.
#ifndef MOAT_SENTRY_SYSCALLS_FILE_IO_H_
#define MOAT_SENTRY_SYSCALLS_FILE_IO_H_

#include "fs/vfs/file.h"
#include "sentry/kernel/task.h"

namespace moat {

// Where in the file: the description's own offset, or a given one.
struct IoPosition {
  bool explicit_offset = false;
  int64_t offset = 0;
};

// `may_block` false: RWF_NOWAIT.
Result<int64_t> ReadFile(Task& t, File& file, IoDest& dst, IoPosition at = {}, bool may_block = true);
// What a failed write costs besides its error: SIGPIPE with kEPIPE, SIGXFSZ with kEFBIG at the file size limit.
void RaiseWriteSignal(Task& t, Errno e);
// With that signal.
Result<int64_t> WriteFile(Task& t, File& file, IoSource& src, IoPosition at = {}, bool may_block = true);

}  // namespace moat

#endif  // MOAT_SENTRY_SYSCALLS_FILE_IO_H_
