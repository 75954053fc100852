// FdTable: file descriptors of a task (shared by CLONE_FILES). Reads take no lock on the fast path.
#ifndef MOAT_SENTRY_KERNEL_FD_TABLE_H_
#define MOAT_SENTRY_KERNEL_FD_TABLE_H_

#include <atomic>
#include <vector>

#include "fs/vfs/file.h"
#include "platform/base/mutex.h"

namespace moat {

class FdTable : public RefCounted {
 public:
  static RefPtr<FdTable> Create();
  // fork: a copy of all descriptors.
  RefPtr<FdTable> Clone() const;
  ~FdTable() override;

  // The file, or null. `cloexec` may be null.
  RefPtr<File> Get(int fd, bool* cloexec = nullptr) const;
  // The same for a task that uses this table: without the lock while it is the only one that does.
  RefPtr<File> GetOwn(int fd) const;
  // Tasks that use the table (CLONE_FILES); whoever changes descriptors is one of them, or the table's creator.
  void AddUser() { users_.fetch_add(1, std::memory_order_relaxed); }
  // True for the last one, who then closes what is open.
  bool DropUser() { return users_.fetch_sub(1, std::memory_order_acq_rel) == 1; }
  bool shared() const { return users_.load(std::memory_order_relaxed) > 1; }
  // The lowest free descriptor >= `min`; kEMFILE at `limit` (RLIMIT_NOFILE), kEINVAL for min >= limit (F_DUPFD).
  Result<int> Install(RefPtr<File> file, bool cloexec, uint64_t limit, int min = 0);
  // dup2: puts `file` at `fd`; returns what stood there (the caller flushes and drops it outside of locks).
  Result<RefPtr<File>> InstallAt(int fd, RefPtr<File> file, bool cloexec, uint64_t limit);
  // Takes `fd` out; null if it was not open.
  RefPtr<File> Remove(int fd);
  Result<void> SetCloexec(int fd, bool on);
  std::vector<RefPtr<File>> RemoveRange(unsigned first, unsigned last);
  void SetCloexecRange(unsigned first, unsigned last);
  std::vector<RefPtr<File>> RemoveCloexec();  // execve
  std::vector<RefPtr<File>> RemoveAll();      // exit
  std::vector<int> OpenFds() const;           // for /proc/<pid>/fd
  int Capacity() const;                       // FDSize of /proc/<pid>/status

 private:
  FdTable() = default;
  friend RefPtr<FdTable> MakeRef<FdTable>();
  struct Slot {
    RefPtr<File> file;
    bool cloexec = false;
  };
  int FindFreeLocked(int min) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PutLocked(int fd, RefPtr<File> file, bool cloexec) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  template <typename Select>
  std::vector<RefPtr<File>> RemoveIf(size_t first, size_t end, Select select);
  RefPtr<File> TakeLocked(int fd) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable Mutex mu_{LockRank::kFdTable};
  std::atomic<int> users_{0};
  // Changed with mu_ held; read without by the only user (GetOwn).
  std::vector<Slot> slots_;
  std::vector<uint64_t> used_ ABSL_GUARDED_BY(mu_);  // one bit per slot
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_FD_TABLE_H_
