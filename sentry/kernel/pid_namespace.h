// Process ids: Pid is one identity (of a task, and so perhaps of a thread group, process group and session) with a
// number in each pid namespace from the one it was made in up to the root. A number is free again when nothing
// refers to it any more. Lock: the kernel's tree mutex (kKernel) for all state but what is constant.
// Source: pid_namespaces(7), setpgid(2), pidfd_open(2); Linux's struct pid.
#ifndef MOAT_SENTRY_KERNEL_PID_NAMESPACE_H_
#define MOAT_SENTRY_KERNEL_PID_NAMESPACE_H_

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "platform/base/mutex.h"
#include "platform/base/ref_ptr.h"
#include "platform/base/result.h"
#include "platform/cred/user_namespace.h"
#include "platform/fiber/wait_queue.h"

namespace moat {

class Kernel;
class PidNamespace;
class ProcessGroup;
class Session;
class Task;
class ThreadGroup;

class Pid : public RefCounted {
 public:
  struct Number {
    RefPtr<PidNamespace> ns;
    int32_t nr;
  };
  // --- constant after construction ---
  // Index is the level; the last one is the namespace that the task was made in.
  const std::vector<Number>& numbers() const { return numbers_; }
  PidNamespace& ns() const { return *numbers_.back().ns; }
  int32_t NrIn(const PidNamespace& ns) const;  // 0: not visible there
  int32_t nr() const { return numbers_.back().nr; }
  int32_t root_nr() const { return numbers_.front().nr; }
  uint64_t id() const { return id_; }  // never used twice; the inode number of a pidfd

  // --- guarded by the tree mutex; null when there is none (any more) ---
  Task* task = nullptr;
  ThreadGroup* thread_group = nullptr;  // as leader
  ProcessGroup* process_group = nullptr;
  Session* session = nullptr;

  // pidfd: EPOLLIN when the task (thread group, for a leader's) has ended.
  WaitQueue& wait_queue() { return wait_queue_; }

 private:
  friend class PidNamespace;
  Pid() = default;
  std::vector<Number> numbers_;
  uint64_t id_ = 0;
  WaitQueue wait_queue_;
};

class PidNamespace : public RefCounted {
 public:
  static RefPtr<PidNamespace> CreateRoot(RefPtr<UserNamespace> owner);
  // kENOSPC past 32 levels.
  static Result<RefPtr<PidNamespace>> CreateChild(RefPtr<PidNamespace> parent, RefPtr<UserNamespace> owner);

  PidNamespace* parent() const { return parent_.get(); }
  int level() const { return level_; }
  uint64_t id() const { return id_; }  // inode number of /proc/<pid>/ns/pid
  UserNamespace& owner() const { return *owner_; }
  bool IsAncestorOf(const PidNamespace& o) const;  // true for itself

  // Guarded by the tree mutex.
  // A new identity in this namespace and all above. `wanted` gives the numbers from the innermost outwards (clone3's
  // set_tid); the others are the next free ones. kEEXIST: taken; kEAGAIN: none free; kENOMEM: the namespace is dead.
  Result<RefPtr<Pid>> Allocate(std::span<const int32_t> wanted);
  Pid* Find(int32_t nr) const;
  // Frees the numbers when nothing refers to `pid` any more.
  static void ReleaseIfUnused(Pid& pid);
  // The thread group that is pid 1, or null.
  ThreadGroup* init() const;
  // After its init's death no process can be made in it.
  bool dying = false;
  // Tasks of it and of namespaces below that have not ended.
  int live_tasks = 0;
  // Visible processes in increasing order, thread group leaders only; for /proc.
  std::vector<int32_t> ThreadGroupIds() const;
  int32_t last_pid() const { return last_pid_; }
  void set_last_pid(int32_t nr) { last_pid_ = nr; }

  static constexpr int32_t kPidMax = 32768;

 private:
  friend RefPtr<PidNamespace> MakeRef<PidNamespace>();
  PidNamespace() = default;
  RefPtr<PidNamespace> parent_;
  RefPtr<UserNamespace> owner_;
  int level_ = 0;
  uint64_t id_ = 0;
  int32_t last_pid_ = 0;
  std::unordered_map<int32_t, RefPtr<Pid>> pids_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_PID_NAMESPACE_H_
