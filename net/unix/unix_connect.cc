// listen, connect, accept, shutdown and close of AF_UNIX sockets.
#include <sys/epoll.h>

#include <algorithm>

#include "net/unix/unix_gc.h"
#include "net/unix/unix_socket.h"

namespace moat {
namespace {
constexpr EventMask kEverything = EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM | EPOLLRDHUP | EPOLLHUP | EPOLLERR;
}  // namespace

Result<void> UnixSocket::Listen(int backlog, const UnixCredentials& credentials) {
  if (!connection_oriented()) return kEOPNOTSUPP;
  {
    MutexLock lock(mu_);
    if (!bound_) return kEINVAL;
    if (state_ != State::kUnconnected && state_ != State::kListening) return kEINVAL;
    state_ = State::kListening;
    // As unsigned, so that -1 is "as many as there may be".
    backlog_ = static_cast<int>(std::min<unsigned>(static_cast<unsigned>(backlog), kMaxBacklog));
    listen_credentials_ = credentials;
  }
  wait_queue().Notify(EPOLLOUT);  // the queue may have become longer
  return {};
}

// Without the analysis: the accepted socket is not published yet, its lock is not needed.
Result<void> UnixSocket::Connect(UnixSocket& target,
                                 const UnixCredentials& credentials) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  if (target.type_ != type_) return kEPROTOTYPE;
  if (!connection_oriented()) {
    RefPtr<UnixSocket> old;
    MutexLock2 lock(mu_, target.mu_);
    if (target.state_ == State::kClosed) return kECONNREFUSED;
    // The peer may have chosen somebody else to talk to.
    if (target.peer_ && target.peer_ != this) return kEPERM;
    old = std::move(peer_);
    peer_ = RefPtr<UnixSocket>(&target);
    state_ = State::kConnected;
    return {};
  }
  RefPtr<UnixSocket> accepted;
  if (&target != this) {
    accepted = Create(type_, ns_);
  }
  {
    MutexLock2 lock(mu_, target.mu_);
    if (state_ == State::kConnected) return kEISCONN;
    if (state_ != State::kUnconnected) return kEINVAL;
    if (target.state_ != State::kListening || (target.shutdown_ & kReceiveShutdown)) return kECONNREFUSED;
    if (target.accept_queue_.size() > static_cast<size_t>(target.backlog_)) return kEAGAIN;
    accepted->state_ = State::kConnected;
    accepted->peer_ = RefPtr<UnixSocket>(this);
    accepted->peer_credentials_ = credentials;
    accepted->bound_ = true;  // named like the listener, without owning the name
    accepted->address_ = target.address_;
    peer_ = accepted;
    state_ = State::kConnected;
    peer_credentials_ = target.listen_credentials_;
    target.accept_queue_.push_back(accepted);
  }
  target.wait_queue().Notify(EPOLLIN | EPOLLRDNORM | kAsyncInput);
  wait_queue().Notify(EPOLLOUT | EPOLLWRNORM);
  return {};
}

void UnixSocket::Disconnect() {
  RefPtr<UnixSocket> old;
  MutexLock lock(mu_);
  if (connection_oriented() || state_ != State::kConnected) return;
  old = std::move(peer_);
  state_ = State::kUnconnected;
}

Result<RefPtr<UnixSocket>> UnixSocket::Accept() {
  if (!connection_oriented()) return kEOPNOTSUPP;
  RefPtr<UnixSocket> s;
  {
    MutexLock lock(mu_);
    if (state_ != State::kListening) return kEINVAL;
    if (accept_queue_.empty()) return (shutdown_ & kReceiveShutdown) ? kEINVAL : kEAGAIN;
    s = std::move(accept_queue_.front());
    accept_queue_.pop_front();
  }
  wait_queue().Notify(EPOLLOUT);  // for those who wait in connect
  return s;
}

Result<void> UnixSocket::Shutdown(int how) {
  if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR) return kEINVAL;
  const uint8_t mine = how == SHUT_RD   ? kReceiveShutdown
                       : how == SHUT_WR ? kSendShutdown
                                        : kReceiveShutdown | kSendShutdown;
  RefPtr<UnixSocket> peer;
  {
    MutexLock lock(mu_);
    shutdown_ |= mine;
    if (connection_oriented()) peer = peer_;
  }
  if (peer) {
    uint8_t theirs = 0;
    if (mine & kReceiveShutdown) theirs |= kSendShutdown;
    if (mine & kSendShutdown) theirs |= kReceiveShutdown;
    {
      MutexLock lock(peer->mu_);
      peer->shutdown_ |= theirs;
    }
    EventMask async = 0;
    if (theirs & kReceiveShutdown) async = (theirs & kSendShutdown) ? kAsyncHangup : kAsyncInput;
    peer->wait_queue().Notify(kEverything | async);
  }
  wait_queue().Notify(kEverything);
  return {};
}

void UnixSocket::Close() {
  std::deque<RefPtr<UnixMessage>> unread;
  std::deque<RefPtr<UnixSocket>> not_accepted;
  std::vector<RefPtr<UnixEvents>> blocked;
  RefPtr<UnixSocket> peer;
  std::string abstract_name;
  {
    MutexLock lock(mu_);
    if (state_ == State::kClosed) return;
    if (std::exchange(owns_abstract_name_, false)) abstract_name = address_;
    state_ = State::kClosed;
    shutdown_ = kReceiveShutdown | kSendShutdown;
    unread.swap(queue_);
    queued_bytes_ = 0;
    not_accepted.swap(accept_queue_);
    blocked.swap(blocked_senders_);
    peer = std::move(peer_);
  }
  if (!abstract_name.empty()) ns_->Release(std::string_view(abstract_name).substr(1));
  if (peer && connection_oriented()) {
    {
      MutexLock lock(peer->mu_);
      peer->shutdown_ = kReceiveShutdown | kSendShutdown;
      if (!unread.empty()) peer->error_ = kECONNRESET;
    }
    peer->wait_queue().Notify(kEverything | kAsyncHangup);
  }
  for (auto& s : not_accepted) {
    {
      // The client sees its connection reset, whether it has sent something or not.
      RefPtr<UnixSocket> client;
      {
        MutexLock lock(s->mu_);
        client = s->peer_;
      }
      if (client) {
        MutexLock lock(client->mu_);
        client->error_ = kECONNRESET;
      }
    }
    s->Close();
  }
  wait_queue().Notify(kEverything);
  for (auto& e : blocked) e->queue.Notify(EPOLLOUT | EPOLLWRNORM);
  unread.clear();
  UnixGc::Get().Collect();
}

}  // namespace moat
