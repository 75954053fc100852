// Ancillary data of sendmsg(2) and recvmsg(2): SCM_RIGHTS, SCM_CREDENTIALS, SCM_PIDFD. Source: unix(7), cmsg(3).
#ifndef MOAT_SENTRY_SOCKET_CONTROL_MESSAGE_H_
#define MOAT_SENTRY_SOCKET_CONTROL_MESSAGE_H_

#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "fs/vfs/file.h"
#include "net/unix/unix_message.h"

namespace moat {

class Task;
class UserAccount;

// A file on its way through a socket; counts against its sender's RLIMIT_NOFILE until somebody receives or drops it.
class InFlightFile final : public RefCounted {
 public:
  InFlightFile(RefPtr<File> file, RefPtr<UserAccount> account);
  ~InFlightFile() override;
  const RefPtr<File>& file() const { return file_; }

 private:
  const RefPtr<File> file_;
  const RefPtr<UserAccount> account_;
};

struct OutgoingControl {
  std::vector<UnixRight> rights;
  std::optional<UnixCredentials> credentials;  // SCM_CREDENTIALS, permission checked
};

struct IncomingControl {
  std::vector<UnixRight> rights;
  UnixCredentials credentials;
  bool want_credentials = false;  // SO_PASSCRED
  bool want_pidfd = false;        // SO_PASSPIDFD
};

// Decodes the guest's control buffer, already copied in. kEINVAL, kEBADF, kEPERM, kETOOMANYREFS.
Result<OutgoingControl> ParseControl(Task& t, std::string_view buffer);

// Encodes what was received into at most `room` bytes, installing descriptors (close-on-exec with MSG_CMSG_CLOEXEC in
// `flags`). Sets MSG_CTRUNC in `*message_flags` when not all had room.
std::string BuildControl(Task& t, IncomingControl& control, size_t room, int flags, int* message_flags);

// The calling task as a sender.
UnixCredentials CredentialsOf(Task& t);
// As the calling task sees them: struct ucred's bytes.
std::string EncodeUcred(Task& t, const UnixCredentials& c);

}  // namespace moat

#endif  // MOAT_SENTRY_SOCKET_CONTROL_MESSAGE_H_
