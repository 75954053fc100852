#include "platform/usermem/io.h"

namespace moat {
namespace {

size_t TotalLength(std::span<const GuestRange> ranges) {
  size_t n = 0;
  for (const GuestRange& r : ranges) n += r.length;  // the caller checked the sum against MAX_RW_COUNT
  return n;
}

// Steps over a cursor's ranges, calling `step(addr, length)` for each piece of the next `n` bytes.
// `step` returns how many bytes it moved; fewer than asked ends the walk.
template <typename Step>
Result<size_t> Walk(std::span<const GuestRange> ranges, size_t index, size_t offset, size_t n, Step step) {
  size_t done = 0;
  while (done < n && index < ranges.size()) {
    size_t piece = std::min(n - done, ranges[index].length - offset);
    if (piece != 0) {
      size_t moved = step(ranges[index].addr + offset, done, piece);
      done += moved;
      if (moved != piece) {
        if (done == 0) return kEFAULT;
        return done;
      }
    }
    ++index;
    offset = 0;
  }
  return done;
}

void AdvanceCursor(std::span<const GuestRange> ranges, size_t& index, size_t& offset, size_t n) {
  offset += n;
  while (index < ranges.size() && offset >= ranges[index].length) {
    offset -= ranges[index].length;
    ++index;
  }
}

Result<size_t> OneSegmentCall(GuestMemory& m, std::span<const GuestRange> ranges, size_t index, size_t offset,
                              size_t max, bool to_guest, SegmentIo io) {
  while (index < ranges.size() && ranges[index].length == offset) {
    ++index;
    offset = 0;
  }
  if (max == 0 || index == ranges.size()) return io(nullptr, 0);
  size_t piece = std::min(max, ranges[index].length - offset);
  return m.WithSegments(ranges[index].addr + offset, piece, to_guest, io);
}

}  // namespace

GuestIoDest::GuestIoDest(GuestMemory& m, GuestAddr addr, size_t n)
    : IoDest(n), memory_(m), single_{addr, n}, ranges_(&single_, 1) {}
GuestIoDest::GuestIoDest(GuestMemory& m, std::span<const GuestRange> ranges)
    : IoDest(TotalLength(ranges)), memory_(m), single_{}, ranges_(ranges) {}

void GuestIoDest::Advance(size_t n) {
  remaining_ -= n;
  AdvanceCursor(ranges_, index_, offset_, n);
}

Result<size_t> GuestIoDest::Put(const void* src, size_t n) {
  n = std::min(n, remaining_);
  size_t done = TRY(Walk(ranges_, index_, offset_, n, [&](GuestAddr at, size_t from, size_t len) {
    return memory_.CopyOut(at, static_cast<const std::byte*>(src) + from, len);
  }));
  Advance(done);
  return done;
}

Result<size_t> GuestIoDest::PutZeros(size_t n) {
  n = std::min(n, remaining_);
  size_t done = TRY(
      Walk(ranges_, index_, offset_, n, [&](GuestAddr at, size_t, size_t len) { return memory_.ZeroOut(at, len); }));
  Advance(done);
  return done;
}

Result<size_t> GuestIoDest::Fill(size_t max, SegmentIo io) {
  size_t done = TRY(OneSegmentCall(memory_, ranges_, index_, offset_, std::min(max, remaining_), true, io));
  Advance(done);
  return done;
}

GuestIoSource::GuestIoSource(GuestMemory& m, GuestAddr addr, size_t n)
    : IoSource(n), memory_(m), single_{addr, n}, ranges_(&single_, 1) {}
GuestIoSource::GuestIoSource(GuestMemory& m, std::span<const GuestRange> ranges)
    : IoSource(TotalLength(ranges)), memory_(m), single_{}, ranges_(ranges) {}

void GuestIoSource::Advance(size_t n) {
  remaining_ -= n;
  AdvanceCursor(ranges_, index_, offset_, n);
}

void GuestIoSource::Rewind(size_t n) {
  remaining_ += n;
  while (n > offset_) {
    n -= offset_;
    --index_;
    offset_ = ranges_[index_].length;
  }
  offset_ -= n;
}

Result<size_t> GuestIoSource::Take(void* dst, size_t n) {
  n = std::min(n, remaining_);
  size_t done = TRY(Walk(ranges_, index_, offset_, n, [&](GuestAddr at, size_t from, size_t len) {
    return memory_.CopyIn(static_cast<std::byte*>(dst) + from, at, len);
  }));
  Advance(done);
  return done;
}

Result<size_t> GuestIoSource::Drain(size_t max, SegmentIo io) {
  size_t done = TRY(OneSegmentCall(memory_, ranges_, index_, offset_, std::min(max, remaining_), false, io));
  Advance(done);
  return done;
}

}  // namespace moat
