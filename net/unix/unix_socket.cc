// Names, states and options of AF_UNIX sockets; unix_connect.cc has connections, unix_send.cc and unix_receive.cc
// the data.
#include "net/unix/unix_socket.h"

#include <sys/epoll.h>

#include "net/unix/unix_gc.h"

namespace moat {

UnixMessage::~UnixMessage() {
  UnixGc::Get().Dropped(rights);
  if (!sender) return;
  sender->bytes_sent.fetch_sub(charged, std::memory_order_relaxed);
  const bool signal = sender->wants_room.load(std::memory_order_relaxed) &&
                      sender->wants_room.exchange(false, std::memory_order_relaxed);
  sender->queue.Notify(EPOLLOUT | EPOLLWRNORM | (signal ? kAsyncOutput : 0));
}

bool UnixMessage::HasSockets() const {
  for (const UnixRight& r : rights) {
    if (r.socket != nullptr) return true;
  }
  return false;
}

UnixSocket::UnixSocket(int type, RefPtr<UnixNamespace> ns)
    : type_(type), ns_(std::move(ns)), events_(MakeRef<UnixEvents>()) {
  ns_->Add(*this);
}

UnixSocket::~UnixSocket() { ns_->Remove(*this); }

RefPtr<UnixSocket> UnixSocket::Create(int type, RefPtr<UnixNamespace> ns) {
  return AdoptRef(new UnixSocket(type, std::move(ns)));
}

std::pair<RefPtr<UnixSocket>, RefPtr<UnixSocket>> UnixSocket::CreatePair(int type, RefPtr<UnixNamespace> ns,
                                                                         const UnixCredentials& credentials) {
  RefPtr<UnixSocket> a = Create(type, ns), b = Create(type, ns);
  auto join = [&](UnixSocket& from, UnixSocket& to) {
    MutexLock lock(from.mu_);
    from.state_ = State::kConnected;
    from.peer_ = RefPtr<UnixSocket>(&to);
    from.peer_credentials_ = credentials;
  };
  join(*a, *b);
  join(*b, *a);
  return {std::move(a), std::move(b)};
}

// --- names ---

Result<void> UnixSocket::BindAbstract(std::string_view name) {
  MutexLock lock(mu_);
  if (bound_ || state_ == State::kClosed) return kEINVAL;
  TRY(ns_->Claim(name, *this));
  bound_ = owns_abstract_name_ = true;
  address_ = std::string(1, '\0');
  address_ += name;
  return {};
}

Result<void> UnixSocket::Autobind() {
  MutexLock lock(mu_);
  if (bound_) return {};
  std::string name = TRY(ns_->ClaimAny(*this));
  bound_ = owns_abstract_name_ = true;
  address_ = std::string(1, '\0') + name;
  return {};
}

Result<void> UnixSocket::BindPath(std::string path) {
  MutexLock lock(mu_);
  if (bound_ || state_ == State::kClosed) return kEINVAL;
  bound_ = true;
  address_ = std::move(path);
  return {};
}

bool UnixSocket::IsBound() const {
  MutexLock lock(mu_);
  return bound_;
}

std::string UnixSocket::address() const {
  MutexLock lock(mu_);
  return address_;
}

Result<std::string> UnixSocket::peer_address() const {
  RefPtr<UnixSocket> peer;
  {
    MutexLock lock(mu_);
    peer = peer_;
  }
  if (!peer) return kENOTCONN;
  return peer->address();
}

void UnixSocket::AddBlockedSenderLocked(const RefPtr<UnixEvents>& sender) {
  for (auto& known : blocked_senders_) {
    if (known == sender) return;
  }
  blocked_senders_.push_back(sender);
}

// --- state ---

bool UnixSocket::IsListening() const {
  MutexLock lock(mu_);
  return state_ == State::kListening;
}

bool UnixSocket::IsConnected() const {
  MutexLock lock(mu_);
  return state_ == State::kConnected;
}

Errno UnixSocket::TakeError() {
  MutexLock lock(mu_);
  return std::exchange(error_, Errno::kOK);
}

std::optional<UnixCredentials> UnixSocket::peer_credentials() const {
  MutexLock lock(mu_);
  return peer_credentials_;
}

void UnixSocket::SetSendBuffer(int64_t bytes) {
  send_buffer_.store(bytes, std::memory_order_relaxed);
  wait_queue().Notify(EPOLLOUT | EPOLLWRNORM);
}

int UnixSocket::InputBytes() const {
  MutexLock lock(mu_);
  if (type_ == SOCK_STREAM) return static_cast<int>(std::min<size_t>(queued_bytes_, INT32_MAX));
  return queue_.empty() ? 0 : static_cast<int>(queue_.front()->size);
}

UnixSocket::Info UnixSocket::GetInfo() const {
  constexpr int kSsUnconnected = 1, kSsConnected = 3;  // linux/net.h
  constexpr uint32_t kAcceptsConnections = 1 << 16;    // __SO_ACCEPTCON
  MutexLock lock(mu_);
  return {address_, type_, state_ == State::kConnected ? kSsConnected : kSsUnconnected,
          state_ == State::kListening ? kAcceptsConnections : 0};
}

EventMask UnixSocket::Poll(EventMask interest) {
  EventMask ready = 0;
  RefPtr<UnixSocket> datagram_peer;
  bool writable = Writable();
  {
    MutexLock lock(mu_);
    if (error_ != Errno::kOK) ready |= EPOLLERR;
    if (shutdown_ == (kReceiveShutdown | kSendShutdown)) ready |= EPOLLHUP;
    if (shutdown_ & kReceiveShutdown) ready |= EPOLLRDHUP | EPOLLIN | EPOLLRDNORM;
    if (state_ == State::kListening ? !accept_queue_.empty() : !queue_.empty()) ready |= EPOLLIN | EPOLLRDNORM;
    if (connection_oriented() && state_ == State::kUnconnected) ready |= EPOLLHUP;
    if (state_ == State::kListening) writable = false;
    if (!connection_oriented() && peer_ && (interest & EPOLLOUT)) datagram_peer = peer_;
  }
  if (datagram_peer && writable) {
    // A full queue of the peer stops us, unless it is connected to us.
    MutexLock lock(datagram_peer->mu_);
    if (datagram_peer->peer_ != this && datagram_peer->queue_.size() > kMaxDatagrams) {
      writable = false;
      datagram_peer->AddBlockedSenderLocked(events_);
    }
  }
  if (writable) ready |= EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND;
  return ready & (interest | EPOLLERR | EPOLLHUP);
}

}  // namespace moat
