// The terminal of a container whose manager holds the other end: --console-socket. Source: pty(7), runc's terminals
// documentation.
#ifndef MOAT_RUNSC_CONTAINER_CONSOLE_H_
#define MOAT_RUNSC_CONTAINER_CONSOLE_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "platform/base/scoped_fd.h"

namespace moat {

// Opens a pseudoterminal, sends its master to the stream socket at `socket_path` and answers the slave.
absl::StatusOr<ScopedFd> OpenConsole(const std::string& socket_path, uint32_t height, uint32_t width);

}  // namespace moat

#endif  // MOAT_RUNSC_CONTAINER_CONSOLE_H_
