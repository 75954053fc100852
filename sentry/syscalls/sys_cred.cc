// User and group ids. Each setter copies the credentials, changes the copy by Linux's rules and publishes it.
// Source: credentials(7), setuid(2), setreuid(2), setresuid(2), setfsuid(2), setgroups(2), capabilities(7).
#include <linux/securebits.h>

#include <algorithm>
#include <climits>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/syscalls/handlers.h"

namespace moat {
namespace {

// What a change of user ids does to capabilities: capabilities(7), "Effect of user ID changes on capabilities".
void AdjustCapabilities(const Credentials& old, Credentials& now) {
  if (now.securebits & SECBIT_NO_SETUID_FIXUP) return;
  const Kuid root = now.user_ns->ToKuid(0);
  auto any_root = [root](const Credentials& c) { return c.uid == root || c.euid == root || c.suid == root; };
  if (any_root(old) && !any_root(now)) {
    if (!(now.securebits & SECBIT_KEEP_CAPS)) {
      now.permitted = CapabilitySet::None();
      now.effective = CapabilitySet::None();
    }
    now.ambient = CapabilitySet::None();
  }
  if (old.euid == root && now.euid != root) now.effective = CapabilitySet::None();
  if (old.euid != root && now.euid == root) now.effective = now.permitted;
}

constexpr uint64_t kFsCapabilities = 1ull << CAP_CHOWN | 1ull << CAP_DAC_OVERRIDE | 1ull << CAP_DAC_READ_SEARCH |
                                     1ull << CAP_FOWNER | 1ull << CAP_FSETID | 1ull << CAP_LINUX_IMMUTABLE |
                                     1ull << CAP_MKNOD | 1ull << CAP_MAC_OVERRIDE;

// Publishes new ids. Ids that the process gave up must not leave it open to its former peers: a change of the
// effective ids makes it undumpable (prctl(2), PR_SET_DUMPABLE) and forgets its parent-death signal.
void Publish(Task& t, RefPtr<Credentials> now) {
  const Credentials& old = t.cred();
  bool changed = old.euid != now->euid || old.egid != now->egid || old.fsuid != now->fsuid || old.fsgid != now->fsgid ||
                 !now->permitted.IsSubsetOf(old.permitted);
  if (changed) {
    t.memory().set_dumpable(0);
    t.set_parent_death_signal(0);
  }
  if (old.uid != now->uid) t.SetAccount(t.kernel().Account(now->uid));
  t.SetCredentials(std::move(now));
}

// A guest's id argument: kNoId stays "leave it"; kEINVAL for one that the namespace does not map.
Result<Kuid> WantedUid(const Credentials& cred, uint32_t uid) {
  if (uid == kNoId) return kNoId;
  Kuid k = cred.user_ns->ToKuid(uid);
  if (k == kNoId) return kEINVAL;
  return k;
}
Result<Kgid> WantedGid(const Credentials& cred, uint32_t gid) {
  if (gid == kNoId) return kNoId;
  Kgid k = cred.user_ns->ToKgid(gid);
  if (k == kNoId) return kEINVAL;
  return k;
}

bool IsOneOf(uint32_t id, std::initializer_list<uint32_t> allowed) {
  return std::find(allowed.begin(), allowed.end(), id) != allowed.end();
}

}  // namespace

Result<int64_t> SysGetuid(Task& t) { return t.user_ns().FromKuid(t.cred().uid); }
Result<int64_t> SysGeteuid(Task& t) { return t.user_ns().FromKuid(t.cred().euid); }
Result<int64_t> SysGetgid(Task& t) { return t.user_ns().FromKgid(t.cred().gid); }
Result<int64_t> SysGetegid(Task& t) { return t.user_ns().FromKgid(t.cred().egid); }

Result<int64_t> SysSetuid(Task& t, uint32_t uid) {
  const Credentials& old = t.cred();
  Kuid k = TRY(WantedUid(old, uid));
  if (k == kNoId) return kEINVAL;
  RefPtr<Credentials> now = old.Copy();
  if (old.HasCapability(CAP_SETUID)) {
    now->uid = now->suid = k;
  } else if (!IsOneOf(k, {old.uid, old.suid})) {
    return kEPERM;
  }
  now->euid = now->fsuid = k;
  AdjustCapabilities(old, *now);
  Publish(t, std::move(now));
  return 0;
}

Result<int64_t> SysSetgid(Task& t, uint32_t gid) {
  const Credentials& old = t.cred();
  Kgid k = TRY(WantedGid(old, gid));
  if (k == kNoId) return kEINVAL;
  RefPtr<Credentials> now = old.Copy();
  if (old.HasCapability(CAP_SETGID)) {
    now->gid = now->sgid = k;
  } else if (!IsOneOf(k, {old.gid, old.sgid})) {
    return kEPERM;
  }
  now->egid = now->fsgid = k;
  Publish(t, std::move(now));
  return 0;
}

Result<int64_t> SysSetreuid(Task& t, uint32_t ruid, uint32_t euid) {
  const Credentials& old = t.cred();
  Kuid r = TRY(WantedUid(old, ruid));
  Kuid e = TRY(WantedUid(old, euid));
  bool capable = old.HasCapability(CAP_SETUID);
  if (r != kNoId && !capable && !IsOneOf(r, {old.uid, old.euid})) return kEPERM;
  if (e != kNoId && !capable && !IsOneOf(e, {old.uid, old.euid, old.suid})) return kEPERM;
  RefPtr<Credentials> now = old.Copy();
  if (r != kNoId) now->uid = r;
  if (e != kNoId) now->euid = e;
  if (r != kNoId || (e != kNoId && e != old.uid)) now->suid = now->euid;
  now->fsuid = now->euid;
  AdjustCapabilities(old, *now);
  Publish(t, std::move(now));
  return 0;
}

Result<int64_t> SysSetregid(Task& t, uint32_t rgid, uint32_t egid) {
  const Credentials& old = t.cred();
  Kgid r = TRY(WantedGid(old, rgid));
  Kgid e = TRY(WantedGid(old, egid));
  bool capable = old.HasCapability(CAP_SETGID);
  if (r != kNoId && !capable && !IsOneOf(r, {old.gid, old.egid})) return kEPERM;
  if (e != kNoId && !capable && !IsOneOf(e, {old.gid, old.egid, old.sgid})) return kEPERM;
  RefPtr<Credentials> now = old.Copy();
  if (r != kNoId) now->gid = r;
  if (e != kNoId) now->egid = e;
  if (r != kNoId || (e != kNoId && e != old.gid)) now->sgid = now->egid;
  now->fsgid = now->egid;
  Publish(t, std::move(now));
  return 0;
}

Result<int64_t> SysSetresuid(Task& t, uint32_t ruid, uint32_t euid, uint32_t suid) {
  const Credentials& old = t.cred();
  Kuid wanted[3] = {TRY(WantedUid(old, ruid)), TRY(WantedUid(old, euid)), TRY(WantedUid(old, suid))};
  for (Kuid k : wanted) {
    if (k != kNoId && !old.HasCapability(CAP_SETUID) && !IsOneOf(k, {old.uid, old.euid, old.suid})) return kEPERM;
  }
  RefPtr<Credentials> now = old.Copy();
  if (wanted[0] != kNoId) now->uid = wanted[0];
  if (wanted[1] != kNoId) now->euid = wanted[1];
  if (wanted[2] != kNoId) now->suid = wanted[2];
  now->fsuid = now->euid;
  AdjustCapabilities(old, *now);
  Publish(t, std::move(now));
  return 0;
}

Result<int64_t> SysSetresgid(Task& t, uint32_t rgid, uint32_t egid, uint32_t sgid) {
  const Credentials& old = t.cred();
  Kgid wanted[3] = {TRY(WantedGid(old, rgid)), TRY(WantedGid(old, egid)), TRY(WantedGid(old, sgid))};
  for (Kgid k : wanted) {
    if (k != kNoId && !old.HasCapability(CAP_SETGID) && !IsOneOf(k, {old.gid, old.egid, old.sgid})) return kEPERM;
  }
  RefPtr<Credentials> now = old.Copy();
  if (wanted[0] != kNoId) now->gid = wanted[0];
  if (wanted[1] != kNoId) now->egid = wanted[1];
  if (wanted[2] != kNoId) now->sgid = wanted[2];
  now->fsgid = now->egid;
  Publish(t, std::move(now));
  return 0;
}

Result<int64_t> SysGetresuid(Task& t, UserOut<uint32_t> r, UserOut<uint32_t> e, UserOut<uint32_t> s) {
  TRY(r.Write(t.memory(), t.user_ns().FromKuid(t.cred().uid)));
  TRY(e.Write(t.memory(), t.user_ns().FromKuid(t.cred().euid)));
  TRY(s.Write(t.memory(), t.user_ns().FromKuid(t.cred().suid)));
  return 0;
}

Result<int64_t> SysGetresgid(Task& t, UserOut<uint32_t> r, UserOut<uint32_t> e, UserOut<uint32_t> s) {
  TRY(r.Write(t.memory(), t.user_ns().FromKgid(t.cred().gid)));
  TRY(e.Write(t.memory(), t.user_ns().FromKgid(t.cred().egid)));
  TRY(s.Write(t.memory(), t.user_ns().FromKgid(t.cred().sgid)));
  return 0;
}

// setfsuid(2) and setfsgid(2) return the id before and never fail.
Result<int64_t> SysSetfsuid(Task& t, uint32_t uid) {
  const Credentials& old = t.cred();
  int64_t before = old.user_ns->FromKuid(old.fsuid);
  Result<Kuid> k = WantedUid(old, uid);
  if (!k.ok() || *k == kNoId) return before;
  if (!old.HasCapability(CAP_SETUID) && !IsOneOf(*k, {old.uid, old.euid, old.suid, old.fsuid})) return before;
  RefPtr<Credentials> now = old.Copy();
  now->fsuid = *k;
  const Kuid root = now->user_ns->ToKuid(0);
  if (!(now->securebits & SECBIT_NO_SETUID_FIXUP)) {
    if (old.fsuid == root && *k != root) now->effective.bits &= ~kFsCapabilities;
    if (old.fsuid != root && *k == root) now->effective.bits |= now->permitted.bits & kFsCapabilities;
  }
  Publish(t, std::move(now));
  return before;
}

Result<int64_t> SysSetfsgid(Task& t, uint32_t gid) {
  const Credentials& old = t.cred();
  int64_t before = old.user_ns->FromKgid(old.fsgid);
  Result<Kgid> k = WantedGid(old, gid);
  if (!k.ok() || *k == kNoId) return before;
  if (!old.HasCapability(CAP_SETGID) && !IsOneOf(*k, {old.gid, old.egid, old.sgid, old.fsgid})) return before;
  RefPtr<Credentials> now = old.Copy();
  now->fsgid = *k;
  Publish(t, std::move(now));
  return before;
}

Result<int64_t> SysGetgroups(Task& t, int size, UserOut<uint32_t> list) {
  const std::vector<Kgid>& groups = t.cred().groups;
  if (size < 0) return kEINVAL;
  if (size == 0) return static_cast<int64_t>(groups.size());
  if (static_cast<size_t>(size) < groups.size()) return kEINVAL;
  for (size_t i = 0; i < groups.size(); ++i) TRY(list.WriteAt(t.memory(), i, t.user_ns().FromKgid(groups[i])));
  return static_cast<int64_t>(groups.size());
}

Result<int64_t> SysSetgroups(Task& t, int size, UserIn<uint32_t> list) {
  const Credentials& old = t.cred();
  if (!old.HasCapability(CAP_SETGID) || !old.user_ns->setgroups_allowed()) return kEPERM;
  if (size < 0 || size > NGROUPS_MAX) return kEINVAL;
  std::vector<uint32_t> wanted = TRY(list.ReadArray(t.memory(), static_cast<size_t>(size)));
  RefPtr<Credentials> now = old.Copy();
  now->groups.clear();
  for (uint32_t gid : wanted) {
    Kgid k = TRY(WantedGid(old, gid));
    if (k == kNoId) return kEINVAL;
    now->groups.push_back(k);
  }
  std::sort(now->groups.begin(), now->groups.end());
  t.SetCredentials(std::move(now));
  return 0;
}

}  // namespace moat
