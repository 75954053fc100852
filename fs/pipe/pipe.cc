#include "fs/pipe/pipe.h"

#include <sys/epoll.h>

#include <bit>
#include <cstring>

namespace moat {

std::unique_ptr<std::byte[]> Pipe::NewPageLocked() {
  if (spare_) return std::move(spare_);
  return std::make_unique_for_overwrite<std::byte[]>(kPageSize);
}

void Pipe::RecycleLocked(Buffer b) {
  if (!spare_) spare_ = std::move(b.data);
}

size_t Pipe::MergeRoomLocked() const {
  if (buffers_.empty() || buffers_.back().packet) return 0;
  return kPageSize - buffers_.back().start - buffers_.back().length;
}

size_t Pipe::RoomLocked() const {
  size_t free_slots = buffers_.size() >= slots_ ? 0 : slots_ - buffers_.size();
  return free_slots * kPageSize + MergeRoomLocked();
}

size_t Pipe::AppendLocked(const std::byte* bytes, size_t n, bool packet) {
  size_t done = 0;
  if (!packet) {
    size_t room = std::min(MergeRoomLocked(), n);
    if (room != 0) {
      Buffer& last = buffers_.back();
      memcpy(last.data.get() + last.start + last.length, bytes, room);
      last.length += static_cast<uint32_t>(room);
      done = room;
    }
  }
  while (done < n && buffers_.size() < slots_) {
    size_t piece = std::min(n - done, static_cast<size_t>(kPageSize));
    Buffer b{NewPageLocked(), 0, static_cast<uint32_t>(piece), packet};
    memcpy(b.data.get(), bytes + done, piece);
    buffers_.push_back(std::move(b));
    done += piece;
  }
  bytes_ += done;
  return done;
}

// Less than a page: copied out under the lock into a bounce buffer, so that the buffers stay where they are.
Result<size_t> Pipe::ReadSmall(IoDest& dst) {
  std::byte bounce[kPageSize];
  size_t n = 0;
  bool was_full;
  {
    MutexLock lock(mu_);
    if (buffers_.empty()) return writers_ != 0 ? Result<size_t>(kEAGAIN) : 0;
    was_full = buffers_.size() >= slots_;
    size_t want = std::min(dst.remaining(), sizeof bounce);
    while (n < want && !buffers_.empty()) {
      Buffer& b = buffers_.front();
      size_t piece = std::min<size_t>(want - n, b.length);
      memcpy(bounce + n, b.data.get() + b.start, piece);
      n += piece;
      bool packet = b.packet;
      size_t consumed = packet ? b.length : piece;  // what a packet's reader leaves is lost
      b.start += static_cast<uint32_t>(consumed);
      b.length -= static_cast<uint32_t>(consumed);
      bytes_ -= consumed;
      if (b.length == 0) {
        RecycleLocked(std::move(b));
        buffers_.pop_front();
      }
      if (packet) break;
    }
    was_full = was_full && buffers_.size() < slots_;
  }
  queue_.Notify((was_full ? EPOLLOUT | EPOLLWRNORM : 0u) | kAsyncOutput);
  return dst.Put(bounce, n);
}

Result<size_t> Pipe::Read(IoDest& dst) {
  if (dst.remaining() == 0) return 0;
  if (dst.remaining() <= kPageSize) return ReadSmall(dst);
  std::deque<Buffer> taken;
  bool packet = false;
  {
    MutexLock lock(mu_);
    if (buffers_.empty()) return writers_ != 0 ? Result<size_t>(kEAGAIN) : 0;
    size_t want = dst.remaining();
    while (!buffers_.empty() && want >= buffers_.front().length) {
      packet = buffers_.front().packet;
      if (packet && !taken.empty()) break;
      want -= buffers_.front().length;
      bytes_ -= buffers_.front().length;
      taken.push_back(std::move(buffers_.front()));
      buffers_.pop_front();
      if (packet) break;
    }
  }
  size_t done = 0;
  Result<size_t> end = size_t{0};
  while (!taken.empty()) {
    Buffer& b = taken.front();
    end = dst.Put(b.data.get() + b.start, b.length);
    size_t n = end.ok() ? *end : 0;
    done += n;
    b.start += static_cast<uint32_t>(n);
    b.length -= static_cast<uint32_t>(n);
    if (b.length != 0) break;  // the guest's buffer ends in a fault
    MutexLock lock(mu_);
    RecycleLocked(std::move(b));
    taken.pop_front();
  }
  if (!taken.empty()) {
    MutexLock lock(mu_);
    for (; !taken.empty(); taken.pop_back()) {
      bytes_ += taken.back().length;
      buffers_.push_front(std::move(taken.back()));
    }
  }
  queue_.Notify(EPOLLOUT | EPOLLWRNORM | kAsyncOutput);
  if (done == 0 && !end.ok()) return end.error();
  // The rest of a partly wanted buffer, if there is one.
  if (end.ok() && !packet && dst.remaining() != 0) {
    Result<size_t> rest = ReadSmall(dst);
    if (rest.ok()) done += *rest;
  }
  return done;
}

Result<size_t> Pipe::Peek(IoDest& dst, size_t skip) {
  size_t done = 0;
  while (dst.remaining() != 0) {
    std::byte bounce[kPageSize];
    size_t n = 0;
    {
      MutexLock lock(mu_);
      if (buffers_.empty() && done == 0) return writers_ != 0 ? Result<size_t>(kEAGAIN) : 0;
      size_t at = skip + done;
      for (const Buffer& b : buffers_) {
        if (at >= b.length) {
          at -= b.length;
          continue;
        }
        n = std::min<size_t>(b.length - at, dst.remaining());
        memcpy(bounce, b.data.get() + b.start + at, n);
        break;
      }
    }
    if (n == 0) break;
    Result<size_t> put = dst.Put(bounce, n);
    if (!put.ok()) return done != 0 ? Result<size_t>(done) : put.error();
    done += *put;
    if (*put != n) break;
  }
  return done;
}

Result<size_t> Pipe::Write(IoSource& src, bool packets) {
  const size_t wanted = src.remaining();
  size_t room;
  {
    MutexLock lock(mu_);
    if (readers_ == 0) return kEPIPE;
    if (wanted == 0) return 0;
    room = packets ? (buffers_.size() < slots_ ? slots_ - buffers_.size() : 0) * kPageSize : RoomLocked();
  }
  if (room == 0 || (wanted <= kAtomic && room < wanted)) return kEAGAIN;
  size_t done = 0;
  while (done < wanted && done < room) {
    std::byte staged[kPageSize];
    Result<size_t> n = src.Take(staged, std::min(sizeof staged, room - done));
    if (!n.ok()) {
      if (done == 0) return n.error();
      break;
    }
    size_t appended = 0;
    bool no_readers = false;
    {
      MutexLock lock(mu_);
      no_readers = readers_ == 0;
      bool whole = wanted <= kAtomic || packets;
      // Others may have written since the look at the room.
      size_t now = packets ? (buffers_.size() < slots_ ? kPageSize : 0) : RoomLocked();
      if (!no_readers && (!whole || now >= *n)) appended = AppendLocked(staged, *n, packets);
    }
    if (appended < *n) src.Rewind(*n - appended);
    done += appended;
    if (no_readers && done == 0) return kEPIPE;
    if (appended < *n) break;
  }
  if (done == 0) return kEAGAIN;
  queue_.Notify(EPOLLIN | EPOLLRDNORM | kAsyncInput);
  return done;
}

size_t Pipe::Available() const {
  MutexLock lock(mu_);
  return bytes_;
}

size_t Pipe::Room() const {
  MutexLock lock(mu_);
  return RoomLocked();
}

size_t Pipe::capacity() const {
  MutexLock lock(mu_);
  return slots_ * kPageSize;
}

Result<uint32_t> Pipe::SetCapacity(uint32_t bytes, bool privileged) {
  if (bytes > kMaxSlots * kPageSize) return kEINVAL;
  size_t slots = std::bit_ceil(std::max<size_t>((bytes + kPageSize - 1) / kPageSize, 1));
  {
    MutexLock lock(mu_);
    if (slots > slots_ && slots > kMaxUserSlots && !privileged) return kEPERM;
    if (slots < buffers_.size()) return kEBUSY;
    slots_ = slots;
  }
  queue_.Notify(EPOLLOUT | EPOLLWRNORM);
  return static_cast<uint32_t>(slots * kPageSize);
}

void Pipe::AddReader() {
  {
    MutexLock lock(mu_);
    ++readers_;
    ++reader_opens_;
  }
  queue_.Notify(EPOLLOUT);
}

void Pipe::AddWriter() {
  {
    MutexLock lock(mu_);
    ++writers_;
    ++writer_opens_;
  }
  queue_.Notify(EPOLLIN);
}

EventMask Pipe::AfterDropLocked() {
  if (readers_ == 0 && writers_ == 0) {
    buffers_.clear();
    bytes_ = 0;
  }
  // Who is left alone hears of it by signal, too.
  return (readers_ == 0) != (writers_ == 0) ? kAsyncInput | kAsyncOutput : 0;
}

void Pipe::DropReader() {
  EventMask async;
  {
    MutexLock lock(mu_);
    --readers_;
    async = AfterDropLocked();
  }
  queue_.Notify(EPOLLOUT | EPOLLERR | EPOLLHUP | async);
}

void Pipe::DropWriter() {
  EventMask async;
  {
    MutexLock lock(mu_);
    --writers_;
    async = AfterDropLocked();
  }
  queue_.Notify(EPOLLIN | EPOLLERR | EPOLLHUP | async);
}

bool Pipe::HasReaders() const {
  MutexLock lock(mu_);
  return readers_ != 0;
}

bool Pipe::HasWriters() const {
  MutexLock lock(mu_);
  return writers_ != 0;
}

uint32_t Pipe::reader_opens() const {
  MutexLock lock(mu_);
  return reader_opens_;
}

uint32_t Pipe::writer_opens() const {
  MutexLock lock(mu_);
  return writer_opens_;
}

EventMask Pipe::Poll(bool readable, bool writable) const {
  MutexLock lock(mu_);
  EventMask mask = 0;
  if (readable) {
    if (!buffers_.empty()) mask |= EPOLLIN | EPOLLRDNORM;
    // A FIFO that never had a writer is not hung up.
    if (writers_ == 0 && writer_opens_ != 0) mask |= EPOLLHUP;
  }
  if (writable) {
    if (buffers_.size() < slots_) mask |= EPOLLOUT | EPOLLWRNORM;
    if (readers_ == 0) mask |= EPOLLERR;
  }
  return mask;
}

}  // namespace moat
