#include "platform/cred/user_namespace.h"

#include <algorithm>
#include <atomic>

#include "platform/base/errno.h"

namespace moat {
namespace {

constexpr int kMaxLevel = 32;  // user_namespaces(7): nesting
constexpr size_t kMaxExtents = 340;

uint64_t NextNamespaceId() {
  // The first inode number that Linux gives to a user namespace (PROC_USER_INIT_INO).
  static std::atomic<uint64_t> next{0xEFFFFFFDu};
  static std::atomic<bool> first{true};
  if (first.exchange(false)) return next.load();
  static std::atomic<uint64_t> dynamic{0xF1000000u};
  return dynamic.fetch_add(1);
}

uint32_t MapDown(const std::vector<IdMapEntry>& map, uint32_t id) {
  for (const IdMapEntry& e : map) {
    if (id >= e.inside && id - e.inside < e.count) return e.outside + (id - e.inside);
  }
  return kNoId;
}

uint32_t MapUp(const std::vector<IdMapEntry>& map, uint32_t id) {
  for (const IdMapEntry& e : map) {
    if (id >= e.outside && id - e.outside < e.count) return e.inside + (id - e.outside);
  }
  return kNoId;
}

bool Overlaps(uint32_t a, uint32_t a_count, uint32_t b, uint32_t b_count) {
  return uint64_t{a} < uint64_t{b} + b_count && uint64_t{b} < uint64_t{a} + a_count;
}

Result<void> CheckMap(const std::vector<IdMapEntry>& map) {
  if (map.empty() || map.size() > kMaxExtents) return kEINVAL;
  for (size_t i = 0; i < map.size(); ++i) {
    const IdMapEntry& e = map[i];
    if (e.count == 0 || e.inside == kNoId || e.outside == kNoId) return kEINVAL;
    if (uint64_t{e.inside} + e.count > kNoId || uint64_t{e.outside} + e.count > kNoId) return kEINVAL;
    for (size_t j = 0; j < i; ++j) {
      if (Overlaps(e.inside, e.count, map[j].inside, map[j].count)) return kEINVAL;
      if (Overlaps(e.outside, e.count, map[j].outside, map[j].count)) return kEINVAL;
    }
  }
  return {};
}

// Rewrites `outside`, given in ids of the parent, to kernel ids. An extent that the parent maps in pieces is refused,
// as Linux refuses it.
template <typename ToKernel>
Result<void> TranslateOutside(std::vector<IdMapEntry>& map, ToKernel to_kernel) {
  for (IdMapEntry& e : map) {
    uint32_t first = to_kernel(e.outside);
    uint32_t last = to_kernel(e.outside + (e.count - 1));
    if (first == kNoId || last == kNoId || last - first != e.count - 1) return kEPERM;
    e.outside = first;
  }
  return {};
}

}  // namespace

UserNamespace::UserNamespace() : id_(NextNamespaceId()) {}

RefPtr<UserNamespace> UserNamespace::CreateRoot() {
  RefPtr<UserNamespace> ns = MakeRef<UserNamespace>();
  MutexLock lock(ns->mu_);
  ns->uid_map_ = {{0, 0, kNoId}};
  ns->gid_map_ = {{0, 0, kNoId}};
  return ns;
}

Result<RefPtr<UserNamespace>> UserNamespace::CreateChild(RefPtr<UserNamespace> parent, Kuid owner, Kgid group) {
  if (parent->level_ >= kMaxLevel) return kENOSPC;
  RefPtr<UserNamespace> ns = MakeRef<UserNamespace>();
  ns->level_ = parent->level_ + 1;
  ns->owner_ = owner;
  ns->group_ = group;
  bool setgroups_allowed = true;
  {
    MutexLock lock(parent->mu_);
    setgroups_allowed = parent->setgroups_allowed_;
  }
  {
    MutexLock lock(ns->mu_);
    ns->setgroups_allowed_ = setgroups_allowed;
  }
  ns->parent_ = std::move(parent);
  return ns;
}

Kuid UserNamespace::ToKuid(uint32_t uid) const {
  if (parent_.get() == nullptr) return uid;
  MutexLock lock(mu_);
  return MapDown(uid_map_, uid);
}

Kgid UserNamespace::ToKgid(uint32_t gid) const {
  if (parent_.get() == nullptr) return gid;
  MutexLock lock(mu_);
  return MapDown(gid_map_, gid);
}

uint32_t UserNamespace::FromKuid(Kuid id) const {
  if (parent_.get() == nullptr) return id;
  MutexLock lock(mu_);
  uint32_t uid = MapUp(uid_map_, id);
  return uid == kNoId ? kOverflowId : uid;
}

uint32_t UserNamespace::FromKgid(Kgid id) const {
  if (parent_.get() == nullptr) return id;
  MutexLock lock(mu_);
  uint32_t gid = MapUp(gid_map_, id);
  return gid == kNoId ? kOverflowId : gid;
}

bool UserNamespace::HasMaps() const {
  MutexLock lock(mu_);
  return !uid_map_.empty() && !gid_map_.empty();
}

bool UserNamespace::HasMapping(Kuid uid, Kgid gid) const {
  if (uid == kNoId || gid == kNoId) return false;
  if (parent_.get() == nullptr) return true;
  MutexLock lock(mu_);
  return MapUp(uid_map_, uid) != kNoId && MapUp(gid_map_, gid) != kNoId;
}

bool UserNamespace::HasUid(Kuid uid) const {
  if (uid == kNoId || parent_.get() == nullptr) return uid != kNoId;
  MutexLock lock(mu_);
  return MapUp(uid_map_, uid) != kNoId;
}
bool UserNamespace::HasGid(Kgid gid) const {
  if (gid == kNoId || parent_.get() == nullptr) return gid != kNoId;
  MutexLock lock(mu_);
  return MapUp(gid_map_, gid) != kNoId;
}

Result<void> UserNamespace::SetUidMap(std::vector<IdMapEntry> map) {
  TRY(CheckMap(map));
  if (!parent_) return kEPERM;
  TRY(TranslateOutside(map, [&](uint32_t id) { return parent_->ToKuid(id); }));
  MutexLock lock(mu_);
  if (!uid_map_.empty()) return kEPERM;
  uid_map_ = std::move(map);
  return {};
}

Result<void> UserNamespace::SetGidMap(std::vector<IdMapEntry> map) {
  TRY(CheckMap(map));
  if (!parent_) return kEPERM;
  TRY(TranslateOutside(map, [&](uint32_t id) { return parent_->ToKgid(id); }));
  MutexLock lock(mu_);
  if (!gid_map_.empty()) return kEPERM;
  gid_map_ = std::move(map);
  return {};
}

std::vector<IdMapEntry> UserNamespace::UidMap() const {
  std::vector<IdMapEntry> map;
  {
    MutexLock lock(mu_);
    map = uid_map_;
  }
  if (parent_) {
    for (IdMapEntry& e : map) e.outside = parent_->FromKuid(e.outside);
  }
  return map;
}

std::vector<IdMapEntry> UserNamespace::GidMap() const {
  std::vector<IdMapEntry> map;
  {
    MutexLock lock(mu_);
    map = gid_map_;
  }
  if (parent_) {
    for (IdMapEntry& e : map) e.outside = parent_->FromKgid(e.outside);
  }
  return map;
}

bool UserNamespace::setgroups_allowed() const {
  MutexLock lock(mu_);
  return setgroups_allowed_ && !gid_map_.empty();
}

bool UserNamespace::setgroups_denied() const {
  MutexLock lock(mu_);
  return !setgroups_allowed_;
}

Result<void> UserNamespace::DenySetgroups() {
  MutexLock lock(mu_);
  if (!setgroups_allowed_) return {};
  if (!gid_map_.empty()) return kEPERM;
  setgroups_allowed_ = false;
  return {};
}

}  // namespace moat
