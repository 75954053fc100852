// Making tasks: clone(2), clone3(2), fork(2), vfork(2); and the namespaces that clone and unshare(2) make.
#ifndef MOAT_SENTRY_KERNEL_TASK_CLONE_H_
#define MOAT_SENTRY_KERNEL_TASK_CLONE_H_

#include <vector>

#include "sentry/kernel/thread_group.h"

namespace moat {

// Checked against each other by Clone; taken from the guest once.
struct CloneRequest {
  uint64_t flags = 0;  // CLONE_* without the signal
  int exit_signal = 0;
  GuestAddr stack = 0;  // the child's stack pointer; 0: the parent's
  GuestAddr tls = 0;
  GuestAddr parent_tid = 0;
  GuestAddr child_tid = 0;
  GuestAddr pidfd = 0;
  std::vector<int32_t> set_tid;
};

// The namespaces and credentials that a task with new CLONE_NEW* namespaces gets. Null: unchanged.
struct NewNamespaces {
  RefPtr<const Credentials> cred;
  RefPtr<MountNamespace> mount;
  RefPtr<PidNamespace> pid_for_children;
  RefPtr<UtsNamespace> uts;
  RefPtr<IpcNamespace> ipc;
  RefPtr<NetNamespace> net;
  RefPtr<CgroupNamespace> cgroup;
};
// Makes what `flags` ask for. `fs` (root and working directory) is moved into a new mount namespace. kEPERM without
// the capability; kENOSPC: nested too deep; kEUSERS.
Result<NewNamespaces> MakeNamespaces(Task& t, uint64_t flags, FsContext& fs);

// The child's id in the caller's pid namespace. Waits for a vfork child.
Result<int32_t> CloneTask(Task& t, const CloneRequest& request);

class TaskCloner {
 public:
  // A task that is not in the tree yet.
  static RefPtr<Task> NewTask(Kernel& kernel) { return AdoptRef(new Task(kernel)); }
  static Result<int32_t> Run(Task& t, const CloneRequest& request);
  // Enters `child` into the process tree. With the tree mutex held. `parent` null: a container's process.
  static Result<void> LinkLocked(Task& child, RefPtr<ThreadGroup> group, Task* parent, PidNamespace& ns,
                                 std::span<const int32_t> set_tid);
  static void CountTask(Kernel& kernel, Task& t);
  // Starts what LinkLocked entered, or takes it out again.
  static Result<void> Start(Task& child);

 private:
  static Result<void> Check(Task& t, const CloneRequest& request);
  static Result<void> ShareOrCopy(Task& t, Task& child, const CloneRequest& request);
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_TASK_CLONE_H_
