// The observers of a file description, and who gets its signals; see file.h.
#include "fs/vfs/file.h"

namespace moat {

bool File::SupportsEpoll() const {
  RefPtr<Inode> i = inode();
  return !i || (i->type() != S_IFREG && i->type() != S_IFDIR);
}

void File::AddObserver(RefPtr<FileObserver> o) {
  MutexLock lock(observers_mu_);
  observers_.push_back(std::move(o));
}

void File::RemoveObserver(FileObserver& o) {
  RefPtr<FileObserver> dropped;  // destroyed after the lock is released
  MutexLock lock(observers_mu_);
  for (auto& slot : observers_) {
    if (slot.get() != &o) continue;
    dropped = std::move(slot);
    slot = std::move(observers_.back());
    observers_.pop_back();
    return;
  }
}

std::vector<RefPtr<FileObserver>> File::Observers() const {
  MutexLock lock(observers_mu_);
  return observers_;
}

File::AsyncOwner File::async_owner() const {
  MutexLock lock(observers_mu_);
  return async_owner_;
}

void File::set_async_owner(const AsyncOwner& owner) {
  MutexLock lock(observers_mu_);
  async_owner_ = owner;
}

void File::OnLastUnref() {
  std::vector<RefPtr<FileObserver>> observers;
  {
    MutexLock lock(observers_mu_);
    observers.swap(observers_);
  }
  for (auto& o : observers) o->OnFileEnd(*this);
  delete this;
}

}  // namespace moat
