#include "platform/cred/credentials.h"

#include <algorithm>

namespace moat {

RefPtr<const Credentials> Credentials::CreateRoot(RefPtr<UserNamespace> ns) {
  auto c = MakeRef<Credentials>();
  c->permitted = c->effective = c->bounding = CapabilitySet::All();
  Kuid uid = ns->ToKuid(0);
  Kgid gid = ns->ToKgid(0);
  c->uid = c->euid = c->suid = c->fsuid = uid;
  c->gid = c->egid = c->sgid = c->fsgid = gid;
  c->user_ns = std::move(ns);
  return c;
}

RefPtr<Credentials> Credentials::Copy() const {
  auto c = MakeRef<Credentials>();
  c->uid = uid;
  c->euid = euid;
  c->suid = suid;
  c->fsuid = fsuid;
  c->gid = gid;
  c->egid = egid;
  c->sgid = sgid;
  c->fsgid = fsgid;
  c->groups = groups;
  c->permitted = permitted;
  c->effective = effective;
  c->inheritable = inheritable;
  c->bounding = bounding;
  c->ambient = ambient;
  c->securebits = securebits;
  c->no_new_privs = no_new_privs;
  c->user_ns = user_ns;
  return c;
}

bool Credentials::HasCapabilityIn(int cap, const UserNamespace& target) const {
  for (const UserNamespace* ns = &target;; ns = ns->parent()) {
    if (ns == user_ns.get()) return effective.Has(cap);
    // Not a descendant of ours: no capability reaches it.
    if (ns->level() <= user_ns->level() || ns->parent() == nullptr) return false;
    // The owner of a namespace has all capabilities in it, when he is in its parent.
    if (ns->parent() == user_ns.get() && ns->owner() == euid) return true;
  }
}

bool Credentials::InGroup(Kgid g) const { return g == fsgid || std::binary_search(groups.begin(), groups.end(), g); }

}  // namespace moat
