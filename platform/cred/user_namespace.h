// User namespaces and their id maps. "Kernel" ids (Kuid, Kgid) are ids of the sandbox's root user
// namespace; a guest sees them through its own namespace's maps. Source: user_namespaces(7).
#ifndef MOAT_PLATFORM_CRED_USER_NAMESPACE_H_
#define MOAT_PLATFORM_CRED_USER_NAMESPACE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "platform/base/mutex.h"
#include "platform/base/ref_ptr.h"
#include "platform/base/result.h"

namespace moat {

using Kuid = uint32_t;
using Kgid = uint32_t;
inline constexpr uint32_t kNoId = ~uint32_t{0};  // (uid_t)-1: "leave it" or unmapped
inline constexpr uint32_t kOverflowId = 65534;   // /proc/sys/kernel/overflowuid

struct IdMapEntry {
  uint32_t inside, outside, count;  // `outside`: ids of the parent namespace
};

class UserNamespace : public RefCounted {
 public:
  // The root namespace: identity maps.
  static RefPtr<UserNamespace> CreateRoot();
  // kENOSPC past 32 levels. `owner`, `group`: effective ids of the creator.
  static Result<RefPtr<UserNamespace>> CreateChild(RefPtr<UserNamespace> parent, Kuid owner, Kgid group);

  UserNamespace* parent() const { return parent_.get(); }
  Kuid owner() const { return owner_; }
  Kgid group() const { return group_; }
  int level() const { return level_; }
  uint64_t id() const { return id_; }  // the inode number of /proc/<pid>/ns/user

  // Guest id -> kernel id; kNoId when unmapped.
  Kuid ToKuid(uint32_t uid) const;
  Kgid ToKgid(uint32_t gid) const;
  // Kernel id -> guest id; kOverflowId when unmapped.
  uint32_t FromKuid(Kuid id) const;
  uint32_t FromKgid(Kgid id) const;
  bool HasMapping(Kuid uid, Kgid gid) const;
  // Both maps are set: what ids look like in here will not change any more.
  bool HasMaps() const;
  bool HasUid(Kuid uid) const;
  bool HasGid(Kgid gid) const;

  // Installs a map once (kEPERM the second time); permission to do so is the caller's check.
  Result<void> SetUidMap(std::vector<IdMapEntry> map);
  Result<void> SetGidMap(std::vector<IdMapEntry> map);
  std::vector<IdMapEntry> UidMap() const;
  std::vector<IdMapEntry> GidMap() const;
  // May setgroups(2) be called in here: not denied, and a gid map is set.
  bool setgroups_allowed() const;
  // What /proc/<pid>/setgroups shows: "deny" was written, here or in an ancestor before this one was made.
  bool setgroups_denied() const;
  Result<void> DenySetgroups();  // kEPERM once a gid map is set

 private:
  friend RefPtr<UserNamespace> MakeRef<UserNamespace>();
  UserNamespace();
  RefPtr<UserNamespace> parent_;
  Kuid owner_ = 0;
  Kgid group_ = 0;
  int level_ = 0;
  uint64_t id_ = 0;
  mutable Mutex mu_{LockRank::kLeaf};
  std::vector<IdMapEntry> uid_map_ ABSL_GUARDED_BY(mu_);
  std::vector<IdMapEntry> gid_map_ ABSL_GUARDED_BY(mu_);
  bool setgroups_allowed_ ABSL_GUARDED_BY(mu_) = true;
};

}  // namespace moat

#endif  // MOAT_PLATFORM_CRED_USER_NAMESPACE_H_
