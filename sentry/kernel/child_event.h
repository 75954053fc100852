// What a parent learns of a child's changes: SIGCHLD, and wait(2)'s wake-up. Source: wait(2), sigaction(2).
#ifndef MOAT_SENTRY_KERNEL_CHILD_EVENT_H_
#define MOAT_SENTRY_KERNEL_CHILD_EVENT_H_

#include "sentry/kernel/thread_group.h"

namespace moat {

// SIGCHLD's siginfo for `child` as `parent` sees it. With the tree mutex held.
SigInfo ChildSigInfo(ThreadGroup& child, ThreadGroup& parent, int signo, int code, int status);
// The same for one thread, as its tracer's group sees it.
SigInfo ThreadSigInfo(Task& thread, ThreadGroup& tracer, int code, int status);

// The group went on after a stop that was reported. Takes the tree mutex.
void ReportContinued(ThreadGroup& group);
// All tasks of the group are stopped. Takes the tree mutex.
void ReportStopped(ThreadGroup& group, int signo);

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_CHILD_EVENT_H_
