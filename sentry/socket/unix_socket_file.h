// AF_UNIX sockets as files: names in the file system and in the abstract name space, credentials, rights.
// Source: unix(7).
#ifndef MOAT_SENTRY_SOCKET_UNIX_SOCKET_FILE_H_
#define MOAT_SENTRY_SOCKET_UNIX_SOCKET_FILE_H_

#include "net/unix/unix_socket.h"
#include "sentry/socket/socket_file.h"

namespace moat {

// Registers AF_UNIX and /proc/net/unix. Once, at boot.
void RegisterUnixSockets();

class UnixSocketFile final : public SocketFile {
 public:
  UnixSocketFile(Task& t, RefPtr<UnixSocket> socket, bool nonblocking);
  ~UnixSocketFile() override;
  UnixSocket& socket() { return *socket_; }

  Result<void> Bind(Task& t, std::string_view address) override;
  Result<void> Connect(Task& t, std::string_view address, WaitQueue** wait_on, RefPtr<RefCounted>* keep) override;
  Result<void> Listen(Task& t, int backlog) override;
  Result<RefPtr<SocketFile>> Accept(Task& t, bool nonblocking) override;
  Result<void> Shutdown(int how) override { return socket_->Shutdown(how); }
  Result<std::string> LocalAddress() override;
  Result<std::string> PeerAddress() override;
  Result<size_t> Send(Task& t, SendMessage& message) override;
  Result<ReceivedMessage> Receive(Task& t, IoDest& dst, int flags) override;
  Result<std::string> GetOption(Task& t, int level, int name, size_t max) override;
  Result<void> SetOption(Task& t, int level, int name, std::string_view value) override;
  Result<int64_t> Ioctl(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg) override;

  EventMask Poll(EventMask interest) override { return socket_->Poll(interest); }
  WaitQueue& wait_queue() override { return socket_->wait_queue(); }
  EventMask AsyncEvents() const override { return kAsyncInput | kAsyncOutput | kAsyncHangup; }

 protected:
  bool listening() override { return socket_->IsListening(); }
  Errno TakeError() override { return socket_->TakeError(); }
  void SendBufferChanged(int64_t bytes) override { socket_->SetSendBuffer(bytes); }
  void PassCredentialsChanged(bool on) override { socket_->pass_credentials = on; }
  Result<std::string> PeerCredentials(Task& t) override;
  Result<std::string> PeerPidfd(Task& t) override;
  Result<std::string> PeerGroups(Task& t, size_t max) override;

 private:
  // The socket that an address names. kECONNREFUSED, kENOENT, kEACCES, kEPROTOTYPE, kEINVAL.
  Result<RefPtr<UnixSocket>> Resolve(Task& t, std::string_view address);

  const RefPtr<UnixSocket> socket_;
  Mutex mu_{LockRank::kLeaf};
  VfsPath bound_ ABSL_GUARDED_BY(mu_);  // where bind(2) made the name
  std::atomic<int> peek_offset_{-1};    // SO_PEEK_OFF
};

}  // namespace moat

#endif  // MOAT_SENTRY_SOCKET_UNIX_SOCKET_FILE_H_
