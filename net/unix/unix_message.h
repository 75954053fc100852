// What travels through an AF_UNIX socket: bytes, descriptors ("rights"), credentials. The transport knows neither
// files nor processes: both are opaque references. Source: unix(7).
#ifndef MOAT_NET_UNIX_UNIX_MESSAGE_H_
#define MOAT_NET_UNIX_UNIX_MESSAGE_H_

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "platform/base/ref_ptr.h"
#include "platform/cred/user_namespace.h"
#include "platform/fiber/wait_queue.h"

namespace moat {

class UnixSocket;

// One descriptor in flight.
struct UnixRight {
  RefPtr<RefCounted> object;  // what the receiver gets; keeps exactly one reference to `identity`
  // For an AF_UNIX socket: the object whose reference count says who still holds it, and the socket itself. For the
  // collection of cycles of sockets in flight (unix_gc.h); both null otherwise.
  const RefCounted* identity = nullptr;
  UnixSocket* socket = nullptr;
};

// Who sent: a process (opaque), and its effective ids as kernel ids.
struct UnixCredentials {
  RefPtr<RefCounted> process;
  Kuid uid = kNoId;
  Kgid gid = kNoId;
  bool operator==(const UnixCredentials&) const = default;
};

// The part of a socket that outlives it while its messages are unread: who waits, and how much is under way.
class UnixEvents final : public RefCounted {
 public:
  WaitQueue queue;
  std::atomic<int64_t> bytes_sent{0};   // in messages not yet read, with their overhead
  std::atomic<bool> wants_room{false};  // a send found none since the last signal about it (fcntl(2) O_ASYNC)
};

struct UnixMessage final : RefCounted {
  ~UnixMessage() override;  // gives the sender its room back

  std::unique_ptr<char[]> data;
  size_t size = 0;
  size_t consumed = 0;  // streams; guarded by the lock of the socket in whose queue it is
  std::vector<UnixRight> rights;
  UnixCredentials credentials;
  bool has_credentials = false;
  std::string source;  // the sender's address as in sun_path; datagrams
  RefPtr<UnixEvents> sender;
  int64_t charged = 0;

  size_t left() const { return size - consumed; }
  bool HasSockets() const;
};

}  // namespace moat

#endif  // MOAT_NET_UNIX_UNIX_MESSAGE_H_
