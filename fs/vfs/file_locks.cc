#include "fs/vfs/file_locks.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <atomic>
#include <unordered_map>

#include "fs/vfs/dentry.h"
#include "fs/vfs/file.h"
#include "platform/fiber/clock.h"

namespace moat {
namespace {

std::atomic<LeaseBreaker> lease_breaker{nullptr};

// Which process waits for which: one edge per waiting process, as a thread group's threads wait for one owner each,
// and the last edge is the one that can close a cycle.
struct WaitGraph {
  Mutex mu{LockRank::kLeaf};
  std::unordered_map<int32_t, int32_t> waits_for ABSL_GUARDED_BY(mu);

  // Adds waiter -> holder. False when it would close a cycle.
  bool Add(int32_t waiter, int32_t holder) {
    MutexLock lock(mu);
    int32_t at = holder;
    // The number of edges bounds the walk.
    for (size_t i = 0; i <= waits_for.size(); ++i) {
      if (at == waiter) return false;
      auto it = waits_for.find(at);
      if (it == waits_for.end()) break;
      at = it->second;
    }
    waits_for[waiter] = holder;
    return true;
  }
  void Remove(int32_t waiter) {
    MutexLock lock(mu);
    waits_for.erase(waiter);
  }
};

WaitGraph& Graph() {
  static WaitGraph* g = new WaitGraph;
  return *g;
}

bool Overlap(const RangeLock& a, const RangeLock& b) { return a.start <= b.end && b.start <= a.end; }

}  // namespace

void SetLeaseBreaker(LeaseBreaker breaker) { lease_breaker.store(breaker); }

FileLockList::FileLockList() = default;
FileLockList::~FileLockList() = default;

const RangeLock* FileLockList::ConflictLocked(const RangeLock& lock) const {
  for (const RangeLock& r : ranges_) {
    if (r.start > lock.end) break;
    if (Overlap(r, lock) && !(r.owner == lock.owner) && (r.exclusive || lock.exclusive)) return &r;
  }
  return nullptr;
}

bool FileLockList::CutLocked(uint64_t start, uint64_t end, const LockOwner& owner) {
  bool changed = false;
  std::vector<RangeLock> tails;
  for (size_t i = 0; i < ranges_.size();) {
    RangeLock& r = ranges_[i];
    if (!(r.owner == owner) || r.end < start || r.start > end) {
      ++i;
      continue;
    }
    changed = true;
    if (r.end > end) {
      RangeLock tail = r;
      tail.start = end + 1;
      tails.push_back(tail);
    }
    if (r.start < start) {
      r.end = start - 1;
      ++i;
    } else {
      ranges_.erase(ranges_.begin() + static_cast<ptrdiff_t>(i));
    }
  }
  auto by_start = [](const RangeLock& a, const RangeLock& b) { return a.start < b.start; };
  for (const RangeLock& t : tails) ranges_.insert(std::upper_bound(ranges_.begin(), ranges_.end(), t, by_start), t);
  return changed;
}

Result<void> FileLockList::SetRange(const RangeLock& request, bool wait) {
  bool downgraded = false;
  {
    MutexLock lock(mu_);
    if (const RangeLock* c = ConflictLocked(request)) {
      bool both_posix = request.owner.file == nullptr && c->owner.file == nullptr;
      if (wait && both_posix && !Graph().Add(request.owner.pid, c->owner.pid)) return kEDEADLK;
      return kEAGAIN;
    }
    downgraded = CutLocked(request.start, request.end, request.owner);
    // Joins its neighbours of the same owner and kind, so that F_GETLK shows one range.
    RangeLock merged = request;
    for (size_t i = 0; i < ranges_.size();) {
      const RangeLock& r = ranges_[i];
      bool touches =
          (r.end != kLockToEnd && r.end + 1 == merged.start) || (merged.end != kLockToEnd && merged.end + 1 == r.start);
      if (r.owner == merged.owner && r.exclusive == merged.exclusive && touches) {
        merged.start = std::min(merged.start, r.start);
        merged.end = std::max(merged.end, r.end);
        ranges_.erase(ranges_.begin() + static_cast<ptrdiff_t>(i));
      } else {
        ++i;
      }
    }
    auto by_start = [](const RangeLock& a, const RangeLock& b) { return a.start < b.start; };
    ranges_.insert(std::upper_bound(ranges_.begin(), ranges_.end(), merged, by_start), merged);
  }
  if (wait) StopWaiting(request.owner);
  if (downgraded && !request.exclusive) wait_queue_.Notify(EPOLLIN);
  return {};
}

void FileLockList::ClearRange(uint64_t start, uint64_t end, const LockOwner& owner) {
  bool changed;
  {
    MutexLock lock(mu_);
    changed = CutLocked(start, end, owner);
  }
  if (changed) wait_queue_.Notify(EPOLLIN);
}

bool FileLockList::FindConflict(const RangeLock& request, RangeLock* found) const {
  MutexLock lock(mu_);
  const RangeLock* c = ConflictLocked(request);
  if (c == nullptr) return false;
  *found = *c;
  return true;
}

void FileLockList::StopWaiting(const LockOwner& owner) {
  if (owner.file == nullptr) Graph().Remove(owner.pid);
}

void FileLockList::ReleaseProcess(int32_t pid) { ClearRange(0, kLockToEnd, LockOwner::Process(pid)); }

Result<void> FileLockList::Flock(const File* file, bool exclusive, int32_t pid) {
  bool dropped = false;
  Result<void> result;
  {
    MutexLock lock(mu_);
    auto own = std::find_if(flocks_.begin(), flocks_.end(), [&](const FlockEntry& e) { return e.file == file; });
    if (own != flocks_.end()) {
      if (own->exclusive == exclusive) return {};
      flocks_.erase(own);
      dropped = true;
    }
    bool conflict =
        std::any_of(flocks_.begin(), flocks_.end(), [&](const FlockEntry& e) { return e.exclusive || exclusive; });
    if (conflict) {
      result = kEAGAIN;
    } else {
      flocks_.push_back({file, exclusive, pid});
    }
  }
  if (dropped) wait_queue_.Notify(EPOLLIN);
  return result;
}

void FileLockList::Unflock(const File* file) {
  size_t n;
  {
    MutexLock lock(mu_);
    n = std::erase_if(flocks_, [&](const FlockEntry& e) { return e.file == file; });
  }
  if (n != 0) wait_queue_.Notify(EPOLLIN);
}

void FileLockList::ReleaseDescription(const File* file) {
  size_t n;
  {
    MutexLock lock(mu_);
    n = std::erase_if(flocks_, [&](const FlockEntry& e) { return e.file == file; });
    n += std::erase_if(ranges_, [&](const RangeLock& r) { return r.owner.file == file; });
    n += std::erase_if(leases_, [&](const Lease& l) { return l.file == file; });
  }
  if (n != 0) wait_queue_.Notify(EPOLLIN);
}

Result<void> FileLockList::SetLease(File* file, int type, int32_t pid) {
  bool notify = false;
  const Inode& inode = *file->path().dentry->inode_ptr();
  if (type == F_RDLCK && inode.open_for_writing()) return kEAGAIN;
  if (type == F_WRLCK && inode.opens.load(std::memory_order_relaxed) > 1) return kEAGAIN;
  {
    MutexLock lock(mu_);
    ExpireLeasesLocked();
    auto own = std::find_if(leases_.begin(), leases_.end(), [&](const Lease& l) { return l.file == file; });
    if (type == F_UNLCK) {
      if (own == leases_.end()) return kEAGAIN;
      leases_.erase(own);
      notify = true;
    } else {
      for (const Lease& l : leases_) {
        // Somebody who waits to write would have to ask the new holder, too.
        bool writer_waits = l.target != l.type && l.target == F_UNLCK;
        if (l.file != file && (l.type == F_WRLCK || type == F_WRLCK || writer_waits)) return kEAGAIN;
      }
      if (own != leases_.end()) {
        // While a break is pending only what it asks for is granted.
        if (own->target != own->type && (type == F_WRLCK || own->target == F_UNLCK)) return kEAGAIN;
        own->type = own->target = type;
        notify = true;
      } else {
        leases_.push_back({file, type, type, kNoDeadline, pid});
      }
    }
  }
  if (notify) wait_queue_.Notify(EPOLLIN);
  return {};
}

int FileLockList::GetLease(const File* file) const {
  MutexLock lock(mu_);
  for (const Lease& l : leases_) {
    if (l.file == file) return l.target;
  }
  return F_UNLCK;
}

void FileLockList::ExpireLeasesLocked() {
  if (leases_.empty()) return;
  Nanos now = MonotonicNow();
  std::erase_if(leases_, [&](Lease& l) {
    if (l.target == l.type || now < l.deadline) return false;
    l.type = l.target;
    return l.type == F_UNLCK;
  });
}

bool FileLockList::BreakPending(Deadline* deadline) {
  bool pending = false;
  *deadline = kNoDeadline;
  MutexLock lock(mu_);
  ExpireLeasesLocked();
  for (const Lease& l : leases_) {
    if (l.target == l.type) continue;
    pending = true;
    *deadline = std::min(*deadline, l.deadline);
  }
  return pending;
}

Result<void> FileLockList::BreakLeases(bool for_write) {
  std::vector<RefPtr<File>> holders;
  bool conflict = false;
  {
    MutexLock lock(mu_);
    ExpireLeasesLocked();
    for (Lease& l : leases_) {
      if (!for_write && l.type == F_RDLCK) continue;
      conflict = true;
      int target = for_write ? F_UNLCK : F_RDLCK;
      if (l.target == target || l.target == F_UNLCK) continue;
      if (l.target == l.type) {
        int64_t seconds = lease_break_time.load(std::memory_order_relaxed);
        l.deadline = seconds > 0 ? MonotonicNow() + seconds * kNanosPerSec : kNoDeadline;
      }
      l.target = target;
      if (l.file->TryAddRef()) holders.push_back(AdoptRef(l.file));
    }
  }
  LeaseBreaker breaker = lease_breaker.load();
  if (breaker != nullptr) {
    for (RefPtr<File>& f : holders) breaker(*f);
  }
  return conflict ? Result<void>(kEAGAIN) : Result<void>();
}

std::vector<FileLockList::Info> FileLockList::Snapshot() const {
  std::vector<Info> out;
  MutexLock lock(mu_);
  for (const FlockEntry& e : flocks_) out.push_back({Info::kFlock, e.exclusive, e.pid, 0, kLockToEnd});
  for (const RangeLock& r : ranges_) {
    out.push_back({r.owner.file != nullptr ? Info::kOfd : Info::kPosix, r.exclusive, r.owner.pid, r.start, r.end});
  }
  for (const Lease& l : leases_) {
    out.push_back({Info::kLease, l.type == F_WRLCK, l.pid, 0, kLockToEnd, l.target != l.type});
  }
  return out;
}

}  // namespace moat
