// Which pages of the memory file have memory behind them: what resident sets and mincore(2) are made of.
#ifndef MOAT_SENTRY_MM_COMMITTED_H_
#define MOAT_SENTRY_MM_COMMITTED_H_

#include <vector>

#include "absl/functional/function_ref.h"
#include "platform/memory/memory_file.h"

namespace moat {

// Calls `visit` for each piece of `range` in the memory file `fd`, in order; the number of questions to the host that
// it took, `max_probes` at most.
int VisitCommitted(int fd, FileRange range, int max_probes, absl::FunctionRef<void(FileRange)> visit);

// Bytes of all of `ranges` with memory behind them, each range counted for itself, by few questions: those that lie
// near each other, as after copy-on-write here and there, are asked about as one.
uint64_t CountCommitted(int fd, std::vector<FileRange> ranges, int max_probes);

}  // namespace moat

#endif  // MOAT_SENTRY_MM_COMMITTED_H_
