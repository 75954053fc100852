#include "runsc/container/console.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "runsc/error/error.h"

namespace moat {

TerminalSettings::TerminalSettings() : saved_(tcgetattr(STDIN_FILENO, &settings_) == 0) {
  if (saved_) tcsetattr(STDIN_FILENO, TCSANOW, &settings_);  // SIGTTOU for a background job
}

TerminalSettings::~TerminalSettings() {
  // The terminal may be another job's by now.
  if (saved_ && tcgetpgrp(STDIN_FILENO) == getpgrp()) tcsetattr(STDIN_FILENO, TCSANOW, &settings_);
}

absl::StatusOr<ScopedFd> OpenConsole(const std::string& socket_path, uint32_t height, uint32_t width) {
  ScopedFd master(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!master.valid() || grantpt(master.get()) != 0 || unlockpt(master.get()) != 0)
    return HostFailed("open a pseudoterminal");
  char name[64];
  if (ptsname_r(master.get(), name, sizeof name) != 0) return HostFailed("name the pseudoterminal");
  ScopedFd slave(open(name, O_RDWR | O_NOCTTY | O_CLOEXEC));
  if (!slave.valid()) return HostFailed("open {}", name);
  if (height != 0 || width != 0) {
    winsize size = {static_cast<unsigned short>(height), static_cast<unsigned short>(width), 0, 0};
    ioctl(slave.get(), TIOCSWINSZ, &size);
  }
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof address.sun_path)
    return Invalid("--console-socket={}: the path is longer than {} bytes", socket_path, sizeof address.sun_path - 1);
  memcpy(address.sun_path, socket_path.c_str(), socket_path.size());
  ScopedFd socket_fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!socket_fd.valid() || connect(socket_fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0)
    return HostFailed("--console-socket: connect to {}", socket_path);
  int fd = master.get();
  iovec data{name, strlen(name)};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* c = CMSG_FIRSTHDR(&message);
  c->cmsg_level = SOL_SOCKET;
  c->cmsg_type = SCM_RIGHTS;
  c->cmsg_len = CMSG_LEN(sizeof fd);
  memcpy(CMSG_DATA(c), &fd, sizeof fd);
  if (sendmsg(socket_fd.get(), &message, MSG_NOSIGNAL) < 0)
    return HostFailed("--console-socket: send to {}", socket_path);
  return slave;
}

}  // namespace moat
