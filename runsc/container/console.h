// The terminal of a container: the caller's own, or one whose manager holds the other end (--console-socket).
// Source: pty(7), termios(3), runc's terminals documentation.
#ifndef MOAT_RUNSC_CONTAINER_CONSOLE_H_
#define MOAT_RUNSC_CONTAINER_CONSOLE_H_

#include <termios.h>

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "platform/base/scoped_fd.h"

namespace moat {

// Keeps the settings of the caller's terminal (stdin): what a container does to them ends with it. In the background
// the constructor stops the process until a shell brings it to the foreground, as for any program that sets up a
// terminal; to be made before anything that others wait for, and before signals are blocked.
class TerminalSettings {
 public:
  TerminalSettings();
  ~TerminalSettings();
  TerminalSettings(const TerminalSettings&) = delete;

 private:
  bool saved_;
  termios settings_;
};

// Opens a pseudoterminal, sends its master to the stream socket at `socket_path` and answers the slave.
absl::StatusOr<ScopedFd> OpenConsole(const std::string& socket_path, uint32_t height, uint32_t width);

}  // namespace moat

#endif  // MOAT_RUNSC_CONTAINER_CONSOLE_H_
