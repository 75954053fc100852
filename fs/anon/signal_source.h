// What signalfd(2) needs from the signals of tasks, which live in sentry/kernel.
//
// The sentry implements SignalSource for the task that runs on the calling thread, installs the accessor at boot,
// and calls NotifySignalQueued after each signal that became pending for any task (cheap while no signalfd exists).
#ifndef MOAT_FS_ANON_SIGNAL_SOURCE_H_
#define MOAT_FS_ANON_SIGNAL_SOURCE_H_

#include <cstdint>

#include "platform/abi/event.h"

namespace moat {

class SignalSource {
 public:
  virtual ~SignalSource() = default;
  // Signals pending for the task or its thread group; bit n-1 is signal n.
  virtual uint64_t PendingSignals() = 0;
  // Takes one pending signal of `mask` (the task's own before the group's, lowest number first) and fills in `info`.
  // False when there is none.
  virtual bool DequeueSignal(uint64_t mask, abi::SignalfdSiginfo& info) = 0;
};

// The calling task's source; null on threads that run no task. The pointer is good for the current call.
using CurrentSignalSourceFn = SignalSource* (*)();
void SetCurrentSignalSource(CurrentSignalSourceFn fn);

// A signal became pending for some task: wakes the waiters of every signalfd that wants it. May be called with locks
// up to kSignal's rank held.
void NotifySignalQueued(int signo);

}  // namespace moat

#endif  // MOAT_FS_ANON_SIGNAL_SOURCE_H_
