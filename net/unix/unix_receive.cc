// Receiving on AF_UNIX sockets.
#include <sys/epoll.h>

#include <algorithm>

#include "net/unix/unix_gc.h"
#include "net/unix/unix_socket.h"

namespace moat {
namespace {

// Holds the collector off while rights that are sockets leave a queue. Without the analysis: it knows no lock that is
// held on a condition.
class GcGuard {
 public:
  explicit GcGuard(bool needed) ABSL_NO_THREAD_SAFETY_ANALYSIS : mu_(needed ? &UnixGc::Get().mutex() : nullptr) {
    if (mu_ != nullptr) mu_->Lock();
  }
  ~GcGuard() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    if (mu_ != nullptr) mu_->Unlock();
  }
  GcGuard(const GcGuard&) = delete;
  bool held() const { return mu_ != nullptr; }

 private:
  Mutex* const mu_;
};

}  // namespace

bool UnixSocket::FrontHasSockets() const {
  if (!UnixGc::Get().AnyInFlight()) return false;
  MutexLock lock(mu_);
  return !queue_.empty() && queue_.front()->HasSockets();
}

Result<UnixSocket::Received> UnixSocket::NothingLocked() {
  if (error_ != Errno::kOK) return std::exchange(error_, Errno::kOK);
  if (shutdown_ & kReceiveShutdown) return Received{};
  return kEAGAIN;
}

RefPtr<UnixMessage> UnixSocket::PopLocked() {
  RefPtr<UnixMessage> m = std::move(queue_.front());
  queue_.pop_front();
  queued_bytes_ -= m->left();
  return m;
}

void UnixSocket::NotifyBlockedSenders() {
  std::vector<RefPtr<UnixEvents>> blocked;
  {
    MutexLock lock(mu_);
    blocked.swap(blocked_senders_);
  }
  for (auto& e : blocked) e->queue.Notify(EPOLLOUT | EPOLLWRNORM);
}

Result<UnixSocket::Received> UnixSocket::Receive(IoDest& dst, int flags, size_t peek_offset) {
  const bool peek = (flags & MSG_PEEK) != 0;
  {
    MutexLock lock(mu_);
    if (connection_oriented() && state_ != State::kConnected && state_ != State::kClosed) {
      return type_ == SOCK_STREAM ? kEINVAL : kENOTCONN;
    }
  }
  for (;;) {
    Result<Received> r = type_ == SOCK_STREAM ? ReceiveStream(dst, peek, peek_offset) : ReceivePacket(dst, peek);
    // kERESTART never leaves here: rights came into the queue between the look and the lock.
    if (r.ok() || r.error() != kERESTART) return r;
  }
}

Result<UnixSocket::Received> UnixSocket::ReceiveStream(IoDest& dst, bool peek, size_t peek_offset) {
  struct Piece {
    RefPtr<UnixMessage> message;
    size_t offset, length;
    bool finished;  // taken out of the queue
  };
  std::vector<Piece> pieces;
  Received r;
  {
    GcGuard gc(FrontHasSockets());
    MutexLock lock(mu_);
    if (queue_.empty()) return NothingLocked();
    size_t want = dst.remaining();
    size_t skip = peek ? peek_offset : 0;
    const bool by_credentials = pass_credentials.load(std::memory_order_relaxed);
    bool rights_given = false;
    for (size_t i = 0; i < queue_.size() && want > 0;) {
      RefPtr<UnixMessage>& m = queue_[i];
      if (skip >= m->left()) {
        skip -= m->left();
        ++i;
        continue;
      }
      if (!pieces.empty()) {
        // Bytes of different writers, or with other rights, are not glued together.
        if (by_credentials && !(m->credentials == r.credentials && m->has_credentials == r.has_credentials)) break;
        if (rights_given || !m->rights.empty()) break;
      } else {
        r.credentials = m->credentials;
        r.has_credentials = m->has_credentials;
        if (!m->rights.empty() && m->HasSockets() && !gc.held() && !peek) return kERESTART;  // arrived just now: again
      }
      const size_t n = std::min(want, m->left() - skip);
      const size_t offset = m->consumed + skip;
      if (!m->rights.empty()) {
        rights_given = true;
        if (peek) {
          r.rights = m->rights;
        } else {
          r.rights = std::move(m->rights);
          m->rights.clear();
          if (gc.held()) UnixGc::Get().Taken(r.rights);
        }
      }
      want -= n;
      skip = 0;
      if (peek) {
        pieces.push_back({m, offset, n, false});
        ++i;
        continue;
      }
      queued_bytes_ -= n;
      m->consumed += n;
      if (m->left() == 0) {
        pieces.push_back({std::move(m), offset, n, true});
        queue_.pop_front();
      } else {
        pieces.push_back({m, offset, n, false});
      }
    }
    if (pieces.empty() && dst.remaining() > 0) return NothingLocked();
  }
  for (Piece& p : pieces) {
    Result<size_t> put = dst.Put(p.message->data.get() + p.offset, p.length);
    const size_t done = put.ok() ? *put : 0;
    r.bytes += done;
    if (done == p.length) continue;
    if (!peek) {
      // What the caller's memory refused goes back to where it was, last piece first.
      MutexLock lock(mu_);
      for (auto at = pieces.rbegin(); at != pieces.rend(); ++at) {
        const bool failed = &*at == &p;
        const size_t back = failed ? at->length - done : at->length;
        at->message->consumed -= back;
        queued_bytes_ += back;
        if (at->finished) queue_.push_front(at->message);
        if (failed) break;
      }
    }
    if (r.bytes == 0) return put.ok() ? kEFAULT : put.error();
    break;
  }
  r.length = r.bytes;
  return r;
}

Result<UnixSocket::Received> UnixSocket::ReceivePacket(IoDest& dst, bool peek) {
  RefPtr<UnixMessage> m;
  Received r;
  {
    GcGuard gc(!peek && FrontHasSockets());
    MutexLock lock(mu_);
    if (queue_.empty()) return NothingLocked();
    if (peek) {
      m = queue_.front();
      r.rights = m->rights;
    } else {
      if (queue_.front()->HasSockets() && !gc.held()) return kERESTART;  // arrived just now: again
      m = PopLocked();
      r.rights = std::move(m->rights);
      m->rights.clear();
      if (gc.held()) UnixGc::Get().Taken(r.rights);
    }
  }
  if (!peek) NotifyBlockedSenders();
  r.credentials = m->credentials;
  r.has_credentials = m->has_credentials;
  r.length = m->size;
  r.source = m->source;
  r.has_source = type_ == SOCK_DGRAM;
  r.end_of_record = type_ == SOCK_SEQPACKET;
  const size_t n = std::min(dst.remaining(), m->size);
  if (n > 0) {
    r.bytes = TRY(dst.Put(m->data.get(), n));
    if (r.bytes != n) return kEFAULT;
  }
  return r;
}

}  // namespace moat
