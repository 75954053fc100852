// What signalfd(2) reads: the pending signals of the calling task.
#ifndef MOAT_SENTRY_KERNEL_SIGNAL_SOURCE_H_
#define MOAT_SENTRY_KERNEL_SIGNAL_SOURCE_H_

#include "sentry/kernel/task.h"

namespace moat {

// Tells fs/anon how to reach the calling task's signals. Once, at boot.
void InstallSignalSource();

// Takes one pending signal of `wanted` from the task or its group; 0 when there is none. Own carrier.
int DequeueSignal(Task& t, SignalSet wanted, SigInfo* info);

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_SIGNAL_SOURCE_H_
