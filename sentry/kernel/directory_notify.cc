#include "sentry/kernel/directory_notify.h"

#include <fcntl.h>
#include <signal.h>

#include <vector>

#include "fs/vfs/notify.h"
#include "platform/base/mutex.h"
#include "sentry/kernel/async_io.h"

namespace moat::directory_notify {
namespace {

struct Entry {
  Kernel* kernel;
  File* file;  // leaves the table before it is destroyed: Farewell
  Inode* inode;
  int32_t pid;
  int fd;
  uint32_t events;
};

class Table {
 public:
  static Table& Get() {
    static Table* const table = new Table;
    return *table;
  }

  void Add(const Entry& entry) {
    MutexLock lock(mu_);
    for (Entry& e : entries_) {
      if (e.file != entry.file || e.pid != entry.pid) continue;
      e.events |= entry.events;
      e.fd = entry.fd;
      return;
    }
    entries_.push_back(entry);
    notify::active_watches.fetch_add(1, std::memory_order_relaxed);
  }

  template <typename Predicate>
  void RemoveIf(Predicate gone) {
    MutexLock lock(mu_);
    const size_t removed = std::erase_if(entries_, gone);
    notify::active_watches.fetch_sub(static_cast<int64_t>(removed), std::memory_order_relaxed);
  }

  void OnEvent(Inode& inode, uint32_t events) {
    struct Signal {
      Kernel* kernel;
      File::AsyncOwner owner;
      int fd;
    };
    std::vector<Signal> signals;
    {
      MutexLock lock(mu_);
      const size_t removed = std::erase_if(entries_, [&](Entry& e) {
        if (e.inode != &inode || (e.events & events) == 0) return false;
        signals.push_back({e.kernel, e.file->async_owner(), e.fd});
        return (e.events & DN_MULTISHOT) == 0;
      });
      notify::active_watches.fetch_sub(static_cast<int64_t>(removed), std::memory_order_relaxed);
    }
    for (const Signal& s : signals) async_io::Signal(*s.kernel, s.owner, s.fd, POLL_MSG);
  }

 private:
  Mutex mu_{LockRank::kInotify};
  std::vector<Entry> entries_ ABSL_GUARDED_BY(mu_);
};

class Farewell final : public FileObserver {
 public:
  void OnFileEnd(File& file) override {
    Table::Get().RemoveIf([&](const Entry& e) { return e.file == &file; });
  }
};

void OnChange(Inode& inode, uint32_t mask) {
  uint32_t events = 0;
  if (mask & IN_ACCESS) events |= DN_ACCESS;
  if (mask & IN_MODIFY) events |= DN_MODIFY;
  if (mask & IN_ATTRIB) events |= DN_ATTRIB;
  if (mask & (IN_CREATE | IN_MOVED_TO)) events |= DN_CREATE;
  if (mask & (IN_DELETE | IN_MOVED_FROM)) events |= DN_DELETE;
  if (mask & notify::kRenamedWithin) events |= DN_RENAME;
  if (events != 0) Table::Get().OnEvent(inode, events);
}

}  // namespace

void Watch(Kernel& kernel, File& file, int32_t pid, int fd, uint32_t events) {
  static const RefPtr<Farewell>* const farewell = new RefPtr<Farewell>(MakeRef<Farewell>());
  notify::directory_hook.store(OnChange, std::memory_order_release);
  file.RemoveObserver(**farewell);
  file.AddObserver(*farewell);
  // The file keeps its inode alive.
  Table::Get().Add({&kernel, &file, file.inode().get(), pid, fd, events});
}

void Forget(File& file, int32_t pid) {
  if (notify::directory_hook.load(std::memory_order_relaxed) == nullptr || !notify::AnyWatch()) return;
  Table::Get().RemoveIf([&](const Entry& e) { return e.file == &file && e.pid == pid; });
}

}  // namespace moat::directory_notify
