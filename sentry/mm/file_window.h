// FileWindow: the sentry's own mapping of a piece of a donated host file, so that a copy to or from a mapped file is
// a memcpy. Windows are shared by all address spaces (same file, same piece, one mapping) and go with their last
// user. Access them with safe copies only: the host may truncate the file. Thread-safe.
#ifndef MOAT_SENTRY_MM_FILE_WINDOW_H_
#define MOAT_SENTRY_MM_FILE_WINDOW_H_

#include <cstddef>
#include <cstdint>

#include "platform/base/ref_ptr.h"
#include "platform/base/result.h"
#include "platform/memory/mappable.h"

namespace moat {

class FileWindow final : public RefCounted {
 public:
  static constexpr uint64_t kSize = 1 << 20;

  // The window over `offset` of host file `fd`, which `mappable` keeps open.
  static Result<RefPtr<FileWindow>> Get(const RefPtr<Mappable>& mappable, int fd, uint64_t offset, bool writable);

  bool Covers(int fd, uint64_t offset, bool writable) const {
    return fd == fd_ && offset - base_ < kSize && (writable_ || !writable);
  }
  std::byte* At(uint64_t offset) const { return memory_ + (offset - base_); }
  uint64_t BytesAfter(uint64_t offset) const { return base_ + kSize - offset; }

 private:
  FileWindow(RefPtr<Mappable> mappable, int fd, uint64_t base, bool writable, std::byte* memory)
      : mappable_(std::move(mappable)), fd_(fd), base_(base), writable_(writable), memory_(memory) {}
  ~FileWindow() override;
  void OnLastUnref() override;

  const RefPtr<Mappable> mappable_;
  const int fd_;
  const uint64_t base_;
  const bool writable_;
  std::byte* const memory_;
};

}  // namespace moat

#endif  // MOAT_SENTRY_MM_FILE_WINDOW_H_
