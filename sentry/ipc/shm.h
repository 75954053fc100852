// System V shared memory. A segment's bytes are a SharedMemory that mappings keep alive; a removed segment goes from
// the table when nobody has it mapped. Source: shmget(2), shmop(2), shmctl(2).
#ifndef MOAT_SENTRY_IPC_SHM_H_
#define MOAT_SENTRY_IPC_SHM_H_

#include <sys/shm.h>

#include "sentry/ipc/ipc_table.h"
#include "sentry/mm/shared_memory.h"

namespace moat {

class IpcNamespace;
class Task;

struct ShmSegment final : RefCounted {
  IpcPerm perm;
  int id = 0;
  bool removed = false;
  RefPtr<SharedMemory> memory;
  uint64_t size = 0;  // as asked for
  int64_t atime = 0, dtime = 0, ctime = 0;
  int32_t creator = 0, last = 0;  // ids in the root pid namespace
};

class ShmTable final : public RefCounted {
 public:
  static constexpr int kMaxSegments = 4096;  // SHMMNI
  explicit ShmTable(const UserNamespace& owner) : table_(owner, kMaxSegments) {}
  static RefPtr<ShmTable> Of(IpcNamespace& ns);

  Result<int> Get(Task& t, int32_t key, size_t size, int flags);
  Result<GuestAddr> Attach(Task& t, int id, GuestAddr addr, int flags);
  Result<void> Detach(Task& t, GuestAddr addr);
  Result<shmid_ds> Stat(Task& t, int id, bool by_index, bool check, int* id_out);
  Result<void> Set(Task& t, int id, const shmid_ds& ds);
  Result<void> Remove(Task& t, int id);
  Result<void> Lock(Task& t, int id, bool lock);
  struct Totals {
    int count, highest_index;
    uint64_t pages;
  };
  Totals GetTotals();

 private:
  // Segments that were removed while attached and are attached no more.
  void Sweep(std::vector<RefPtr<ShmSegment>>& dropped) ABSL_EXCLUSIVE_LOCKS_REQUIRED(table_.mutex());
  IpcTable<ShmSegment> table_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_IPC_SHM_H_
