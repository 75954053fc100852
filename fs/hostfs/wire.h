// Packets of the gofer protocol on a SOCK_SEQPACKET socket: a fixed head, a payload and descriptors (SCM_RIGHTS).
// Used by both ends. Thread-safe as far as the socket is: one user per direction at a time.
#ifndef MOAT_FS_HOSTFS_WIRE_H_
#define MOAT_FS_HOSTFS_WIRE_H_

#include <sys/uio.h>

#include <cstddef>
#include <span>
#include <vector>

#include "platform/base/result.h"
#include "platform/base/scoped_fd.h"

namespace moat::gofer {

// Sends one packet of `parts`; `fds`, at most kMaxLookUp, travel along. Blocks while the socket is full.
// kEPIPE and the like when the peer is gone; never raises SIGPIPE.
Result<void> SendPacket(int socket, std::span<const iovec> parts, std::span<const int> fds);
// The same with one descriptor that somebody else owns, or -1.
Result<void> SendPacket(int socket, std::span<const iovec> parts, int fd);

// What came along with a packet, in the order that it was sent in.
struct ReceivedFds {
  std::vector<ScopedFd> fds;
  // This process has too many descriptors to take what was sent: `fds` is empty.
  bool lost = false;
};

// Receives one packet into `parts`. Returns its length, at most their sum: a longer packet is kEMSGSIZE.
// 0 when the peer is gone. More than `max_fds` descriptors are closed and answer kEPROTO. Blocks.
Result<size_t> ReceivePacket(int socket, std::span<iovec> parts, size_t max_fds, ReceivedFds& received);

}  // namespace moat::gofer

#endif  // MOAT_FS_HOSTFS_WIRE_H_
