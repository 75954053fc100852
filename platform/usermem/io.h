// IoDest and IoSource: where a read puts its bytes and a write takes them from: guest iovecs or kernel
// buffers. File implementations know no guest address. Not thread-safe; live for one call.
#ifndef MOAT_PLATFORM_USERMEM_IO_H_
#define MOAT_PLATFORM_USERMEM_IO_H_

#include <algorithm>
#include <cstring>
#include <span>
#include <vector>

#include "platform/usermem/guest_memory.h"

namespace moat {

class IoDest {
 public:
  explicit IoDest(size_t total) : remaining_(total) {}
  virtual ~IoDest() = default;
  size_t remaining() const { return remaining_; }
  // Lowers the number of bytes still wanted (a file shorter than the buffer).
  void Truncate(size_t n) { remaining_ = std::min(remaining_, n); }

  // Copies up to `n` bytes in and advances. Returns the bytes taken; kEFAULT when a fault stopped it
  // before the first byte of this call.
  virtual Result<size_t> Put(const void* src, size_t n) = 0;
  virtual Result<size_t> PutZeros(size_t n) = 0;
  // Calls `io` once with host segments of at most `max` bytes; advances by what `io` returned.
  // For preadv and the like, straight into guest memory.
  virtual Result<size_t> Fill(size_t max, SegmentIo io) = 0;

 protected:
  size_t remaining_;
};

class IoSource {
 public:
  explicit IoSource(size_t total) : remaining_(total) {}
  virtual ~IoSource() = default;
  size_t remaining() const { return remaining_; }
  void Truncate(size_t n) { remaining_ = std::min(remaining_, n); }

  // Copies up to `n` bytes out and advances; kEFAULT when a fault stopped it before the first byte.
  virtual Result<size_t> Take(void* dst, size_t n) = 0;
  virtual Result<size_t> Drain(size_t max, SegmentIo io) = 0;
  // Returns the position to where it was `n` bytes ago (a write that took more than it could store).
  virtual void Rewind(size_t n) = 0;

 protected:
  size_t remaining_;
};

// One range of guest memory, already copied in from the guest's struct iovec and checked.
struct GuestRange {
  GuestAddr addr;
  size_t length;
};

class GuestIoDest final : public IoDest {
 public:
  GuestIoDest(GuestMemory& m, GuestAddr addr, size_t n);
  // `ranges` must outlive this object.
  GuestIoDest(GuestMemory& m, std::span<const GuestRange> ranges);
  Result<size_t> Put(const void* src, size_t n) override;
  Result<size_t> PutZeros(size_t n) override;
  Result<size_t> Fill(size_t max, SegmentIo io) override;

 private:
  void Advance(size_t n);
  GuestMemory& memory_;
  GuestRange single_;
  std::span<const GuestRange> ranges_;
  size_t index_ = 0, offset_ = 0;
};

class GuestIoSource final : public IoSource {
 public:
  GuestIoSource(GuestMemory& m, GuestAddr addr, size_t n);
  GuestIoSource(GuestMemory& m, std::span<const GuestRange> ranges);
  Result<size_t> Take(void* dst, size_t n) override;
  Result<size_t> Drain(size_t max, SegmentIo io) override;
  void Rewind(size_t n) override;

 private:
  void Advance(size_t n);
  GuestMemory& memory_;
  GuestRange single_;
  std::span<const GuestRange> ranges_;
  size_t index_ = 0, offset_ = 0;
};

class BufferIoDest final : public IoDest {
 public:
  explicit BufferIoDest(std::span<std::byte> b) : IoDest(b.size()), at_(b.data()) {}
  BufferIoDest(void* p, size_t n) : IoDest(n), at_(static_cast<std::byte*>(p)) {}
  Result<size_t> Put(const void* src, size_t n) override {
    n = std::min(n, remaining_);
    memcpy(at_, src, n);
    return Advance(n);
  }
  Result<size_t> PutZeros(size_t n) override {
    n = std::min(n, remaining_);
    memset(at_, 0, n);
    return Advance(n);
  }
  Result<size_t> Fill(size_t max, SegmentIo io) override {
    iovec v{at_, std::min(max, remaining_)};
    return Advance(TRY(io(&v, 1)));
  }

 private:
  size_t Advance(size_t n) {
    at_ += n;
    remaining_ -= n;
    return n;
  }
  std::byte* at_;
};

class BufferIoSource final : public IoSource {
 public:
  explicit BufferIoSource(std::span<const std::byte> b) : IoSource(b.size()), at_(b.data()) {}
  BufferIoSource(const void* p, size_t n) : IoSource(n), at_(static_cast<const std::byte*>(p)) {}
  Result<size_t> Take(void* dst, size_t n) override {
    n = std::min(n, remaining_);
    memcpy(dst, at_, n);
    return Advance(n);
  }
  Result<size_t> Drain(size_t max, SegmentIo io) override {
    iovec v{const_cast<std::byte*>(at_), std::min(max, remaining_)};
    return Advance(TRY(io(&v, 1)));
  }
  void Rewind(size_t n) override {
    at_ -= n;
    remaining_ += n;
  }

 private:
  size_t Advance(size_t n) {
    at_ += n;
    remaining_ -= n;
    return n;
  }
  const std::byte* at_;
};

}  // namespace moat

#endif  // MOAT_PLATFORM_USERMEM_IO_H_
