#include "sentry/mm/file_window.h"

#include <sys/mman.h>

#include <map>
#include <tuple>

#include "platform/base/mutex.h"

namespace moat {
namespace {

using Key = std::tuple<const Mappable*, int, uint64_t, bool>;

struct Table {
  Mutex mu{LockRank::kLeaf};
  // Plain pointers: a window removes itself when its last reference goes.
  std::map<Key, FileWindow*> windows ABSL_GUARDED_BY(mu);
};

Table& TheTable() {
  static Table* table = new Table;
  return *table;
}

}  // namespace

Result<RefPtr<FileWindow>> FileWindow::Get(const RefPtr<Mappable>& mappable, int fd, uint64_t offset, bool writable) {
  const uint64_t base = offset / kSize * kSize;
  const Key key{mappable.get(), fd, base, writable};
  Table& table = TheTable();
  {
    MutexLock lock(table.mu);
    auto it = table.windows.find(key);
    if (it != table.windows.end() && it->second->TryAddRef()) return AdoptRef(it->second);
  }
  // Beyond the end of the file is fine: an access there faults, and the copy is a safe one.
  void* p =
      mmap(nullptr, kSize, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, static_cast<off_t>(base));
  if (p == MAP_FAILED) return HostErrno();
  auto window = AdoptRef(new FileWindow(mappable, fd, base, writable, static_cast<std::byte*>(p)));
  MutexLock lock(table.mu);
  // Another thread may have made the same one meanwhile: the newer replaces it in the table, both work.
  table.windows[key] = window.get();
  return window;
}

void FileWindow::OnLastUnref() {
  Table& table = TheTable();
  {
    MutexLock lock(table.mu);
    auto it = table.windows.find(Key{mappable_.get(), fd_, base_, writable_});
    if (it != table.windows.end() && it->second == this) table.windows.erase(it);
  }
  delete this;
}

FileWindow::~FileWindow() { munmap(memory_, kSize); }

}  // namespace moat
