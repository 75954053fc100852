#include "fs/vfs/posix_acl.h"

#include <linux/xattr.h>

#include <cstring>

namespace moat {
namespace {

constexpr uint32_t kVersion = 2;
constexpr uint32_t kUndefinedId = ~0u;

// As the extended attribute has it, little-endian.
struct XattrEntry {
  uint16_t tag, perm;
  uint32_t id;
};

// chmod(2) and creation write an entry's bits anew.
constexpr uint16_t Bits(uint32_t mode, int shift) { return static_cast<uint16_t>(mode >> shift & 7); }

}  // namespace

std::optional<AclKind> AclKindOf(std::string_view name) {
  if (name == XATTR_NAME_POSIX_ACL_ACCESS) return AclKind::kAccess;
  if (name == XATTR_NAME_POSIX_ACL_DEFAULT) return AclKind::kDefault;
  return std::nullopt;
}

Result<RefPtr<const PosixAcl>> PosixAcl::FromXattr(const UserNamespace& ns, std::string_view value) {
  uint32_t version;
  if (value.size() < sizeof version) return kEINVAL;
  memcpy(&version, value.data(), sizeof version);
  if (version != kVersion) return kEOPNOTSUPP;
  value.remove_prefix(sizeof version);
  if (value.size() % sizeof(XattrEntry) != 0) return kEINVAL;
  size_t count = value.size() / sizeof(XattrEntry);
  if (count == 0) return RefPtr<const PosixAcl>();
  if (count > kMaxEntries) return kENOSPC;
  std::vector<Entry> entries;
  for (size_t i = 0; i < count; ++i) {
    XattrEntry e;
    memcpy(&e, value.data() + i * sizeof e, sizeof e);
    uint32_t id = kNoId;
    switch (e.tag) {
      case kUserObj:
      case kGroupObj:
      case kMask:
      case kOther:
        break;
      case kUser:
        id = ns.ToKuid(e.id);
        if (id == kNoId) return kEINVAL;
        break;
      case kGroup:
        id = ns.ToKgid(e.id);
        if (id == kNoId) return kEINVAL;
        break;
      default:
        return kEINVAL;
    }
    entries.push_back({e.tag, e.perm, id});
  }
  return RefPtr<const PosixAcl>(MakeRef<PosixAcl>(std::move(entries)));
}

std::string PosixAcl::ToXattr(const UserNamespace& ns) const {
  std::string value(reinterpret_cast<const char*>(&kVersion), sizeof kVersion);
  for (const Entry& e : entries_) {
    uint32_t id = e.tag == kUser ? ns.FromKuid(e.id) : e.tag == kGroup ? ns.FromKgid(e.id) : kUndefinedId;
    XattrEntry out{e.tag, e.perm, id};
    value.append(reinterpret_cast<const char*>(&out), sizeof out);
  }
  return value;
}

Result<void> PosixAcl::Validate(const UserNamespace* fs_ns) const {
  uint16_t expected = kUserObj;
  bool needs_mask = false;
  for (const Entry& e : entries_) {
    if ((e.perm & ~7) != 0) return kEINVAL;
    switch (e.tag) {
      case kUserObj:
        if (expected != kUserObj) return kEINVAL;
        expected = kUser;
        break;
      case kUser:
        if (expected != kUser) return kEINVAL;
        if (fs_ns != nullptr && !fs_ns->HasUid(e.id)) return kEINVAL;
        needs_mask = true;
        break;
      case kGroupObj:
        if (expected != kUser) return kEINVAL;
        expected = kGroup;
        break;
      case kGroup:
        if (expected != kGroup) return kEINVAL;
        if (fs_ns != nullptr && !fs_ns->HasGid(e.id)) return kEINVAL;
        needs_mask = true;
        break;
      case kMask:
        if (expected != kGroup) return kEINVAL;
        expected = kOther;
        break;
      case kOther:
        if (expected != kOther && (expected != kGroup || needs_mask)) return kEINVAL;
        expected = 0;
        break;
      default:
        return kEINVAL;
    }
  }
  return expected == 0 ? Result<void>() : kEINVAL;
}

bool PosixAcl::ToMode(uint32_t& permissions) const {
  uint32_t mode = 0;
  bool equivalent = true;
  for (const Entry& e : entries_) {
    switch (e.tag) {
      case kUserObj:
        mode |= uint32_t{e.perm} << 6;
        break;
      case kGroupObj:
        mode |= uint32_t{e.perm} << 3;
        break;
      case kOther:
        mode |= e.perm;
        break;
      case kMask:
        mode = (mode & ~0070u) | uint32_t{e.perm} << 3;
        equivalent = false;
        break;
      default:
        equivalent = false;
    }
  }
  permissions = mode;
  return equivalent;
}

Result<void> PosixAcl::Check(const Credentials& cred, Kgid group, int mask) const {
  const int want = mask & 7;
  auto grants = [&](const Entry& e) { return (e.perm & want) == want; };
  int limit = 7;
  for (const Entry& e : entries_) {
    if (e.tag == kMask) limit = e.perm;
  }
  bool in_some_group = false;
  for (const Entry& e : entries_) {
    switch (e.tag) {
      case kUser:
        if (e.id != cred.fsuid) break;
        return (e.perm & limit & want) == want ? Result<void>() : kEACCES;
      case kGroupObj:
      case kGroup:
        if (!cred.InGroup(e.tag == kGroup ? e.id : group)) break;
        in_some_group = true;
        if (grants(e)) return (limit & want) == want ? Result<void>() : kEACCES;
        break;
      case kOther:
        return !in_some_group && grants(e) ? Result<void>() : kEACCES;
      default:
        break;
    }
  }
  return kEACCES;
}

RefPtr<const PosixAcl> PosixAcl::WithMode(uint32_t mode) const {
  std::vector<Entry> entries = entries_;
  Entry* group_class = nullptr;
  for (Entry& e : entries) {
    if (e.tag == kUserObj) e.perm = Bits(mode, 6);
    if (e.tag == kOther) e.perm = Bits(mode, 0);
    if (e.tag == kMask || (e.tag == kGroupObj && group_class == nullptr)) group_class = &e;
  }
  if (group_class != nullptr) group_class->perm = Bits(mode, 3);
  return RefPtr<const PosixAcl>(MakeRef<PosixAcl>(std::move(entries)));
}

RefPtr<const PosixAcl> PosixAcl::ForNewFile(uint32_t& mode) const {
  std::vector<Entry> entries = entries_;
  Entry* group_class = nullptr;
  bool equivalent = true;
  auto limit = [&](Entry& e, int shift) {
    e.perm &= Bits(mode, shift);
    mode &= ~(7u << shift) | uint32_t{e.perm} << shift;
  };
  for (Entry& e : entries) {
    if (e.tag == kUserObj) limit(e, 6);
    if (e.tag == kOther) limit(e, 0);
    if (e.tag == kMask || (e.tag == kGroupObj && group_class == nullptr)) group_class = &e;
    if (e.tag == kUser || e.tag == kGroup || e.tag == kMask) equivalent = false;
  }
  if (group_class != nullptr) limit(*group_class, 3);
  if (equivalent) return nullptr;
  return RefPtr<const PosixAcl>(MakeRef<PosixAcl>(std::move(entries)));
}

}  // namespace moat
