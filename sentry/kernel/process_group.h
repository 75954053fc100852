// Process groups and sessions. Guarded by the kernel's tree mutex (kKernel) throughout.
// Source: setpgid(2), setsid(2), credentials(7), tty_ioctl(4).
#ifndef MOAT_SENTRY_KERNEL_PROCESS_GROUP_H_
#define MOAT_SENTRY_KERNEL_PROCESS_GROUP_H_

#include <vector>

#include "fs/vfs/tty_job_control.h"
#include "platform/base/ref_ptr.h"
#include "sentry/kernel/pid_namespace.h"

namespace moat {

class Session : public RefCounted {
 public:
  Session(Kernel& kernel, RefPtr<Pid> id);
  ~Session() override;
  Pid& id() const { return *id_; }
  // Null when there is none.
  RefPtr<Tty> controlling_tty;
  // The leader, until it exits.
  ThreadGroup* leader = nullptr;
  // What a hung-up or lost terminal leaves: SIGHUP goes to this group when the leader exits later.
  RefPtr<Pid> old_foreground;

 private:
  Kernel& kernel_;
  const RefPtr<Pid> id_;
};

class ProcessGroup : public RefCounted {
 public:
  ProcessGroup(Kernel& kernel, RefPtr<Pid> id, RefPtr<Session> session);
  ~ProcessGroup() override;
  Pid& id() const { return *id_; }
  Session& session() const { return *session_; }
  const std::vector<ThreadGroup*>& members() const { return members_; }
  void Add(ThreadGroup& g) { members_.push_back(&g); }
  void Remove(ThreadGroup& g);
  // No member has a parent in another group of the same session. `without`: as if that one had already left.
  bool IsOrphaned(const ThreadGroup* without = nullptr) const;
  bool HasStoppedMember() const;

 private:
  Kernel& kernel_;
  const RefPtr<Pid> id_;
  const RefPtr<Session> session_;
  std::vector<ThreadGroup*> members_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_PROCESS_GROUP_H_
