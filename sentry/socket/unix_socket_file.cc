#include "sentry/socket/unix_socket_file.h"

#include <fmt/format.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/un.h>

#include <cstring>

#include "fs/anon/anon_inode.h"
#include "fs/vfs/vfs.h"
#include "platform/abi/socket.h"
#include "platform/base/log.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/kernel/task.h"
#include "sentry/procfs/net_dir.h"

namespace moat {
namespace {

// On the inode of a bound name.
struct BoundSocket final : Inode::Attachment {
  explicit BoundSocket(RefPtr<UnixSocket> s) : socket(std::move(s)) {}
  const RefPtr<UnixSocket> socket;
};

RefPtr<UnixNamespace> NamespaceOf(NetNamespace& net) {
  RefPtr<RefCounted> ns = net.slot(NetNamespace::kUnix);
  if (!ns) ns = net.AttachOnce(NetNamespace::kUnix, MakeRef<UnixNamespace>());
  return RefPtr<UnixNamespace>(static_cast<UnixNamespace*>(ns.get()));
}

// sun_path's bytes: "" for an unnamed address, "\0..." abstract, else a path without its NUL. kEINVAL.
Result<std::string_view> ParseAddress(std::string_view address) {
  if (address.size() < sizeof(sa_family_t) || address.size() > sizeof(sockaddr_un)) return kEINVAL;
  sa_family_t family;
  memcpy(&family, address.data(), sizeof family);
  if (family != AF_UNIX) return kEINVAL;
  std::string_view path = address.substr(sizeof family);
  if (path.empty() || path[0] == '\0') return path;
  return path.substr(0, path.find('\0'));
}

std::string EncodeAddress(const std::string& name) {
  sa_family_t family = AF_UNIX;
  std::string out(reinterpret_cast<const char*>(&family), sizeof family);
  out += name;
  if (!name.empty() && name[0] != '\0') out += '\0';
  return out;
}

std::string ProcNetUnix(NetNamespace& net) {
  std::string s = "Num       RefCount Protocol Flags    Type St Inode Path\n";
  for (RefPtr<UnixSocket>& socket : NamespaceOf(net)->Sockets()) {
    UnixSocket::Info i = socket->GetInfo();
    s += fmt::format("{:016x}: {:08x} {:08x} {:08x} {:04x} {:02x} {:5}", 0, socket->RefCountForTesting() - 1, 0,
                     i.flags, i.type, i.state, socket->ino.load());
    if (!i.address.empty()) {
      s += ' ';
      for (char c : i.address) s += c == '\0' ? '@' : c;
    }
    s += '\n';
  }
  return s;
}

class UnixProvider final : public SocketProvider {
 public:
  Result<RefPtr<SocketFile>> Create(Task& t, int type, int protocol, bool nonblocking) override {
    TRY(Check(type, protocol));
    RefPtr<UnixSocket> s = UnixSocket::Create(Kind(type), NamespaceOf(*t.net_ns()));
    return RefPtr<SocketFile>(MakeRef<UnixSocketFile>(t, std::move(s), nonblocking));
  }
  Result<std::pair<RefPtr<SocketFile>, RefPtr<SocketFile>>> CreatePair(Task& t, int type, int protocol,
                                                                       bool nonblocking) override {
    TRY(Check(type, protocol));
    auto [a, b] = UnixSocket::CreatePair(Kind(type), NamespaceOf(*t.net_ns()), CredentialsOf(t));
    RefPtr<SocketFile> fa = MakeRef<UnixSocketFile>(t, std::move(a), nonblocking);
    RefPtr<SocketFile> fb = MakeRef<UnixSocketFile>(t, std::move(b), nonblocking);
    return std::pair(std::move(fa), std::move(fb));
  }

 private:
  static int Kind(int type) { return type == SOCK_RAW ? SOCK_DGRAM : type; }  // as Linux does
  static Result<void> Check(int type, int protocol) {
    if (protocol != 0 && protocol != PF_UNIX) return kEPROTONOSUPPORT;
    if (type != SOCK_STREAM && type != SOCK_DGRAM && type != SOCK_SEQPACKET && type != SOCK_RAW)
      return kESOCKTNOSUPPORT;
    return {};
  }
};

}  // namespace

void RegisterUnixSockets() {
  static UnixProvider provider;
  RegisterSocketProvider(AF_UNIX, provider);
  RegisterProcNet("unix", ProcNetUnix);
}

UnixSocketFile::UnixSocketFile(Task& t, RefPtr<UnixSocket> socket, bool nonblocking)
    : SocketFile(SocketPath(t.cred().fsuid, t.cred().fsgid), AF_UNIX, socket->type(), 0, nonblocking),
      socket_(std::move(socket)) {
  socket_->ino = inode()->ino();
}

UnixSocketFile::~UnixSocketFile() {
  VfsPath bound;
  {
    MutexLock lock(mu_);
    bound = std::move(bound_);
    bound_ = VfsPath();
  }
  if (bound.dentry) {
    if (RefPtr<Inode> i = bound.dentry->inode()) i->Detach(Inode::Slot::kSocket);
  }
  socket_->Close();
}

// --- names ---

Result<void> UnixSocketFile::Bind(Task& t, std::string_view address) {
  std::string_view name = TRY(ParseAddress(address));
  if (name.empty()) return socket_->IsBound() ? Result<void>(kEINVAL) : socket_->Autobind();
  if (name[0] == '\0') return socket_->BindAbstract(name.substr(1));
  if (socket_->IsBound()) return kEINVAL;
  Task::FsCall fs(t);
  RefPtr<Inode> self = inode();
  uint32_t mode = (TRY(self->GetAccess()).mode & 0777) & ~fs.ctx().umask;
  Result<VfsPath> made = vfs::MknodSocket(fs, fs.ctx().cwd, name, mode);
  if (!made.ok()) return made.error() == kEEXIST ? kEADDRINUSE : made.error();
  RefPtr<Inode> node = made->dentry->inode();
  TRY(socket_->BindPath(std::string(name)));
  node->AttachOnce(Inode::Slot::kSocket, MakeRef<BoundSocket>(socket_));
  MutexLock lock(mu_);
  bound_ = std::move(*made);
  return {};
}

Result<RefPtr<UnixSocket>> UnixSocketFile::Resolve(Task& t, std::string_view address) {
  std::string_view name = TRY(ParseAddress(address));
  if (name.empty()) return kECONNREFUSED;
  RefPtr<UnixSocket> target;
  if (name[0] == '\0') {
    target = socket_->ns().Find(name.substr(1));
  } else {
    Task::FsCall fs(t);
    VfsPath place = TRY(vfs::Resolve(fs, fs.ctx().cwd, name));
    TRY(vfs::Access(fs, place, 2));
    RefPtr<Inode> node = place.dentry->inode();
    if (!node || node->type() != S_IFSOCK) return kECONNREFUSED;
    if (RefPtr<Inode::Attachment> a = node->attachment(Inode::Slot::kSocket)) {
      target = static_cast<BoundSocket&>(*a).socket;
    }
  }
  if (!target) return kECONNREFUSED;
  if (target->type() != socket_->type()) return kEPROTOTYPE;
  return target;
}

Result<std::string> UnixSocketFile::LocalAddress() { return EncodeAddress(socket_->address()); }
Result<std::string> UnixSocketFile::PeerAddress() { return EncodeAddress(TRY(socket_->peer_address())); }

// --- connections ---

Result<void> UnixSocketFile::Connect(Task& t, std::string_view address, WaitQueue** wait_on, RefPtr<RefCounted>* keep) {
  sa_family_t family = AF_UNIX;
  if (address.size() >= sizeof family) memcpy(&family, address.data(), sizeof family);
  if (family == AF_UNSPEC && !socket_->connection_oriented()) {
    socket_->Disconnect();
    return {};
  }
  RefPtr<UnixSocket> target = TRY(Resolve(t, address));
  if (pass_credentials() && !socket_->IsBound()) TRY(socket_->Autobind());
  Result<void> r = socket_->Connect(*target, CredentialsOf(t));
  if (!r.ok() && r.error() == kEAGAIN) {
    *wait_on = &target->wait_queue();
    *keep = target;
  }
  return r;
}

Result<void> UnixSocketFile::Listen(Task& t, int backlog) { return socket_->Listen(backlog, CredentialsOf(t)); }

Result<RefPtr<SocketFile>> UnixSocketFile::Accept(Task& t, bool nonblocking) {
  RefPtr<UnixSocket> s = TRY(socket_->Accept());
  RefPtr<UnixSocketFile> file = MakeRef<UnixSocketFile>(t, std::move(s), nonblocking);
  if (pass_credentials()) {
    const int on = 1;
    TRY(file->SetOption(t, SOL_SOCKET, SO_PASSCRED, {reinterpret_cast<const char*>(&on), sizeof on}));
  }
  return RefPtr<SocketFile>(std::move(file));
}

// --- data ---

Result<size_t> UnixSocketFile::Send(Task& t, SendMessage& message) {
  if (message.flags & MSG_OOB) {
    MOAT_LOG_ONCE("send MSG_OOB on AF_UNIX: not implemented, answers EOPNOTSUPP");
    return kEOPNOTSUPP;
  }
  RefPtr<UnixSocket> target;
  if (message.has_address) {
    if (socket_->connection_oriented()) {
      if (socket_->type() == SOCK_STREAM) return socket_->IsConnected() ? kEISCONN : kEOPNOTSUPP;
      // SOCK_SEQPACKET ignores the address (unix(7)).
    } else {
      target = TRY(Resolve(t, message.address));
    }
  }
  if (pass_credentials() && !socket_->connection_oriented() && !socket_->IsBound()) TRY(socket_->Autobind());
  UnixSocket::SendRequest request;
  request.attach_credentials = message.control.credentials.has_value();
  request.credentials = message.control.credentials ? *message.control.credentials : CredentialsOf(t);
  request.rights = std::move(message.control.rights);
  Result<size_t> sent = socket_->Send(*message.data, request, target.get());
  message.control.rights = std::move(request.rights);  // not yet sent: for the next try
  return sent;
}

Result<ReceivedMessage> UnixSocketFile::Receive(Task& t, IoDest& dst, int flags) {
  if (flags & MSG_OOB) return kEOPNOTSUPP;
  const int peek_offset = peek_offset_.load(std::memory_order_relaxed);
  size_t skip = (flags & MSG_PEEK) && peek_offset > 0 ? static_cast<size_t>(peek_offset) : 0;
  UnixSocket::Received r = TRY(socket_->Receive(dst, flags, skip));
  if (peek_offset >= 0 && r.bytes > 0) {
    // A peek moves the offset on, a read moves it back.
    if (flags & MSG_PEEK) {
      peek_offset_.fetch_add(static_cast<int>(r.bytes), std::memory_order_relaxed);
    } else {
      peek_offset_.store(std::max(0, peek_offset - static_cast<int>(r.bytes)), std::memory_order_relaxed);
    }
  }
  ReceivedMessage m;
  m.bytes = r.bytes;
  m.length = r.length;
  if (r.length > r.bytes) m.flags |= MSG_TRUNC;
  if (r.end_of_record && r.length > 0) m.flags |= MSG_EOR;
  if (r.has_source && !r.source.empty()) {
    m.address = EncodeAddress(r.source);
    m.has_address = true;
  }
  m.control.rights = std::move(r.rights);
  if (r.has_credentials) m.control.credentials = std::move(r.credentials);
  m.control.want_credentials = pass_credentials();
  m.control.want_pidfd = pass_pidfd();
  return m;
}

// --- options ---

Result<std::string> UnixSocketFile::PeerCredentials(Task& t) {
  std::optional<UnixCredentials> c = socket_->peer_credentials();
  if (!c) {
    abi::Ucred none{0, kNoId, kNoId};
    return std::string(reinterpret_cast<const char*>(&none), sizeof none);
  }
  return EncodeUcred(t, *c);
}

Result<std::string> UnixSocketFile::PeerPidfd(Task& t) {
  std::optional<UnixCredentials> c = socket_->peer_credentials();
  auto* pid = c ? dynamic_cast<Pid*>(c->process.get()) : nullptr;
  if (pid == nullptr) return kENODATA;
  RefPtr<PidFile> file = TRY(PidFile::Create(t.kernel(), RefPtr<Pid>(pid), 0));
  int fd = TRY(t.InstallFd(std::move(file), true));
  return std::string(reinterpret_cast<const char*>(&fd), sizeof fd);
}

Result<std::string> UnixSocketFile::PeerGroups(Task&, size_t) {
  MOAT_LOG_ONCE("getsockopt SO_PEERGROUPS: not implemented, answers ENOPROTOOPT");
  return kENOPROTOOPT;
}

Result<std::string> UnixSocketFile::GetOption(Task& t, int level, int name, size_t max) {
  if (level == SOL_SOCKET && name == SO_PEEK_OFF) {
    int v = peek_offset_.load(std::memory_order_relaxed);
    return std::string(reinterpret_cast<const char*>(&v), sizeof v);
  }
  return SocketFile::GetOption(t, level, name, max);
}

Result<void> UnixSocketFile::SetOption(Task& t, int level, int name, std::string_view value) {
  if (level == SOL_SOCKET && name == SO_PEEK_OFF) {
    int v;
    if (value.size() < sizeof v) return kEINVAL;
    memcpy(&v, value.data(), sizeof v);
    peek_offset_.store(v, std::memory_order_relaxed);
    return {};
  }
  return SocketFile::SetOption(t, level, name, value);
}

Result<int64_t> UnixSocketFile::Ioctl(const VfsContext&, GuestMemory& memory, uint32_t cmd, uint64_t arg) {
  int value;
  switch (cmd) {
    case SIOCINQ:  // FIONREAD
      if (socket_->IsListening()) return kEINVAL;
      value = socket_->InputBytes();
      break;
    case SIOCOUTQ:  // TIOCOUTQ
      value = static_cast<int>(std::min<int64_t>(socket_->OutputBytes(), INT32_MAX));
      break;
    default:
      return kENOTTY;
  }
  if (memory.CopyOut(arg, &value, sizeof value) != sizeof value) return kEFAULT;
  return 0;
}

}  // namespace moat
