#include "fs/anon/epoll_core.h"

#include <fmt/format.h>
#include <sys/epoll.h>

#include "fs/vfs/file.h"

namespace moat {
namespace {

constexpr uint32_t kControlBits = EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE;
// fs.epoll.max_user_watches; Linux derives it from low memory.
constexpr int64_t kMaxWatches = 1 << 21;
std::atomic<int64_t> watches{0};

}  // namespace

EpollItem::EpollItem(RefPtr<EpollCore> c, int fd_number, File& f, const abi::EpollEvent& event)
    : Waiter(~EventMask{0}),  // filtered by `events`, which may change
      core(std::move(c)),
      fd(fd_number),
      file(&f),
      file_queue(f.wait_queue()),
      events(event.events | EPOLLERR | EPOLLHUP),
      data(event.data) {}

bool EpollItem::OnEvent(EventMask ready) {
  uint32_t wanted = events.load(std::memory_order_relaxed);
  if ((wanted & ~kControlBits) == 0 || (ready & wanted) == 0) return false;
  bool somebody_waits = !core->queue().empty();
  core->PushReady(*this);
  core->queue().Notify(EPOLLIN | EPOLLRDNORM);
  return somebody_waits;
}

void EpollItem::OnFileEnd(File&) { core->ForgetItem(*this); }

// --- the ready list ---

void EpollCore::PushReady(EpollItem& item) {
  MutexLock lock(ready_mu_);
  if (item.queued || item.dead) return;
  item.queued = true;
  item.ready_prev = tail_;
  item.ready_next = nullptr;
  (tail_ != nullptr ? tail_->ready_next : head_) = &item;
  tail_ = &item;
  ++ready_count_;
}

void EpollCore::UnlinkReadyLocked(EpollItem& item) {
  if (!item.queued) return;
  item.queued = false;
  (item.ready_prev != nullptr ? item.ready_prev->ready_next : head_) = item.ready_next;
  (item.ready_next != nullptr ? item.ready_next->ready_prev : tail_) = item.ready_prev;
  --ready_count_;
}

RefPtr<EpollItem> EpollCore::PopReady() {
  MutexLock lock(ready_mu_);
  if (head_ == nullptr) return nullptr;
  RefPtr<EpollItem> item(head_);
  UnlinkReadyLocked(*item);
  return item;
}

size_t EpollCore::ready_count() {
  MutexLock lock(ready_mu_);
  return ready_count_;
}

// --- items ---

void EpollCore::DetachLocked(EpollItem& item) {
  item.attached = false;
  item.file_queue.Remove(item);  // no callback runs after this
  MutexLock lock(ready_mu_);
  item.dead = true;
  UnlinkReadyLocked(item);
  watches.fetch_sub(1, std::memory_order_relaxed);
}

void EpollCore::PollNewItem(EpollItem& item, File& file) {
  uint32_t wanted = item.events.load(std::memory_order_relaxed);
  if ((wanted & ~kControlBits) == 0) return;
  if ((file.Poll(wanted & ~kControlBits) & wanted) == 0) return;
  PushReady(item);
  queue_.Notify(EPOLLIN | EPOLLRDNORM);
}

Result<void> EpollCore::Add(int fd, File& file, const abi::EpollEvent& event) {
  RefPtr<EpollItem> item;
  {
    MutexLock lock(mu_);
    auto [at, inserted] = items_.try_emplace(Key(&file, fd));
    if (!inserted) return kEEXIST;
    if (watches.fetch_add(1, std::memory_order_relaxed) >= kMaxWatches) {
      watches.fetch_sub(1, std::memory_order_relaxed);
      items_.erase(at);
      return kENOSPC;
    }
    item = MakeRef<EpollItem>(RefPtr<EpollCore>(this), fd, file, event);
    at->second = item;
    file.AddObserver(item);
    item->file_queue.Add(*item, (event.events & EPOLLEXCLUSIVE) != 0);
  }
  PollNewItem(*item, file);
  return {};
}

Result<void> EpollCore::Modify(int fd, File& file, const abi::EpollEvent& event) {
  RefPtr<EpollItem> item;
  {
    MutexLock lock(mu_);
    auto at = items_.find(Key(&file, fd));
    if (at == items_.end()) return kENOENT;
    item = at->second;
    if (item->events.load(std::memory_order_relaxed) & EPOLLEXCLUSIVE) return kEINVAL;
    item->data = event.data;
    item->events.store(event.events | EPOLLERR | EPOLLHUP, std::memory_order_seq_cst);
  }
  PollNewItem(*item, file);
  return {};
}

Result<void> EpollCore::Delete(int fd, File& file) {
  RefPtr<EpollItem> item;
  MutexLock lock(mu_);
  auto at = items_.find(Key(&file, fd));
  if (at == items_.end()) return kENOENT;
  item = std::move(at->second);
  items_.erase(at);
  DetachLocked(*item);
  file.RemoveObserver(*item);
  return {};
}

void EpollCore::ForgetItem(EpollItem& item) {
  RefPtr<EpollItem> dropped;
  MutexLock lock(mu_);
  if (!item.attached) return;
  DetachLocked(item);
  auto at = items_.find(Key(item.file, item.fd));
  dropped = std::move(at->second);
  items_.erase(at);
}

void EpollCore::Close() {
  std::map<Key, RefPtr<EpollItem>> items;
  MutexLock lock(mu_);
  file_ = nullptr;
  items.swap(items_);
  for (auto& [key, item] : items) {
    DetachLocked(*item);
    item->file->RemoveObserver(*item);
  }
}

// --- waiting ---

uint32_t EpollCore::PollItem(EpollItem& item, RefPtr<File>& file, uint32_t& events, uint64_t& data) {
  {
    MutexLock lock(mu_);
    if (!item.attached || !item.file->TryAddRef()) return 0;
    file = AdoptRef(item.file);
    events = item.events.load(std::memory_order_relaxed);
    data = item.data;
  }
  if ((events & ~kControlBits) == 0) return 0;
  return file->Poll(events & ~kControlBits) & events & ~kControlBits;
}

Result<size_t> EpollCore::Collect(size_t max, std::vector<abi::EpollEvent>& out) {
  size_t before = out.size();
  std::vector<RefPtr<File>> last_refs;  // dropped after the scan lock
  MutexLock scan(scan_mu_);
  for (size_t left = ready_count(); left > 0 && out.size() - before < max; --left) {
    RefPtr<EpollItem> item = PopReady();
    if (!item) break;
    RefPtr<File> file;
    uint32_t events = 0;
    uint64_t data = 0;
    uint32_t ready = PollItem(*item, file, events, data);
    if (file && file->RefCountForTesting() == 1) last_refs.push_back(std::move(file));
    if (ready == 0) continue;
    abi::EpollEvent e;
    e.events = ready;
    e.data = data;
    out.push_back(e);
    if (events & EPOLLONESHOT) {
      uint32_t disabled = events & kControlBits;
      item->events.compare_exchange_strong(events, disabled);  // unless epoll_ctl enabled it meanwhile
    } else if (!(events & EPOLLET)) {
      PushReady(*item);
    }
  }
  if (out.size() == before) return kEAGAIN;
  return out.size() - before;
}

bool EpollCore::HasReady() {
  std::vector<RefPtr<File>> last_refs;
  MutexLock scan(scan_mu_);
  for (size_t left = ready_count(); left > 0; --left) {
    RefPtr<EpollItem> item = PopReady();
    if (!item) break;
    RefPtr<File> file;
    uint32_t events = 0;
    uint64_t data = 0;
    uint32_t ready = PollItem(*item, file, events, data);
    last_refs.push_back(std::move(file));
    if (ready == 0) continue;
    PushReady(*item);
    return true;
  }
  return false;
}

// --- nesting ---

int EpollCore::DepthBelow(const EpollCore* origin, int level, std::vector<RefPtr<File>>& keep) {
  if (level > EpollFile::kMaxNesting) return level;
  std::vector<EpollFile*> below;
  {
    MutexLock lock(mu_);
    for (auto& [key, item] : items_) {
      auto* e = dynamic_cast<EpollFile*>(item->file);
      if (e == nullptr || !e->TryAddRef()) continue;
      keep.push_back(AdoptRef<File>(e));
      below.push_back(e);
    }
  }
  int deepest = level;
  for (EpollFile* e : below) {
    if (e->core_.get() == origin) return EpollFile::kMaxNesting + 1;
    deepest = std::max(deepest, e->core_->DepthBelow(origin, level + 1, keep));
    if (deepest > EpollFile::kMaxNesting) break;
  }
  return deepest;
}

int EpollCore::DepthAbove(int level, std::vector<RefPtr<File>>& keep) {
  if (level > EpollFile::kMaxNesting) return level;
  RefPtr<File> self;
  {
    MutexLock lock(mu_);
    if (file_ == nullptr || !file_->TryAddRef()) return level;
    self = AdoptRef<File>(file_);
  }
  keep.push_back(self);
  int deepest = level;
  for (auto& o : self->Observers()) {
    auto* item = dynamic_cast<EpollItem*>(o.get());
    if (item != nullptr) deepest = std::max(deepest, item->core->DepthAbove(level + 1, keep));
  }
  return deepest;
}

std::string EpollCore::FdInfo() {
  std::string text;
  MutexLock lock(mu_);
  for (auto& [key, item] : items_) {
    RefPtr<Inode> inode = item->file->inode();
    text += fmt::format("tfd: {:8} events: {:8x} data: {:16x}  pos:{} ino:{:x} sdev:{:x}\n", item->fd,
                        item->events.load(std::memory_order_relaxed), item->data, item->file->offset(),
                        inode ? inode->ino() : 0, 0);
  }
  return text;
}

}  // namespace moat
