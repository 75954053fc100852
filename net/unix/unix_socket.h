// UnixSocket: the AF_UNIX transport: stream, datagram and sequential-packet sockets. Never blocks: kEAGAIN and the
// wait queue. Names in the file system are the caller's business: it makes the inode and tells the socket its address.
// Thread-safe. Locks: kSocket, two of them only in address order; no lock is held while bytes are copied from or to
// the caller's buffers, or while a message (which may hold the last reference to a file) is destroyed.
// Source: unix(7), socket(7), and the pages of the calls.
#ifndef MOAT_NET_UNIX_UNIX_SOCKET_H_
#define MOAT_NET_UNIX_UNIX_SOCKET_H_

#include <sys/socket.h>

#include <deque>
#include <optional>
#include <utility>

#include "net/unix/unix_message.h"
#include "net/unix/unix_namespace.h"
#include "platform/base/mutex.h"
#include "platform/usermem/io.h"

namespace moat {

class UnixSocket final : public RefCounted {
 public:
  // `type`: SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET.
  static RefPtr<UnixSocket> Create(int type, RefPtr<UnixNamespace> ns);
  static std::pair<RefPtr<UnixSocket>, RefPtr<UnixSocket>> CreatePair(int type, RefPtr<UnixNamespace> ns,
                                                                      const UnixCredentials& credentials);
  ~UnixSocket() override;

  int type() const { return type_; }
  bool connection_oriented() const { return type_ != SOCK_DGRAM; }
  UnixNamespace& ns() const { return *ns_; }
  WaitQueue& wait_queue() { return events_->queue; }

  // --- names. Addresses are the bytes of sun_path: "" unnamed, "\0name" abstract, "/path" (no NUL). ---
  Result<void> BindAbstract(std::string_view name);  // without the NUL; kEINVAL when bound, kEADDRINUSE
  Result<void> Autobind();
  // After the caller made the inode. kEINVAL when bound meanwhile.
  Result<void> BindPath(std::string path);
  bool IsBound() const;
  std::string address() const;
  Result<std::string> peer_address() const;  // kENOTCONN

  // --- connections ---
  Result<void> Listen(int backlog, const UnixCredentials& credentials);
  // Streams: kEAGAIN while the listener's queue is full (its wait queue says EPOLLOUT); kECONNREFUSED, kEPROTOTYPE,
  // kEISCONN, kEINVAL. Datagrams: sets the peer.
  Result<void> Connect(UnixSocket& target, const UnixCredentials& credentials);
  void Disconnect();  // a datagram socket's connect(AF_UNSPEC)
  Result<RefPtr<UnixSocket>> Accept();
  Result<void> Shutdown(int how);  // SHUT_*; kENOTCONN, kEINVAL
  // The last descriptor is closed.
  void Close();
  bool IsListening() const;
  bool IsConnected() const;

  // --- data ---
  struct SendRequest {
    std::vector<UnixRight> rights;  // go with the first byte; moved away once they are on their way
    UnixCredentials credentials;
    bool attach_credentials = false;  // SCM_CREDENTIALS was given
  };
  // `target`: where a datagram goes that is sent with an address, else null. Returns the bytes taken, for streams
  // perhaps fewer than there are. kEPIPE, kENOTCONN, kECONNREFUSED, kEMSGSIZE, kEPERM, kEAGAIN...
  Result<size_t> Send(IoSource& src, SendRequest& request, UnixSocket* target);

  struct Received {
    size_t bytes = 0;   // copied
    size_t length = 0;  // of the message; more than `bytes` if it was cut
    bool end_of_record = false;
    std::vector<UnixRight> rights;
    UnixCredentials credentials;
    bool has_credentials = false;
    std::string source;
    bool has_source = false;
  };
  // `flags`: MSG_PEEK. kEAGAIN when there is nothing; no bytes at the end of the stream. `peek_offset`: SO_PEEK_OFF.
  Result<Received> Receive(IoDest& dst, int flags, size_t peek_offset = 0);

  EventMask Poll(EventMask interest);
  // The pending error, and clears it (SO_ERROR).
  Errno TakeError();
  int InputBytes() const;  // SIOCINQ: of the first datagram, of everything in a stream
  int64_t OutputBytes() const { return events_->bytes_sent.load(std::memory_order_relaxed); }

  // --- options ---
  void SetSendBuffer(int64_t bytes);
  int64_t send_buffer() const { return send_buffer_.load(std::memory_order_relaxed); }
  std::atomic<bool> pass_credentials{false};
  std::optional<UnixCredentials> peer_credentials() const;

  // For /proc/net/unix.
  struct Info {
    std::string address;
    int type, state;  // state as in enum socket_state
    uint32_t flags;
  };
  Info GetInfo() const;
  std::atomic<uint64_t> ino{0};  // of the socket's inode, told by the owner

  static constexpr int64_t kDefaultBuffer = 212992;
  static constexpr size_t kMaxRights = 253;     // SCM_MAX_FD
  static constexpr size_t kMaxDatagrams = 512;  // net.unix.max_dgram_qlen
  static constexpr int kMaxBacklog = 4096;      // net.core.somaxconn

 private:
  friend class UnixGc;
  enum class State : uint8_t { kUnconnected, kListening, kConnected, kClosed };
  static constexpr uint8_t kReceiveShutdown = 1, kSendShutdown = 2;

  UnixSocket(int type, RefPtr<UnixNamespace> ns);
  bool Writable() const { return OutputBytes() * 4 <= send_buffer(); }
  Result<RefPtr<UnixSocket>> SendTarget(UnixSocket* target);
  Result<size_t> SendStream(IoSource& src, SendRequest& request, UnixSocket& peer);
  Result<size_t> SendPacket(IoSource& src, SendRequest& request, UnixSocket& peer, bool explicit_target);
  RefPtr<UnixMessage> NewMessage(SendRequest& request, UnixSocket& peer, std::unique_ptr<char[]> data, size_t size,
                                 int64_t charge);
  Result<Received> ReceiveStream(IoDest& dst, bool peek, size_t peek_offset);
  Result<Received> ReceivePacket(IoDest& dst, bool peek);
  // What a receive answers when the queue is empty.
  Result<Received> NothingLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  RefPtr<UnixMessage> PopLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool FrontHasSockets() const;
  void NotifyBlockedSenders();
  void AddBlockedSenderLocked(const RefPtr<UnixEvents>& sender) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const int type_;
  const RefPtr<UnixNamespace> ns_;
  const RefPtr<UnixEvents> events_;
  std::atomic<int64_t> send_buffer_{kDefaultBuffer};

  mutable Mutex mu_{LockRank::kSocket};
  State state_ ABSL_GUARDED_BY(mu_) = State::kUnconnected;
  uint8_t shutdown_ ABSL_GUARDED_BY(mu_) = 0;
  Errno error_ ABSL_GUARDED_BY(mu_) = Errno::kOK;
  bool bound_ ABSL_GUARDED_BY(mu_) = false;
  bool owns_abstract_name_ ABSL_GUARDED_BY(mu_) = false;
  std::string address_ ABSL_GUARDED_BY(mu_);
  RefPtr<UnixSocket> peer_ ABSL_GUARDED_BY(mu_);
  std::optional<UnixCredentials> peer_credentials_ ABSL_GUARDED_BY(mu_);
  std::deque<RefPtr<UnixMessage>> queue_ ABSL_GUARDED_BY(mu_);
  size_t queued_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  // Senders of datagrams that found the queue full.
  std::vector<RefPtr<UnixEvents>> blocked_senders_ ABSL_GUARDED_BY(mu_);
  // Listening.
  std::deque<RefPtr<UnixSocket>> accept_queue_ ABSL_GUARDED_BY(mu_);
  int backlog_ ABSL_GUARDED_BY(mu_) = 0;
  UnixCredentials listen_credentials_ ABSL_GUARDED_BY(mu_);
};

}  // namespace moat

#endif  // MOAT_NET_UNIX_UNIX_SOCKET_H_
