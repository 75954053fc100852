// System V semaphores. A set's operations are done all or not at all; who cannot go on waits on the set's queue.
// Adjustments of SEM_UNDO belong to the process and are given back when it ends. Source: semget(2), semop(2),
// semctl(2).
#ifndef MOAT_SENTRY_IPC_SEM_H_
#define MOAT_SENTRY_IPC_SEM_H_

#include <sys/sem.h>

#include <map>
#include <vector>

#include "platform/fiber/wait_queue.h"
#include "sentry/ipc/ipc_table.h"

namespace moat {

class IpcNamespace;
class Task;
class ThreadGroup;

struct SemSet final : RefCounted {
  IpcPerm perm;
  int id = 0;
  bool removed = false;
  struct Semaphore {
    int value = 0;
    int32_t last_pid = 0;  // in the root pid namespace
    int waiting_more = 0, waiting_zero = 0;
  };
  std::vector<Semaphore> sems;
  int64_t otime = 0, ctime = 0;
  // Adjustments of SEM_UNDO by process.
  std::map<ThreadGroup*, std::vector<int>> undo;
  WaitQueue queue;
};

class SemTable final : public RefCounted {
 public:
  static constexpr int kMaxSets = 32000;  // SEMMNI
  explicit SemTable(const UserNamespace& owner) : table_(owner, kMaxSets) {}
  static RefPtr<SemTable> Of(IpcNamespace& ns);

  static constexpr int kMaxPerSet = 32000, kMaxOps = 500, kMaxValue = 32767;

  Result<int> Get(Task& t, int32_t key, int count, int flags);
  // The set, for waiting. kEINVAL.
  Result<RefPtr<SemSet>> Find(int id);
  // Tries the operations. kEAGAIN when the caller has to wait: `*blocked` is the operation that stopped it.
  Result<void> Operate(Task& t, SemSet& set, const std::vector<sembuf>& ops, size_t* blocked);
  // While a caller waits for an operation (GETNCNT, GETZCNT).
  void NoteWaiting(SemSet& set, const sembuf& op, int change);

  Result<semid_ds> Stat(Task& t, int id, bool by_index, bool check, int* id_out);
  Result<void> Set(Task& t, int id, const semid_ds& ds);
  Result<void> Remove(Task& t, int id);
  // GETVAL, GETPID, GETNCNT, GETZCNT.
  Result<int> GetOne(Task& t, int id, int number, int command);
  Result<void> SetValue(Task& t, int id, int number, int value);
  Result<std::vector<uint16_t>> GetAll(Task& t, int id);
  Result<void> SetAll(Task& t, int id, const std::vector<uint16_t>& values);
  Result<int> Count(int id);
  struct Totals {
    int sets, semaphores, highest_index;
  };
  Totals GetTotals();

  void ProcessEnds(ThreadGroup& group);

 private:
  IpcTable<SemSet> table_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_IPC_SEM_H_
