// Sending on AF_UNIX sockets.
#include <sys/epoll.h>

#include <algorithm>

#include "net/unix/unix_gc.h"
#include "net/unix/unix_socket.h"

namespace moat {
namespace {

constexpr size_t kStreamChunk = 64 << 10;
// What a message costs beyond its bytes: keeps many tiny ones bounded.
constexpr int64_t kOverhead = 512;

// Copies `n` bytes from the caller. kEFAULT unless all could be had.
Result<std::unique_ptr<char[]>> TakeBytes(IoSource& src, size_t n) {
  std::unique_ptr<char[]> data(new (std::nothrow) char[n]);
  if (!data) return kENOBUFS;
  size_t got = 0;
  while (got < n) {
    size_t part = TRY(src.Take(data.get() + got, n - got));
    if (part == 0) return kEFAULT;
    got += part;
  }
  return data;
}

}  // namespace

RefPtr<UnixMessage> UnixSocket::NewMessage(SendRequest& request, UnixSocket& peer, std::unique_ptr<char[]> data,
                                           size_t size, int64_t charge) {
  RefPtr<UnixMessage> m = MakeRef<UnixMessage>();
  m->data = std::move(data);
  m->size = size;
  m->credentials = request.credentials;
  m->has_credentials = request.attach_credentials || pass_credentials.load(std::memory_order_relaxed) ||
                       peer.pass_credentials.load(std::memory_order_relaxed);
  m->sender = events_;
  m->charged = charge;
  events_->bytes_sent.fetch_add(charge, std::memory_order_relaxed);
  return m;
}

Result<RefPtr<UnixSocket>> UnixSocket::SendTarget(UnixSocket* target) {
  MutexLock lock(mu_);
  if (error_ != Errno::kOK) return std::exchange(error_, Errno::kOK);
  if (connection_oriented()) {
    if (shutdown_ & kSendShutdown) return kEPIPE;
    if (state_ != State::kConnected) return target != nullptr ? kEOPNOTSUPP : kENOTCONN;
    if (target != nullptr) return kEISCONN;
    return peer_;
  }
  if (shutdown_ & kSendShutdown) return kEPIPE;
  if (target != nullptr) return RefPtr<UnixSocket>(target);
  if (!peer_) return kENOTCONN;
  return peer_;
}

Result<size_t> UnixSocket::Send(IoSource& src, SendRequest& request, UnixSocket* target) {
  RefPtr<UnixSocket> peer = TRY(SendTarget(target));
  if (type_ == SOCK_STREAM) return SendStream(src, request, *peer);
  return SendPacket(src, request, *peer, target != nullptr);
}

Result<size_t> UnixSocket::SendStream(IoSource& src, SendRequest& request, UnixSocket& peer) {
  size_t total = 0;
  while (src.remaining() > 0) {
    const int64_t room = send_buffer() - OutputBytes();
    if (room <= 0) break;
    const size_t n = std::min({src.remaining(), kStreamChunk, static_cast<size_t>(std::max<int64_t>(room, 1))});
    Result<std::unique_ptr<char[]>> data = TakeBytes(src, n);
    if (!data.ok()) return total != 0 ? Result<size_t>(total) : Result<size_t>(data.error());
    RefPtr<UnixMessage> m = NewMessage(request, peer, std::move(*data), n, static_cast<int64_t>(n) + kOverhead);
    const bool first = !request.rights.empty();
    if (first) {
      m->rights = std::move(request.rights);
      request.rights.clear();
      UnixGc::Get().Sent(m->rights);
    }
    bool gone = false;
    {
      MutexLock lock(peer.mu_);
      if (peer.shutdown_ & kReceiveShutdown) {
        gone = true;
      } else {
        peer.queued_bytes_ += n;
        peer.queue_.push_back(m);
      }
    }
    if (gone) return total != 0 ? Result<size_t>(total) : Result<size_t>(kEPIPE);
    total += n;
    peer.wait_queue().Notify(EPOLLIN | EPOLLRDNORM | kAsyncInput);
  }
  if (src.remaining() > 0) events_->wants_room.store(true, std::memory_order_relaxed);
  if (total == 0 && src.remaining() > 0) return kEAGAIN;
  return total;
}

Result<size_t> UnixSocket::SendPacket(IoSource& src, SendRequest& request, UnixSocket& peer, bool explicit_target) {
  const size_t n = src.remaining();
  if (static_cast<int64_t>(n) > send_buffer() - 32) return kEMSGSIZE;
  const int64_t charge = static_cast<int64_t>(n) + kOverhead;
  const int64_t used = OutputBytes();
  if (used > 0 && used + charge > send_buffer()) {
    events_->wants_room.store(true, std::memory_order_relaxed);
    return kEAGAIN;
  }
  std::string own_address;
  {
    MutexLock lock(mu_);
    own_address = address_;
  }
  // Looked at again below: the copy must not happen under the lock.
  {
    MutexLock lock(peer.mu_);
    if (type_ == SOCK_DGRAM && peer.peer_ != this && peer.queue_.size() > kMaxDatagrams &&
        peer.state_ != State::kClosed) {
      peer.AddBlockedSenderLocked(events_);
      return kEAGAIN;
    }
  }
  RefPtr<UnixMessage> m = NewMessage(request, peer, TRY(TakeBytes(src, n)), n, charge);
  m->source = std::move(own_address);
  m->rights = std::move(request.rights);
  request.rights.clear();
  UnixGc::Get().Sent(m->rights);
  Errno failure = Errno::kOK;
  {
    MutexLock lock(peer.mu_);
    if (peer.state_ == State::kClosed) {
      failure = type_ == SOCK_DGRAM ? kECONNREFUSED : kEPIPE;
    } else if (peer.shutdown_ & kReceiveShutdown) {
      failure = kEPIPE;
    } else if (type_ == SOCK_DGRAM && peer.peer_ && peer.peer_ != this) {
      failure = kEPERM;  // it talks to somebody else only
    } else {
      peer.queued_bytes_ += n;
      peer.queue_.push_back(m);
    }
  }
  if (failure != Errno::kOK) {
    if (failure == kECONNREFUSED && !explicit_target) Disconnect();  // the connected peer is dead
    return failure;
  }
  peer.wait_queue().Notify(EPOLLIN | EPOLLRDNORM | kAsyncInput);
  return n;
}

}  // namespace moat
