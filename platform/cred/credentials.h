// Credentials of a task: immutable, shared by reference, replaced as a whole (credentials(7), cred in Linux).
#ifndef MOAT_PLATFORM_CRED_CREDENTIALS_H_
#define MOAT_PLATFORM_CRED_CREDENTIALS_H_

#include <vector>

#include "platform/cred/capability.h"
#include "platform/cred/user_namespace.h"

namespace moat {

class Credentials : public RefCounted {
 public:
  // Root of `ns` with all capabilities.
  static RefPtr<const Credentials> CreateRoot(RefPtr<UserNamespace> ns);
  // A copy to modify before it is published.
  RefPtr<Credentials> Copy() const;

  Kuid uid = 0, euid = 0, suid = 0, fsuid = 0;
  Kgid gid = 0, egid = 0, sgid = 0, fsgid = 0;
  std::vector<Kgid> groups;  // sorted
  CapabilitySet permitted, effective, inheritable, bounding, ambient;
  uint32_t securebits = 0;
  bool no_new_privs = false;
  RefPtr<UserNamespace> user_ns;

  // cap_capable(): effective capability over `target`, or ownership of one of its ancestors below ours.
  bool HasCapabilityIn(int cap, const UserNamespace& target) const;
  // In the credentials' own namespace.
  bool HasCapability(int cap) const { return effective.Has(cap); }
  bool InGroup(Kgid gid) const;  // fsgid or supplementary
};

}  // namespace moat

#endif  // MOAT_PLATFORM_CRED_CREDENTIALS_H_
