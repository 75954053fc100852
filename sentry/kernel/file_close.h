// The close of a descriptor, wherever it happens: close(2), dup2(2), execve(2), exit(2). Source: close(2), fcntl(2).
#ifndef MOAT_SENTRY_KERNEL_FILE_CLOSE_H_
#define MOAT_SENTRY_KERNEL_FILE_CLOSE_H_

#include <vector>

#include "fs/vfs/file.h"

namespace moat {

class Task;

// Flushes `file`, drops the POSIX locks that ctx.pid holds on it, and lets the reference go. Call without locks.
// The error is the flush's: close(2) reports it, and the descriptor is gone all the same.
Result<void> CloseFile(const VfsContext& ctx, RefPtr<File> file);
void CloseFiles(const VfsContext& ctx, std::vector<RefPtr<File>> files);
// execve(2), unshare(CLONE_FILES), close_range(CLOSE_RANGE_UNSHARE): gives the calling task a table of its own, if it
// shares one.
void UnshareFdTable(Task& t);

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_FILE_CLOSE_H_
