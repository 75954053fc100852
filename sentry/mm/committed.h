// Which pages of the memory file have memory behind them: what resident sets and mincore(2) are made of.
#ifndef MOAT_SENTRY_MM_COMMITTED_H_
#define MOAT_SENTRY_MM_COMMITTED_H_

#include "absl/functional/function_ref.h"
#include "platform/memory/memory_file.h"

namespace moat {

// Calls `visit` for each piece of `range`, in order; the number of host calls that it took, `max_probes` at most. With
// `exact`, pages that were there from the start and are still all zeros are left out: nobody has touched them, or to no
// effect. That reads them.
int VisitCommitted(MemoryFile& memory, FileRange range, bool exact, int max_probes,
                   absl::FunctionRef<void(FileRange)> visit);

}  // namespace moat

#endif  // MOAT_SENTRY_MM_COMMITTED_H_
