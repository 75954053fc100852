// The abstract names of one network namespace, and the list of its sockets for /proc/net/unix.
// Thread-safe. Lock: kSocketPeer (taken with a socket's lock held).
#ifndef MOAT_NET_UNIX_UNIX_NAMESPACE_H_
#define MOAT_NET_UNIX_UNIX_NAMESPACE_H_

#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "platform/base/mutex.h"
#include "platform/base/ref_ptr.h"
#include "platform/base/result.h"

namespace moat {

class UnixSocket;

class UnixNamespace final : public RefCounted {
 public:
  // `name` without the leading NUL. kEADDRINUSE.
  Result<void> Claim(std::string_view name, UnixSocket& socket);
  // A free name of five hexadecimal digits (unix(7), "Autobind"). kEADDRINUSE when all are taken.
  Result<std::string> ClaimAny(UnixSocket& socket);
  void Release(std::string_view name);
  // Null when nobody has the name.
  RefPtr<UnixSocket> Find(std::string_view name) const;

  void Add(UnixSocket& socket);
  void Remove(UnixSocket& socket);
  std::vector<RefPtr<UnixSocket>> Sockets() const;

 private:
  mutable Mutex mu_{LockRank::kSocketPeer};
  std::unordered_map<std::string, UnixSocket*> names_ ABSL_GUARDED_BY(mu_);
  std::set<UnixSocket*> sockets_ ABSL_GUARDED_BY(mu_);
  uint32_t next_auto_ ABSL_GUARDED_BY(mu_) = 1;
};

}  // namespace moat

#endif  // MOAT_NET_UNIX_UNIX_NAMESPACE_H_
