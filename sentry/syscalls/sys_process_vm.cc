// process_vm_readv(2), process_vm_writev(2): copies between two address spaces.
#include <algorithm>
#include <vector>

#include "sentry/kernel/kernel.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/io_vector.h"

namespace moat {
namespace {

constexpr size_t kBounce = 64 << 10;

// A position in a list of ranges.
class Cursor {
 public:
  explicit Cursor(std::span<const GuestRange> ranges) : ranges_(ranges) { Skip(); }
  bool done() const { return index_ == ranges_.size(); }
  GuestAddr addr() const { return ranges_[index_].addr + offset_; }
  size_t length() const { return ranges_[index_].length - offset_; }
  void Advance(size_t n) {
    offset_ += n;
    Skip();
  }

 private:
  void Skip() {
    while (index_ < ranges_.size() && offset_ == ranges_[index_].length) {
      ++index_;
      offset_ = 0;
    }
  }
  std::span<const GuestRange> ranges_;
  size_t index_ = 0, offset_ = 0;
};

// Copies until a list ends or a byte cannot be reached. Bytes that arrived.
size_t CopyBetween(GuestMemory& from, Cursor source, GuestMemory& to, Cursor target) {
  std::vector<std::byte> bounce(kBounce);
  size_t total = 0;
  while (!source.done() && !target.done()) {
    const size_t want = std::min({source.length(), target.length(), bounce.size()});
    const size_t got = from.CopyIn(bounce.data(), source.addr(), want);
    const size_t put = got == 0 ? 0 : to.CopyOut(target.addr(), bounce.data(), got);
    total += put;
    if (put != want) break;
    source.Advance(want);
    target.Advance(want);
  }
  return total;
}

Result<int64_t> ProcessVm(Task& t, int pid, GuestAddr local, uint64_t local_count, GuestAddr remote,
                          uint64_t remote_count, uint64_t flags, bool write) {
  if (flags != 0) return kEINVAL;
  IoVector local_vector, remote_vector;
  TRY(local_vector.Read(t, local, local_count));
  TRY(remote_vector.Read(t, remote, remote_count));
  if (local_vector.total() == 0 || remote_vector.total() == 0) return 0;
  RefPtr<Task> target = t.kernel().FindTask(pid, *t.pid_ns());
  if (!target) return kESRCH;
  RefPtr<MemoryManager> theirs = target->mm();
  if (!theirs) return kESRCH;
  if (!t.MayAccess(*target, true)) return kEPERM;
  const Cursor mine(local_vector.ranges()), other(remote_vector.ranges());
  size_t n;
  if (write) {
    n = CopyBetween(t.memory(), mine, *theirs, other);
    // Their guest code must not go on with the pages from before a copy-on-write.
    TRY(theirs->FlushPending(theirs.get() == &t.memory() ? &t.context() : nullptr));
  } else {
    n = CopyBetween(*theirs, other, t.memory(), mine);
  }
  if (n == 0) return kEFAULT;
  return static_cast<int64_t>(n);
}

}  // namespace

Result<int64_t> SysProcessVmReadv(Task& t, int pid, GuestAddr local, uint64_t local_count, GuestAddr remote,
                                  uint64_t remote_count, uint64_t flags) {
  return ProcessVm(t, pid, local, local_count, remote, remote_count, flags, false);
}

Result<int64_t> SysProcessVmWritev(Task& t, int pid, GuestAddr local, uint64_t local_count, GuestAddr remote,
                                   uint64_t remote_count, uint64_t flags) {
  return ProcessVm(t, pid, local, local_count, remote, remote_count, flags, true);
}

}  // namespace moat
