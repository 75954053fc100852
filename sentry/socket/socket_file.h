// SocketFile: a socket as a file description: what the socket calls talk to, whatever the family. Families plug in as
// SocketProvider. Operations never block (kEAGAIN); sys_socket.cc waits.
// Addresses are bytes of the guest's struct sockaddr, family included, already copied in and at most 128 of them.
// Source: socket(7), and the pages of the calls.
#ifndef MOAT_SENTRY_SOCKET_SOCKET_FILE_H_
#define MOAT_SENTRY_SOCKET_SOCKET_FILE_H_

#include <sys/socket.h>

#include <string>
#include <utility>

#include "fs/vfs/file.h"
#include "sentry/socket/control_message.h"

namespace moat {

class Task;

// One sendmsg(2), decoded.
struct SendMessage {
  IoSource* data = nullptr;
  std::string address;  // empty: none
  bool has_address = false;
  OutgoingControl control;
  int flags = 0;  // MSG_*
};

// What one recvmsg(2) got.
struct ReceivedMessage {
  size_t bytes = 0;   // put into the buffers
  size_t length = 0;  // of the message: more when it was cut
  std::string address;
  bool has_address = false;
  int flags = 0;  // MSG_TRUNC, MSG_EOR, ...
  IncomingControl control;
};

class SocketFile : public File {
 public:
  SocketFile(VfsPath path, int family, int type, int protocol, bool nonblocking);
  // Null when `f` is no socket.
  static SocketFile* Cast(File& f) { return dynamic_cast<SocketFile*>(&f); }
  int family() const { return family_; }
  int type() const { return type_; }
  int protocol() const { return protocol_; }

  virtual Result<void> Bind(Task& t, std::string_view address) = 0;
  // kEAGAIN: wait on `*wait_on` for EPOLLOUT and call again (`*wait_on` is set then; `keep` keeps it alive).
  virtual Result<void> Connect(Task& t, std::string_view address, WaitQueue** wait_on, RefPtr<RefCounted>* keep) = 0;
  virtual Result<void> Listen(Task& t, int backlog) = 0;
  virtual Result<RefPtr<SocketFile>> Accept(Task& t, bool nonblocking) = 0;
  virtual Result<void> Shutdown(int how) = 0;
  virtual Result<std::string> LocalAddress() = 0;
  virtual Result<std::string> PeerAddress() = 0;
  virtual Result<size_t> Send(Task& t, SendMessage& message) = 0;
  virtual Result<ReceivedMessage> Receive(Task& t, IoDest& dst, int flags) = 0;
  // True when a blocking send or a MSG_WAITALL receive goes on until all is done (streams).
  virtual bool is_stream() const { return type_ == SOCK_STREAM; }

  // getsockopt(2): the value's bytes, at most `max`. kENOPROTOOPT. The base knows SOL_SOCKET.
  virtual Result<std::string> GetOption(Task& t, int level, int name, size_t max);
  virtual Result<void> SetOption(Task& t, int level, int name, std::string_view value);

  Result<size_t> Read(const VfsContext& ctx, IoDest& dst) override;
  Result<size_t> Write(const VfsContext& ctx, IoSource& src) override;
  Result<size_t> PRead(const VfsContext&, IoDest&, int64_t) override { return kESPIPE; }
  Result<size_t> PWrite(const VfsContext&, IoSource&, int64_t) override { return kESPIPE; }
  Result<int64_t> Seek(const VfsContext&, int64_t, int) override { return kESPIPE; }

  // SO_RCVTIMEO, SO_SNDTIMEO: kNoDeadline for none.
  Nanos receive_timeout() const { return receive_timeout_.load(std::memory_order_relaxed); }
  Nanos send_timeout() const { return send_timeout_.load(std::memory_order_relaxed); }

 protected:
  // Hooks of SOL_SOCKET options that the family carries out.
  virtual bool listening() { return false; }
  virtual Errno TakeError() { return Errno::kOK; }
  virtual void SendBufferChanged(int64_t bytes) {}
  virtual void PassCredentialsChanged(bool on) {}
  virtual Result<std::string> PeerCredentials(Task& t) { return kENOPROTOOPT; }
  virtual Result<std::string> PeerPidfd(Task& t) { return kENOPROTOOPT; }
  virtual Result<std::string> PeerGroups(Task& t, size_t max) { return kENOPROTOOPT; }

  bool Flag(int bit) const { return (flag_options_.load(std::memory_order_relaxed) >> bit) & 1; }
  bool pass_credentials() const { return Flag(SO_PASSCRED); }
  bool pass_pidfd() const { return pass_pidfd_.load(std::memory_order_relaxed); }

 private:
  Result<std::string> GetTimeout(Nanos timeout);
  Result<void> SetTimeout(std::atomic<Nanos>& to, std::string_view value);

  const int family_, type_, protocol_;
  std::atomic<Nanos> receive_timeout_{kNoDeadline};
  std::atomic<Nanos> send_timeout_{kNoDeadline};
  std::atomic<uint64_t> flag_options_{0};  // on/off options with numbers below 64
  std::atomic<bool> pass_pidfd_{false};
  std::atomic<int> send_buffer_;
  std::atomic<int> receive_buffer_;
  std::atomic<int> priority_{0};
  std::atomic<int> mark_{0};
  std::atomic<int> low_water_{1};
  std::atomic<uint64_t> linger_{0};  // struct linger's two ints
};

// A family of sockets (AF_UNIX, ...).
class SocketProvider {
 public:
  virtual ~SocketProvider() = default;
  // `type` without SOCK_NONBLOCK and SOCK_CLOEXEC. kEPROTONOSUPPORT, kESOCKTNOSUPPORT.
  virtual Result<RefPtr<SocketFile>> Create(Task& t, int type, int protocol, bool nonblocking) = 0;
  virtual Result<std::pair<RefPtr<SocketFile>, RefPtr<SocketFile>>> CreatePair(Task& t, int type, int protocol,
                                                                               bool nonblocking) {
    return kEOPNOTSUPP;
  }
};

// At boot. Providers live for ever.
void RegisterSocketProvider(int family, SocketProvider& provider);
// kEAFNOSUPPORT, logged once for each family.
Result<SocketProvider*> FindSocketProvider(int family);

}  // namespace moat

#endif  // MOAT_SENTRY_SOCKET_SOCKET_FILE_H_
