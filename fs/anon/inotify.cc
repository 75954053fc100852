#include "fs/anon/inotify.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include <algorithm>

#include "fs/anon/anon_inode.h"
#include "fs/vfs/notify.h"

namespace moat {
namespace inotify_internal {

// One watch of one instance. Constant but for the mask.
struct Watch : RefCounted {
  RefPtr<InotifyCore> core;
  int wd = 0;
  RefPtr<FileSystem> fs;  // destroyed after the inode: declared before it
  RefPtr<Inode> inode;
  std::atomic<uint32_t> mask{0};
  std::atomic<bool> gone{false};
};

// The attachment of a watched inode.
class InodeWatches final : public NotifySink {
 public:
  void OnEvent(uint32_t mask, uint32_t cookie, std::string_view name) override;
  void Add(RefPtr<Watch> w) {
    MutexLock lock(mu_);
    watches_.push_back(std::move(w));
  }
  void Remove(Watch& w) {
    RefPtr<Watch> dropped;
    MutexLock lock(mu_);
    for (auto& slot : watches_) {
      if (slot.get() != &w) continue;
      dropped = std::move(slot);
      slot = std::move(watches_.back());
      watches_.pop_back();
      return;
    }
  }

 private:
  Mutex mu_{LockRank::kInotify};
  std::vector<RefPtr<Watch>> watches_ ABSL_GUARDED_BY(mu_);
};

inline RefPtr<InodeWatches> WatchesOf(Inode& inode) {
  RefPtr<Inode::Attachment> a = inode.attachment(Inode::Slot::kInotify);
  if (!a) a = inode.AttachOnce(Inode::Slot::kInotify, MakeRef<InodeWatches>());
  return RefPtr<InodeWatches>(static_cast<InodeWatches*>(a.get()));
}

struct Queued {
  int wd;
  uint32_t mask;
  uint32_t cookie;
  std::string name;
  bool operator==(const Queued&) const = default;
  // Names are NUL-terminated and padded so that the next event is aligned.
  size_t NameBytes() const {
    constexpr size_t kUnit = sizeof(inotify_event);
    return name.empty() ? 0 : (name.size() + 1 + kUnit - 1) / kUnit * kUnit;
  }
  size_t Bytes() const { return sizeof(inotify_event) + NameBytes(); }
};

}  // namespace inotify_internal

using inotify_internal::InodeWatches;
using inotify_internal::Queued;
using inotify_internal::Watch;
using inotify_internal::WatchesOf;

class InotifyCore final : public RefCounted {
 public:
  void Queue(Queued e) {
    {
      MutexLock lock(mu_);
      if (closed_) return;
      if (!events_.empty() && events_.back() == e) return;  // inotify(7): identical successive events merge
      if (events_.size() >= InotifyFile::kMaxQueuedEvents) {
        if (events_.back().mask == IN_Q_OVERFLOW) return;
        e = Queued{-1, IN_Q_OVERFLOW, 0, {}};
      }
      bytes_ += e.Bytes();
      events_.push_back(std::move(e));
    }
    queue_.Notify(EPOLLIN | EPOLLRDNORM | kAsyncInput);
  }

  // Ends a watch once: takes it off the inode and the table, and queues IN_IGNORED.
  void End(Watch& w) {
    if (w.gone.exchange(true)) return;
    RefPtr<Watch> dropped;
    {
      MutexLock lock(mu_);
      auto at = watches_.find(w.wd);
      if (at != watches_.end()) {
        dropped = std::move(at->second);
        watches_.erase(at);
      }
    }
    WatchesOf(*w.inode)->Remove(w);
    notify::active_watches.fetch_sub(1, std::memory_order_relaxed);
    Queue({w.wd, IN_IGNORED, 0, {}});
  }

  Mutex mu_{LockRank::kInotify};
  std::map<int, RefPtr<Watch>> watches_ ABSL_GUARDED_BY(mu_);
  std::deque<Queued> events_ ABSL_GUARDED_BY(mu_);
  size_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
  int next_wd_ ABSL_GUARDED_BY(mu_) = 1;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  WaitQueue queue_;
};

void InodeWatches::OnEvent(uint32_t mask, uint32_t cookie, std::string_view name) {
  std::vector<RefPtr<Watch>> watches;
  {
    MutexLock lock(mu_);
    watches = watches_;
  }
  const bool ends = (mask & (IN_DELETE_SELF | IN_UNMOUNT)) != 0;
  const uint32_t unlinked = mask & IN_EXCL_UNLINK;
  mask &= ~unlinked;
  for (auto& w : watches) {
    uint32_t wanted = w->mask.load(std::memory_order_relaxed);
    if (w->gone.load(std::memory_order_relaxed) || (wanted & unlinked) != 0) continue;
    bool matches = (mask & wanted & IN_ALL_EVENTS) != 0 || (mask & IN_UNMOUNT);
    if (matches) w->core->Queue({w->wd, mask, cookie, std::string(name)});
    if (ends || (matches && (wanted & IN_ONESHOT))) w->core->End(*w);
  }
}

InotifyFile::InotifyFile(int flags)
    : File(AnonInodePath("inotify"), OpenFlags{O_RDONLY | (flags & O_NONBLOCK)}), core_(MakeRef<InotifyCore>()) {}

InotifyFile::~InotifyFile() {
  std::vector<RefPtr<Watch>> watches;
  {
    MutexLock lock(core_->mu_);
    core_->closed_ = true;
    for (auto& [wd, w] : core_->watches_) watches.push_back(w);
  }
  for (auto& w : watches) core_->End(*w);
}

Result<int> InotifyFile::AddWatch(Inode& inode, uint32_t mask) {
  if ((mask & IN_MASK_ADD) && (mask & IN_MASK_CREATE)) return kEINVAL;
  constexpr uint32_t kKept = IN_ALL_EVENTS | IN_UNMOUNT | IN_EXCL_UNLINK | IN_ONESHOT;
  RefPtr<Watch> w;
  {
    MutexLock lock(core_->mu_);
    for (auto& [wd, existing] : core_->watches_) {
      if (existing->inode.get() != &inode) continue;
      if (mask & IN_MASK_CREATE) return kEEXIST;
      uint32_t old = (mask & IN_MASK_ADD) ? existing->mask.load(std::memory_order_relaxed) : 0;
      existing->mask.store(old | (mask & kKept), std::memory_order_relaxed);
      return wd;
    }
    if (notify::active_watches.fetch_add(1, std::memory_order_relaxed) >= kMaxWatches) {
      notify::active_watches.fetch_sub(1, std::memory_order_relaxed);
      return kENOSPC;
    }
    w = MakeRef<Watch>();
    w->core = core_;
    w->inode = RefPtr<Inode>(&inode);
    w->fs = RefPtr<FileSystem>(&inode.fs());
    w->mask.store(mask & kKept, std::memory_order_relaxed);
    w->wd = core_->next_wd_++;
    core_->watches_.emplace(w->wd, w);
  }
  WatchesOf(inode)->Add(w);
  return w->wd;
}

Result<void> InotifyFile::RemoveWatch(int wd) {
  RefPtr<Watch> w;
  {
    MutexLock lock(core_->mu_);
    auto at = core_->watches_.find(wd);
    if (at == core_->watches_.end()) return kEINVAL;
    w = at->second;
  }
  core_->End(*w);
  return {};
}

Result<size_t> InotifyFile::Read(const VfsContext&, IoDest& dst) {
  size_t total = 0;
  for (;;) {
    std::vector<char> record;
    {
      MutexLock lock(core_->mu_);
      if (core_->events_.empty()) break;
      const Queued& e = core_->events_.front();
      if (e.Bytes() > dst.remaining()) {
        if (total == 0) return kEINVAL;
        break;
      }
      inotify_event head{};
      head.wd = e.wd;
      head.mask = e.mask;
      head.cookie = e.cookie;
      head.len = static_cast<uint32_t>(e.NameBytes());
      record.resize(e.Bytes());
      memcpy(record.data(), &head, sizeof head);
      memcpy(record.data() + sizeof head, e.name.data(), e.name.size());
      core_->bytes_ -= e.Bytes();
      core_->events_.pop_front();
    }
    Result<size_t> put = dst.Put(record.data(), record.size());
    if (!put.ok() || *put != record.size()) return total != 0 ? Result<size_t>(total) : Result<size_t>(kEFAULT);
    total += record.size();
  }
  if (total == 0) return kEAGAIN;
  return total;
}

EventMask InotifyFile::Poll(EventMask interest) {
  MutexLock lock(core_->mu_);
  return core_->events_.empty() ? 0 : interest & (EPOLLIN | EPOLLRDNORM);
}

Result<int64_t> InotifyFile::Ioctl(const VfsContext&, GuestMemory& memory, uint32_t cmd, uint64_t arg) {
  if (cmd != FIONREAD) return kENOTTY;
  int bytes;
  {
    MutexLock lock(core_->mu_);
    bytes = static_cast<int>(core_->bytes_);
  }
  if (memory.CopyOut(arg, &bytes, sizeof bytes) != sizeof bytes) return kEFAULT;
  return 0;
}

WaitQueue& InotifyFile::wait_queue() { return core_->queue_; }

std::string InotifyFile::FdInfo() const {
  std::string text;
  MutexLock lock(core_->mu_);
  for (auto& [wd, w] : core_->watches_) {
    DeviceId dev = w->fs->device();
    text += fmt::format("inotify wd:{:x} ino:{:x} sdev:{:x} mask:{:x} ignored_mask:0 \n", wd, w->inode->ino(),
                        dev.major << 20 | dev.minor, w->mask.load(std::memory_order_relaxed));
  }
  return text;
}

}  // namespace moat
