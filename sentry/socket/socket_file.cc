#include "sentry/socket/socket_file.h"

#include <fcntl.h>

#include <array>
#include <cstring>

#include "platform/abi/socket.h"
#include "platform/abi/time.h"
#include "platform/base/log.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/timekeeping.h"

namespace moat {
namespace {

constexpr int kDefaultBuffer = 212992, kMinSendBuffer = 4608, kMinReceiveBuffer = 2304, kMaxBuffer = 212992;

template <typename T>
std::string Bytes(const T& value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename T>
Result<T> Decode(std::string_view bytes) {
  T value;
  if (bytes.size() < sizeof value) return kEINVAL;
  memcpy(&value, bytes.data(), sizeof value);
  return value;
}

// On/off options that are kept and shown; those that mean something are asked for by Flag().
constexpr bool IsFlagOption(int name) {
  switch (name) {
    case SO_DEBUG:
    case SO_REUSEADDR:
    case SO_DONTROUTE:
    case SO_BROADCAST:
    case SO_KEEPALIVE:
    case SO_OOBINLINE:
    case SO_NO_CHECK:
    case SO_REUSEPORT:
    case SO_PASSCRED:
    case SO_TIMESTAMP:
    case SO_PASSSEC:
    case SO_TIMESTAMPNS:
    case SO_RXQ_OVFL:
    case SO_ZEROCOPY:
      return true;
    default:
      return false;
  }
}

// Linux doubles what is asked for, for its bookkeeping, and shows the doubled value.
int BufferSize(int wanted, int minimum, bool force) {
  wanted = std::max(wanted, 0);
  if (!force) wanted = std::min(wanted, kMaxBuffer);
  return std::max(std::min(wanted, INT32_MAX / 2) * 2, minimum);
}

constexpr int kFamilies = AF_MAX;
std::array<SocketProvider*, kFamilies> providers{};
std::array<std::atomic<bool>, kFamilies> logged{};

}  // namespace

void RegisterSocketProvider(int family, SocketProvider& provider) { providers[family] = &provider; }

Result<SocketProvider*> FindSocketProvider(int family) {
  if (family < 0 || family >= kFamilies) return kEAFNOSUPPORT;
  if (providers[family] != nullptr) return providers[family];
  if (!logged[family].exchange(true))
    MOAT_LOG(kWarning, "socket family {}: not implemented, answers EAFNOSUPPORT", family);
  return kEAFNOSUPPORT;
}

SocketFile::SocketFile(VfsPath path, int family, int type, int protocol, bool nonblocking)
    : File(std::move(path), OpenFlags{O_RDWR | (nonblocking ? O_NONBLOCK : 0)}),
      family_(family),
      type_(type),
      protocol_(protocol),
      send_buffer_(kDefaultBuffer),
      receive_buffer_(kDefaultBuffer) {}

Result<size_t> SocketFile::Read(const VfsContext& ctx, IoDest& dst) {
  return TRY(Receive(*static_cast<Task*>(ctx.task), dst, 0)).bytes;
}

Result<size_t> SocketFile::Write(const VfsContext& ctx, IoSource& src) {
  SendMessage message;
  message.data = &src;
  return Send(*static_cast<Task*>(ctx.task), message);
}

Result<std::string> SocketFile::GetTimeout(Nanos timeout) {
  return Bytes(timeout == kNoDeadline ? abi::Timeval{} : ToTimeval(timeout));
}

Result<void> SocketFile::SetTimeout(std::atomic<Nanos>& to, std::string_view value) {
  auto tv = TRY(Decode<abi::Timeval>(value));
  if (tv.tv_usec < 0 || tv.tv_usec >= 1'000'000) return kEDOM;
  if (tv.tv_sec < 0) {
    to = 0;  // times out at once
  } else if (tv.tv_sec == 0 && tv.tv_usec == 0) {
    to = kNoDeadline;
  } else {
    to = tv.tv_sec >= kMaxTimespecSeconds ? kNoDeadline : tv.tv_sec * kNanosPerSec + tv.tv_usec * 1000;
  }
  return {};
}

Result<std::string> SocketFile::GetOption(Task& t, int level, int name, size_t max) {
  if (level != SOL_SOCKET) return kEOPNOTSUPP;
  if (IsFlagOption(name)) return Bytes(int{Flag(name)});
  switch (name) {
    case SO_TYPE:
      return Bytes(type_);
    case SO_DOMAIN:
      return Bytes(family_);
    case SO_PROTOCOL:
      return Bytes(protocol_);
    case SO_ACCEPTCONN:
      return Bytes(int{listening()});
    case SO_ERROR:
      return Bytes(static_cast<int>(TakeError()));
    case SO_SNDBUF:
      return Bytes(send_buffer_.load());
    case SO_RCVBUF:
      return Bytes(receive_buffer_.load());
    case SO_PRIORITY:
      return Bytes(priority_.load());
    case SO_MARK:
      return Bytes(mark_.load());
    case SO_RCVLOWAT:
      return Bytes(low_water_.load());
    case SO_SNDLOWAT:
      return Bytes(int{1});
    case SO_LINGER:
      return Bytes(linger_.load());
    case SO_RCVTIMEO:
      return GetTimeout(receive_timeout());
    case SO_SNDTIMEO:
      return GetTimeout(send_timeout());
    case SO_PEERCRED:
      return PeerCredentials(t);
    case SO_PEERGROUPS:
      return PeerGroups(t, max);
    case SO_PEERSEC:
      return kENOPROTOOPT;  // no security module
    case SO_COOKIE:
      return Bytes(inode() ? inode()->ino() : uint64_t{0});
    case abi::kSoPassPidfd:
      return Bytes(int{pass_pidfd()});
    case abi::kSoPeerPidfd:
      return PeerPidfd(t);
    case SO_PEERNAME: {
      return PeerAddress();
    }
    default:
      return kENOPROTOOPT;
  }
}

Result<void> SocketFile::SetOption(Task& t, int level, int name, std::string_view value) {
  if (level != SOL_SOCKET) return kEOPNOTSUPP;
  switch (name) {
    case SO_RCVTIMEO:
      return SetTimeout(receive_timeout_, value);
    case SO_SNDTIMEO:
      return SetTimeout(send_timeout_, value);
    case SO_LINGER:
      linger_ = TRY(Decode<uint64_t>(value));
      return {};
    case SO_ATTACH_FILTER:
    case SO_ATTACH_BPF:
      MOAT_LOG_ONCE("setsockopt SO_ATTACH_FILTER: not implemented, answers ENOPROTOOPT");
      return kENOPROTOOPT;
    default:
      break;
  }
  const int v = TRY(Decode<int>(value));
  if (IsFlagOption(name)) {
    if (name == SO_DEBUG && v != 0 && !t.cred().HasCapability(CAP_NET_ADMIN)) return kEACCES;
    const uint64_t bit = uint64_t{1} << name;
    if (v != 0) {
      flag_options_.fetch_or(bit);
    } else {
      flag_options_.fetch_and(~bit);
    }
    if (name == SO_PASSCRED) PassCredentialsChanged(v != 0);
    return {};
  }
  switch (name) {
    case SO_SNDBUF:
    case SO_SNDBUFFORCE:
      if (name == SO_SNDBUFFORCE && !t.cred().HasCapability(CAP_NET_ADMIN)) return kEPERM;
      send_buffer_ = BufferSize(v, kMinSendBuffer, name == SO_SNDBUFFORCE);
      SendBufferChanged(send_buffer_);
      return {};
    case SO_RCVBUF:
    case SO_RCVBUFFORCE:
      if (name == SO_RCVBUFFORCE && !t.cred().HasCapability(CAP_NET_ADMIN)) return kEPERM;
      receive_buffer_ = BufferSize(v, kMinReceiveBuffer, name == SO_RCVBUFFORCE);
      return {};
    case SO_PRIORITY:
      if ((v < 0 || v > 6) && !t.cred().HasCapability(CAP_NET_ADMIN)) return kEPERM;
      priority_ = v;
      return {};
    case SO_MARK:
      if (!t.cred().HasCapability(CAP_NET_ADMIN)) return kEPERM;
      mark_ = v;
      return {};
    case SO_RCVLOWAT:
      low_water_ = v < 0 ? INT32_MAX : std::max(v, 1);
      return {};
    case abi::kSoPassPidfd:
      pass_pidfd_ = v != 0;
      PassCredentialsChanged(v != 0 || pass_credentials());
      return {};
    case SO_TYPE:
    case SO_DOMAIN:
    case SO_PROTOCOL:
    case SO_ERROR:
    case SO_ACCEPTCONN:
    case SO_SNDLOWAT:
      return kENOPROTOOPT;
    default:
      return kENOPROTOOPT;
  }
}

}  // namespace moat
