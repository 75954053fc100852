// sendto(2), sendmsg(2), sendmmsg(2), recvfrom(2), recvmsg(2), recvmmsg(2).
#include "platform/abi/socket.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/timekeeping.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/io_vector.h"
#include "sentry/syscalls/socket_io.h"

namespace moat {
namespace {

constexpr uint64_t kControlMax = 131072;  // net.core.optmem_max
constexpr unsigned kMessagesMax = 1024;   // UIO_MAXIOV

// The address of a msghdr: a longer length than sockaddr_storage is cut, as Linux does.
Result<std::string> ReadName(Task& t, const abi::Msghdr& h) {
  if (h.name == 0 || h.name_length == 0) return std::string();
  if (static_cast<int32_t>(h.name_length) < 0) return kEINVAL;
  return ReadAddress(t, h.name, static_cast<int>(std::min(h.name_length, abi::kSockaddrMax)));
}

Result<int64_t> SendOne(Task& t, SocketFile& s, const abi::Msghdr& h, int flags) {
  IoVector vector;
  TRY(vector.Read(t, h.iov, h.iov_count));
  GuestIoSource src(t.memory(), vector.ranges());
  SendMessage message;
  message.data = &src;
  message.flags = flags;
  message.address = TRY(ReadName(t, h));
  message.has_address = !message.address.empty();
  if (h.control_length > INT32_MAX) return kENOBUFS;
  if (h.control_length != 0) {
    if (h.control_length > kControlMax) return kENOBUFS;
    std::string control(h.control_length, '\0');
    if (t.memory().CopyIn(control.data(), h.control, control.size()) != control.size()) return kEFAULT;
    message.control = TRY(ParseControl(t, control));
  }
  return SendOnSocket(t, s, message);
}

// Receives into the buffers of `h` and writes back its name, control data and flags, found at `at`.
Result<int64_t> ReceiveOne(Task& t, SocketFile& s, const abi::Msghdr& h, GuestAddr at, int flags, Deadline deadline) {
  if (h.name != 0 && static_cast<int32_t>(h.name_length) < 0) return kEINVAL;
  IoVector vector;
  TRY(vector.Read(t, h.iov, h.iov_count));
  GuestIoDest dst(t.memory(), vector.ranges());
  ReceivedMessage m = TRY(ReceiveFromSocket(t, s, dst, flags, deadline));
  int message_flags = m.flags | (flags & MSG_CMSG_CLOEXEC);
  if (h.name != 0) {
    const size_t n = std::min<size_t>(h.name_length, m.address.size());
    if (n != 0 && t.memory().CopyOut(h.name, m.address.data(), n) != n) return kEFAULT;
    UserOut<uint32_t> length(at + offsetof(abi::Msghdr, name_length));
    TRY(length.Write(t.memory(), static_cast<uint32_t>(m.address.size())));
  }
  const size_t room = h.control == 0 ? 0 : std::min(h.control_length, kControlMax);
  std::string control = BuildControl(t, m.control, room, flags, &message_flags);
  if (!control.empty() && t.memory().CopyOut(h.control, control.data(), control.size()) != control.size()) {
    return kEFAULT;
  }
  TRY(UserOut<uint64_t>(at + offsetof(abi::Msghdr, control_length)).Write(t.memory(), control.size()));
  TRY(UserOut<uint32_t>(at + offsetof(abi::Msghdr, flags)).Write(t.memory(), static_cast<uint32_t>(message_flags)));
  return static_cast<int64_t>((flags & MSG_TRUNC) ? m.length : m.bytes);
}

}  // namespace

Result<int64_t> SysSendto(Task& t, FdNum fd, GuestAddr buffer, size_t length, int flags, GuestAddr address,
                          int address_length) {
  length = std::min(length, kMaxReadWrite);
  TRY(CheckUserRange(t, buffer, length));
  RefPtr<File> keep;
  SocketFile* s = TRY(GetSocket(t, fd, &keep));
  GuestIoSource src(t.memory(), buffer, length);
  SendMessage message;
  message.data = &src;
  message.flags = flags;
  if (address != 0) {
    message.address = TRY(ReadAddress(t, address, address_length));
    message.has_address = !message.address.empty();
  }
  return SendOnSocket(t, *s, message);
}

Result<int64_t> SysSendmsg(Task& t, FdNum fd, UserIn<abi::Msghdr> msg, int flags) {
  RefPtr<File> keep;
  SocketFile* s = TRY(GetSocket(t, fd, &keep));
  return SendOne(t, *s, TRY(msg.Read(t.memory())), flags);
}

Result<int64_t> SysSendmmsg(Task& t, FdNum fd, GuestAddr vector, uint32_t count, int flags) {
  RefPtr<File> keep;
  SocketFile* s = TRY(GetSocket(t, fd, &keep));
  count = std::min(count, kMessagesMax);
  for (uint32_t i = 0; i < count; ++i) {
    const GuestAddr at = vector + i * sizeof(abi::Mmsghdr);
    auto one = [&]() -> Result<void> {
      auto h = TRY(UserIn<abi::Msghdr>(at).Read(t.memory()));
      int64_t n = TRY(SendOne(t, *s, h, flags));
      return UserOut<uint32_t>(at + offsetof(abi::Mmsghdr, length)).Write(t.memory(), static_cast<uint32_t>(n));
    };
    Result<void> r = one();
    if (!r.ok()) return i != 0 ? Result<int64_t>(int64_t{i}) : Result<int64_t>(r.error());
  }
  return int64_t{count};
}

Result<int64_t> SysRecvfrom(Task& t, FdNum fd, GuestAddr buffer, size_t length, int flags, GuestAddr address,
                            GuestAddr address_length) {
  length = std::min(length, kMaxReadWrite);
  TRY(CheckUserRange(t, buffer, length));
  RefPtr<File> keep;
  SocketFile* s = TRY(GetSocket(t, fd, &keep));
  GuestIoDest dst(t.memory(), buffer, length);
  ReceivedMessage m = TRY(ReceiveFromSocket(t, *s, dst, flags));
  if (address != 0) TRY(WriteAddress(t, m.address, address, address_length));
  return static_cast<int64_t>((flags & MSG_TRUNC) ? m.length : m.bytes);
}

Result<int64_t> SysRecvmsg(Task& t, FdNum fd, UserInOut<abi::Msghdr> msg, int flags) {
  RefPtr<File> keep;
  SocketFile* s = TRY(GetSocket(t, fd, &keep));
  return ReceiveOne(t, *s, TRY(msg.Read(t.memory())), msg.addr(), flags, kNoDeadline);
}

Result<int64_t> SysRecvmmsg(Task& t, FdNum fd, GuestAddr vector, uint32_t count, int flags,
                            UserInOut<abi::Timespec> timeout) {
  Deadline deadline = kNoDeadline;
  if (timeout) deadline = DeadlineAfter(TRY(ToNanos(TRY(timeout.Read(t.memory())))));
  RefPtr<File> keep;
  SocketFile* s = TRY(GetSocket(t, fd, &keep));
  count = std::min(count, kMessagesMax);
  uint32_t i = 0;
  Errno error = Errno::kOK;
  while (i < count) {
    const GuestAddr at = vector + i * sizeof(abi::Mmsghdr);
    auto one = [&]() -> Result<void> {
      auto h = TRY(UserIn<abi::Msghdr>(at).Read(t.memory()));
      // The timeout is looked at between messages only (recvmmsg(2), BUGS).
      int64_t n = TRY(ReceiveOne(t, *s, h, at, flags & ~MSG_WAITFORONE, kNoDeadline));
      return UserOut<uint32_t>(at + offsetof(abi::Mmsghdr, length)).Write(t.memory(), static_cast<uint32_t>(n));
    };
    Result<void> r = one();
    if (!r.ok()) {
      error = r.error();
      break;
    }
    ++i;
    if (flags & MSG_WAITFORONE) flags |= MSG_DONTWAIT;
    if (deadline != kNoDeadline && MonotonicNow() >= deadline) break;
  }
  if (timeout && deadline != kNoDeadline) {
    TRY(timeout.Write(t.memory(), ToTimespec(std::max<Nanos>(deadline - MonotonicNow(), 0))));
  }
  if (i == 0 && error != Errno::kOK) return error;
  return int64_t{i};
}

}  // namespace moat
