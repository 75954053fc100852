// FdTable: file descriptors of a task (shared by CLONE_FILES). Reads take no lock on the fast path.
#ifndef MOAT_SENTRY_KERNEL_FD_TABLE_H_
#define MOAT_SENTRY_KERNEL_FD_TABLE_H_

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
  FdTable();
  struct Impl;
  Impl* impl_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_KERNEL_FD_TABLE_H_
