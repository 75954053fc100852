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
  explicit Session(RefPtr<Pid> id);
  Pid& id() const { return *id_; }
  // Null when there is none.
  RefPtr<Tty> controlling_tty;
  // The leader, until it exits.
  ThreadGroup* leader = nullptr;
  // What a hung-up or lost terminal leaves: SIGHUP goes to this group when the leader exits later.
  RefPtr<Pid> old_foreground;
  // Its last process group is gone: the id is free again. (The object may live on in references.)
  void GroupAdded() { ++groups_; }
  void GroupGone();

 private:
  const RefPtr<Pid> id_;
  int groups_ = 0;
};

class ProcessGroup : public RefCounted {
 public:
  ProcessGroup(RefPtr<Pid> id, RefPtr<Session> session);
  Pid& id() const { return *id_; }
  Session& session() const { return *session_; }
  const std::vector<ThreadGroup*>& members() const { return members_; }
  void Add(ThreadGroup& g) { members_.push_back(&g); }
  // The last one's leaving ends the group: its id is free again.
  void Remove(ThreadGroup& g);
  // No member has a parent in another group of the same session. `without`: as if that one had already left.
  bool IsOrphaned(const ThreadGroup* without = nullptr) const;
  bool HasStoppedMember() const;

 private:
  const RefPtr<Pid> id_;
  const RefPtr<Session> session_;
  std::vector<ThreadGroup*> members_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_PROCESS_GROUP_H_
