// Packets of the gofer protocol on a SOCK_SEQPACKET socket: a fixed head, a payload and at most one descriptor.
// Used by both ends. Thread-safe as far as the socket is: one user per direction at a time.
#ifndef MOAT_FS_HOSTFS_WIRE_H_
#define MOAT_FS_HOSTFS_WIRE_H_

#include <sys/uio.h>

#include <cstddef>
#include <span>

#include "platform/base/result.h"
#include "platform/base/scoped_fd.h"

namespace moat::gofer {

// Sends one packet of `parts`; `fd` travels along unless -1. Blocks while the socket is full.
// kEPIPE and the like when the peer is gone; never raises SIGPIPE.
Result<void> SendPacket(int socket, std::span<const iovec> parts, int fd);

// Receives one packet into `parts`. Returns its length, at most their sum: a longer packet is kEMSGSIZE.
// 0 when the peer is gone. `fd` gets the first descriptor that came along; any more are closed. More than one
// is kEPROTO. Blocks.
Result<size_t> ReceivePacket(int socket, std::span<iovec> parts, ScopedFd& fd);

}  // namespace moat::gofer

#endif  // MOAT_FS_HOSTFS_WIRE_H_
