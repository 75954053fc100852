// The state of an epoll instance and its items, apart from the file so that a watched file that ends can still reach
// it. See epoll.h for the locks.
#ifndef MOAT_FS_ANON_EPOLL_CORE_H_
#define MOAT_FS_ANON_EPOLL_CORE_H_

#include <map>
#include <utility>

#include "fs/anon/epoll.h"

namespace moat {

// One watched descriptor.
class EpollItem final : public FileObserver, public Waiter {
 public:
  EpollItem(RefPtr<EpollCore> core, int fd, File& file, const abi::EpollEvent& event);
  void OnFileEnd(File& file) override;

  const RefPtr<EpollCore> core;
  const int fd;
  File* const file;              // valid while `attached`
  WaitQueue& file_queue;         // likewise
  std::atomic<uint32_t> events;  // as epoll_ctl gave them; no event bits: disabled by EPOLLONESHOT
  uint64_t data;                 // guarded by the core's mu
  bool attached = true;          // guarded by the core's mu
  // Guarded by the core's ready_mu.
  bool queued = false;
  bool dead = false;
  EpollItem* ready_prev = nullptr;
  EpollItem* ready_next = nullptr;

 private:
  bool OnEvent(EventMask ready) override;
};

class EpollCore final : public RefCounted {
 public:
  using Key = std::pair<File*, int>;

  explicit EpollCore(EpollFile& file) : file_(&file) {}

  Result<void> Add(int fd, File& file, const abi::EpollEvent& event);
  Result<void> Modify(int fd, File& file, const abi::EpollEvent& event);
  Result<void> Delete(int fd, File& file);
  void Close();
  void ForgetItem(EpollItem& item);

  Result<size_t> Collect(size_t max, std::vector<abi::EpollEvent>& out);
  bool HasReady();
  std::string FdInfo();

  // How deep instances are nested below or above this one, itself not counted; more than kMaxNesting means "too
  // deep" or that `origin` was met (a loop). `keep` collects references that must outlive the nesting lock.
  int DepthBelow(const EpollCore* origin, int level, std::vector<RefPtr<File>>& keep);
  int DepthAbove(int level, std::vector<RefPtr<File>>& keep);

  void PushReady(EpollItem& item);
  WaitQueue& queue() { return queue_; }

 private:
  RefPtr<EpollItem> PopReady();
  void UnlinkReadyLocked(EpollItem& item) ABSL_EXCLUSIVE_LOCKS_REQUIRED(ready_mu_);
  size_t ready_count();
  // What the item's file has now, under the scan lock; `file` keeps it alive until the caller lets go of it.
  uint32_t PollItem(EpollItem& item, RefPtr<File>& file, uint32_t& events, uint64_t& data);
  void DetachLocked(EpollItem& item) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PollNewItem(EpollItem& item, File& file);

  Mutex scan_mu_{LockRank::kLog};  // ordered by the acyclic graph of instances, see epoll.h
  Mutex mu_{LockRank::kEpoll};
  EpollFile* file_ ABSL_GUARDED_BY(mu_);
  std::map<Key, RefPtr<EpollItem>> items_ ABSL_GUARDED_BY(mu_);
  Mutex ready_mu_{LockRank::kEpollReady};
  EpollItem* head_ ABSL_GUARDED_BY(ready_mu_) = nullptr;
  EpollItem* tail_ ABSL_GUARDED_BY(ready_mu_) = nullptr;
  size_t ready_count_ ABSL_GUARDED_BY(ready_mu_) = 0;
  WaitQueue queue_{LockRank::kLog};
};

}  // namespace moat

#endif  // MOAT_FS_ANON_EPOLL_CORE_H_
