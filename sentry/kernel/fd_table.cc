#include "sentry/kernel/fd_table.h"

#include <algorithm>
#include <bit>

namespace moat {

namespace {
// Tables grow by whole words of the bitmap.
constexpr int kSlotsPerWord = 64;
}  // namespace

RefPtr<FdTable> FdTable::Create() { return MakeRef<FdTable>(); }

FdTable::~FdTable() = default;

RefPtr<FdTable> FdTable::Clone() const {
  RefPtr<FdTable> copy = Create();
  MutexLock2 lock(mu_, copy->mu_);
  copy->slots_ = slots_;
  copy->used_ = used_;
  return copy;
}

RefPtr<File> FdTable::Get(int fd, bool* cloexec) const {
  MutexLock lock(mu_);
  if (fd < 0 || static_cast<size_t>(fd) >= slots_.size()) return nullptr;
  if (cloexec != nullptr) *cloexec = slots_[fd].cloexec;
  return slots_[fd].file;
}

RefPtr<File> FdTable::GetOwn(int fd) const {
  if (users_.load(std::memory_order_acquire) > 1) return Get(fd);
  if (fd < 0 || static_cast<size_t>(fd) >= slots_.size()) return nullptr;
  return slots_[fd].file;
}

int FdTable::FindFreeLocked(int min) const {
  size_t word = static_cast<size_t>(min) / kSlotsPerWord;
  if (word >= used_.size()) return min;
  uint64_t bits = used_[word] | ((uint64_t{1} << (min % kSlotsPerWord)) - 1);
  while (bits == ~uint64_t{0}) {
    if (++word >= used_.size()) return static_cast<int>(word * kSlotsPerWord);
    bits = used_[word];
  }
  return static_cast<int>(word * kSlotsPerWord) + std::countr_one(bits);
}

void FdTable::PutLocked(int fd, RefPtr<File> file, bool cloexec) {
  size_t word = static_cast<size_t>(fd) / kSlotsPerWord;
  if (word >= used_.size()) {
    size_t words = std::max(word + 1, used_.size() * 2);
    used_.resize(words);
    slots_.resize(words * kSlotsPerWord);
  }
  used_[word] |= uint64_t{1} << (fd % kSlotsPerWord);
  slots_[fd].file = std::move(file);
  slots_[fd].cloexec = cloexec;
}

RefPtr<File> FdTable::TakeLocked(int fd) {
  if (fd < 0 || static_cast<size_t>(fd) >= slots_.size()) return nullptr;
  used_[fd / kSlotsPerWord] &= ~(uint64_t{1} << (fd % kSlotsPerWord));
  return std::move(slots_[fd].file);
}

Result<int> FdTable::Install(RefPtr<File> file, bool cloexec, uint64_t limit, int min) {
  if (min < 0 || (min > 0 && static_cast<uint64_t>(min) >= limit)) return kEINVAL;
  MutexLock lock(mu_);
  int fd = FindFreeLocked(min);
  if (static_cast<uint64_t>(fd) >= limit) return kEMFILE;
  PutLocked(fd, std::move(file), cloexec);
  return fd;
}

Result<RefPtr<File>> FdTable::InstallAt(int fd, RefPtr<File> file, bool cloexec, uint64_t limit) {
  if (fd < 0 || static_cast<uint64_t>(fd) >= limit) return kEBADF;
  MutexLock lock(mu_);
  RefPtr<File> old = TakeLocked(fd);
  PutLocked(fd, std::move(file), cloexec);
  return old;
}

RefPtr<File> FdTable::Remove(int fd) {
  MutexLock lock(mu_);
  return TakeLocked(fd);
}

Result<void> FdTable::SetCloexec(int fd, bool on) {
  MutexLock lock(mu_);
  if (fd < 0 || static_cast<size_t>(fd) >= slots_.size() || !slots_[fd].file) return kEBADF;
  slots_[fd].cloexec = on;
  return {};
}

template <typename Select>
std::vector<RefPtr<File>> FdTable::RemoveIf(size_t first, size_t end, Select select) {
  std::vector<RefPtr<File>> removed;
  MutexLock lock(mu_);
  end = std::min(end, slots_.size());
  for (size_t fd = first; fd < end; ++fd) {
    if (slots_[fd].file && select(slots_[fd])) removed.push_back(TakeLocked(static_cast<int>(fd)));
  }
  return removed;
}

std::vector<RefPtr<File>> FdTable::RemoveRange(unsigned first, unsigned last) {
  return RemoveIf(first, size_t{last} + 1, [](const Slot&) { return true; });
}

void FdTable::SetCloexecRange(unsigned first, unsigned last) {
  MutexLock lock(mu_);
  for (size_t fd = first; fd <= last && fd < slots_.size(); ++fd) {
    if (slots_[fd].file) slots_[fd].cloexec = true;
  }
}

std::vector<RefPtr<File>> FdTable::RemoveCloexec() {
  return RemoveIf(0, ~size_t{0}, [](const Slot& s) { return s.cloexec; });
}

std::vector<RefPtr<File>> FdTable::RemoveAll() {
  return RemoveIf(0, ~size_t{0}, [](const Slot&) { return true; });
}

std::vector<int> FdTable::OpenFds() const {
  std::vector<int> fds;
  MutexLock lock(mu_);
  for (size_t fd = 0; fd < slots_.size(); ++fd) {
    if (slots_[fd].file) fds.push_back(static_cast<int>(fd));
  }
  return fds;
}

int FdTable::Capacity() const {
  MutexLock lock(mu_);
  return static_cast<int>(std::max<size_t>(slots_.size(), kSlotsPerWord));
}

}  // namespace moat
