// Restartable sequences: rseq(2), which has no manual page; include/uapi/linux/rseq.h and kernel/rseq.c say what it is.
//
// The host kernel does the work (Context::SetRseq): only it knows when it preempts a guest thread. Where the sentry
// itself takes a thread out of guest code, it aborts the critical section as the kernel would.
#ifndef MOAT_SENTRY_KERNEL_RSEQ_H_
#define MOAT_SENTRY_KERNEL_RSEQ_H_

#include "sentry/kernel/task.h"

namespace moat::rseq {

// The system call. kEINVAL, kEPERM, kEBUSY, kEFAULT; kENOSYS: the platform cannot.
Result<void> Call(Task& t, GuestAddr area, uint32_t length, int flags, uint32_t signature);

// The task leaves guest code other than by a call, or goes to a signal handler: inside of a critical section it goes on
// at the section's abort address. Sections that are malformed end the process with SIGSEGV, as on Linux. Own carrier.
void Abort(Task& t);

// Whether the host kernel must have failed at the task's area or section: what Linux ends the process for, with SIGSEGV.
bool Broken(Task& t);

// fork(2): the child has its parent's registration.
Result<void> Inherit(Task& parent, Task& child);
// execve(2) and exit: the address space is about to be left. Before anybody is told that the thread's memory is free.
void Leave(Task& t);

}  // namespace moat::rseq

#endif  // MOAT_SENTRY_KERNEL_RSEQ_H_
