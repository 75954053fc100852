// Advisory locks of one inode: flock(2), POSIX byte ranges, open-file-description ranges, leases.
//
// Nothing here blocks: a conflicting request answers kEAGAIN, and wait_queue() is notified (EPOLLIN) when a lock
// goes; BlockingOp tries again. A waiting POSIX request says so (`wait`), so that a cycle of waiters is answered with
// kEDEADLK; StopWaiting ends that, however the wait ended. Thread-safe. Lock: kFileLocks.
// Source: flock(2), fcntl(2) "Advisory record locking", "Open file description locks", "Leases".
#ifndef MOAT_FS_VFS_FILE_LOCKS_H_
#define MOAT_FS_VFS_FILE_LOCKS_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "platform/base/mutex.h"
#include "platform/base/ref_ptr.h"
#include "platform/base/result.h"
#include "platform/fiber/clock.h"
#include "platform/fiber/wait_queue.h"

namespace moat {

class File;
class Inode;

// Whose lock: a process (POSIX, by its thread group id in the root pid namespace) or an open file description.
struct LockOwner {
  const File* file = nullptr;  // OFD and flock owners
  int32_t pid = 0;             // POSIX owners; what F_GETLK reports (-1 for an OFD lock)
  static LockOwner Process(int32_t pid) { return {nullptr, pid}; }
  static LockOwner Description(const File* f) { return {f, -1}; }
  bool operator==(const LockOwner&) const = default;
};

inline constexpr uint64_t kLockToEnd = ~uint64_t{0};

// [start, end]: `end` inclusive, kLockToEnd for "to the end of the file however it grows".
struct RangeLock {
  uint64_t start = 0, end = kLockToEnd;
  bool exclusive = false;
  LockOwner owner;
};

class FileLockList {
 public:
  FileLockList();
  ~FileLockList();

  // F_SETLK. Replaces what the owner holds in the range. kEAGAIN on a conflict; with `wait`, kEDEADLK when waiting for
  // it would close a cycle of POSIX owners.
  Result<void> SetRange(const RangeLock& lock, bool wait);
  // F_UNLCK.
  void ClearRange(uint64_t start, uint64_t end, const LockOwner& owner);
  // F_GETLK: a lock that conflicts with `lock`, or false.
  bool FindConflict(const RangeLock& lock, RangeLock* found) const;
  // The owner no longer waits for a range (granted, interrupted, timed out).
  static void StopWaiting(const LockOwner& owner);
  // close(2) of any descriptor of the file by the process.
  void ReleaseProcess(int32_t pid);

  // flock(2): one lock per file description. A conversion drops the old lock first, as Linux does.
  // `pid`: for /proc/locks.
  Result<void> Flock(const File* file, bool exclusive, int32_t pid = 0);
  void Unflock(const File* file);
  // The description goes away: its flock, OFD ranges and lease go too.
  void ReleaseDescription(const File* file);

  // F_SETLEASE / F_GETLEASE: F_RDLCK, F_WRLCK or F_UNLCK. `opens` describes the other open descriptions: kEAGAIN.
  Result<void> SetLease(File* file, int type, int32_t pid = 0);
  int GetLease(const File* file) const;  // F_UNLCK: none
  // An open or truncate that conflicts: asks the holders to give way (they get a signal through the breaker) and
  // answers kEAGAIN until they did, or until /proc/sys/fs/lease-break-time has passed.
  Result<void> BreakLeases(bool for_write);
  // When the first holder that was asked runs out of time; kNoDeadline. False: nobody is being asked.
  bool BreakPending(Deadline* deadline);

  WaitQueue& wait_queue() { return wait_queue_; }

  struct Info {  // /proc/locks
    enum Kind { kFlock, kPosix, kOfd, kLease } kind;
    bool exclusive;
    int32_t pid;  // of whose lock; -1 for one of a description
    uint64_t start, end;
    bool breaking = false;  // a lease that its holder was asked for
  };
  std::vector<Info> Snapshot() const;

 private:
  struct Lease {
    File* file;
    int type;           // now
    int target;         // what a break asks for; == type when none is pending
    Deadline deadline;  // of the break
    int32_t pid;
  };
  struct FlockEntry {
    const File* file;
    bool exclusive;
    int32_t pid;
  };
  const RangeLock* ConflictLocked(const RangeLock& lock) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ExpireLeasesLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // True when something was removed.
  bool CutLocked(uint64_t start, uint64_t end, const LockOwner& owner) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable Mutex mu_{LockRank::kFileLocks};
  std::vector<RangeLock> ranges_ ABSL_GUARDED_BY(mu_);  // sorted by start
  std::vector<FlockEntry> flocks_ ABSL_GUARDED_BY(mu_);
  std::vector<Lease> leases_ ABSL_GUARDED_BY(mu_);
  WaitQueue wait_queue_;
};

// Those whose locks() have been asked for, for /proc/locks.
std::vector<RefPtr<Inode>> InodesWithLocks();

// /proc/sys/fs/lease-break-time: seconds that a holder has; 0: for ever.
inline std::atomic<int32_t> lease_break_time{45};

// Sends the lease holder its signal (SIGIO or F_SETSIG's, to F_SETOWN's owner). The sentry installs it at boot.
using LeaseBreaker = void (*)(File& holder);
void SetLeaseBreaker(LeaseBreaker breaker);

}  // namespace moat

#endif  // MOAT_FS_VFS_FILE_LOCKS_H_
