#include "sentry/syscalls/io_vector.h"

#include <climits>

#include "sentry/kernel/task.h"

namespace moat {

Result<void> CheckUserRange(Task& t, GuestAddr addr, size_t length) {
  uint64_t end;
  if (__builtin_add_overflow(addr, length, &end) || end > t.memory().environment().max_address) return kEFAULT;
  return {};
}

Result<void> IoVector::Read(Task& t, GuestAddr array, size_t count) {
  if (count > IOV_MAX) return kEINVAL;
  if (count > kInline) heap_.resize(count);
  GuestRange* out = count > kInline ? heap_.data() : inline_;
  static_assert(sizeof(GuestRange) == sizeof(iovec));  // {address, length}, as the guest has it
  if (count != 0 && t.memory().CopyIn(out, array, count * sizeof(iovec)) != count * sizeof(iovec)) return kEFAULT;
  total_ = 0;
  for (size_t i = 0; i < count; ++i) {
    if (out[i].length > SSIZE_MAX) return kEINVAL;
    TRY(CheckUserRange(t, out[i].addr, out[i].length));
    out[i].length = std::min(out[i].length, kMaxReadWrite - total_);
    total_ += out[i].length;
  }
  count_ = count;
  return {};
}

}  // namespace moat
