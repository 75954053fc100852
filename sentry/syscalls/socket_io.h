// Sending and receiving for the socket calls: waits where the socket is in blocking mode, within its timeouts, and goes
// on until a stream has taken or given all.
#ifndef MOAT_SENTRY_SYSCALLS_SOCKET_IO_H_
#define MOAT_SENTRY_SYSCALLS_SOCKET_IO_H_

#include "sentry/kernel/blocking.h"
#include "sentry/socket/socket_file.h"
#include "sentry/syscalls/argument_types.h"

namespace moat {

// The socket of a descriptor; `*keep` holds the reference. kEBADF, kENOTSOCK.
Result<SocketFile*> GetSocket(Task& t, FdNum fd, RefPtr<File>* keep);

// A struct sockaddr, copied in. kEINVAL for a length beyond sockaddr_storage or negative.
Result<std::string> ReadAddress(Task& t, GuestAddr address, int length);
// Writes as much of `value` as the guest's length allows, and its full length. A null `address` writes nothing.
Result<void> WriteAddress(Task& t, std::string_view value, GuestAddr address, GuestAddr length);

Result<int64_t> SendOnSocket(Task& t, SocketFile& s, SendMessage& message);
// `deadline`: on top of the socket's own timeout (recvmmsg).
Result<ReceivedMessage> ReceiveFromSocket(Task& t, SocketFile& s, IoDest& dst, int flags,
                                          Deadline deadline = kNoDeadline);

// Waits for `op`, which answers kEAGAIN, on `queue`: kEAGAIN after `timeout` (kNoDeadline: none), and kEINTR instead of
// a restart when there is a timeout (signal(7)).
template <typename Op>
auto WaitOnSocket(Task& t, WaitQueue& queue, bool may_block, EventMask events, Nanos timeout, Op op) -> decltype(op()) {
  if (!may_block) return op();
  Deadline deadline = timeout == kNoDeadline ? kNoDeadline : DeadlineAfter(timeout);
  auto r = BlockingOp(t, queue, events, deadline, op);
  if (!r.ok() && r.error() == kETIMEDOUT && timeout != kNoDeadline) return kEAGAIN;
  if (!r.ok() && r.error() == kERESTARTSYS && timeout != kNoDeadline) return kEINTR;
  return r;
}

}  // namespace moat

#endif  // MOAT_SENTRY_SYSCALLS_SOCKET_IO_H_
