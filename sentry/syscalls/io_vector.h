// Copying in a guest's struct iovec array: import_iovec() of Linux.
#ifndef MOAT_SENTRY_SYSCALLS_IO_VECTOR_H_
#define MOAT_SENTRY_SYSCALLS_IO_VECTOR_H_

#include <span>
#include <vector>

#include "platform/usermem/io.h"

namespace moat {

class Task;

// The most bytes that one read or write moves: INT_MAX rounded down to a page.
inline constexpr size_t kMaxReadWrite = 0x7ffff000;

class IoVector {
 public:
  // kEINVAL: more than 1024 elements, a negative length; kEFAULT: the array or a range outside of user space. The total
  // is cut to kMaxReadWrite.
  Result<void> Read(Task& t, GuestAddr array, size_t count);
  std::span<const GuestRange> ranges() const { return {count_ <= kInline ? inline_ : heap_.data(), count_}; }
  size_t total() const { return total_; }

 private:
  static constexpr size_t kInline = 8;
  GuestRange inline_[kInline];
  std::vector<GuestRange> heap_;
  size_t count_ = 0;
  size_t total_ = 0;
};

// access_ok(): kEFAULT when [addr, addr + length) leaves user space.
Result<void> CheckUserRange(Task& t, GuestAddr addr, size_t length);

}  // namespace moat

#endif  // MOAT_SENTRY_SYSCALLS_IO_VECTOR_H_
