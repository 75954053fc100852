// POSIX access control lists: who may do what beyond owner, group and others; and what new files begin with.
// Source: acl(5); Linux's fs/posix_acl.c for what the mode and the list do to each other.
#ifndef MOAT_FS_VFS_POSIX_ACL_H_
#define MOAT_FS_VFS_POSIX_ACL_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/vfs/inode.h"

namespace moat {

// Immutable; shared by the inodes that inherited it.
class PosixAcl : public RefCounted {
 public:
  enum Tag : uint16_t { kUserObj = 1, kUser = 2, kGroupObj = 4, kGroup = 8, kMask = 16, kOther = 32 };
  struct Entry {
    uint16_t tag;
    uint16_t perm;  // 4 read, 2 write, 1 execute
    uint32_t id;    // a Kuid or Kgid, for kUser and kGroup
    bool operator==(const Entry&) const = default;
  };
  static constexpr size_t kMaxEntries = 1024;  // ours: what a directory's default costs each new file

  explicit PosixAcl(std::vector<Entry> entries) : entries_(std::move(entries)) {}
  const std::vector<Entry>& entries() const { return entries_; }

  // The value of the extended attribute, with ids as `ns` has them. Null for an empty list. kEINVAL, kEOPNOTSUPP
  // (version), kENOSPC.
  static Result<RefPtr<const PosixAcl>> FromXattr(const UserNamespace& ns, std::string_view value);
  std::string ToXattr(const UserNamespace& ns) const;

  // posix_acl_valid(): one entry each of owner, group and others, in order, a mask when users or groups are named, and
  // ids that the file system's namespace has. kEINVAL.
  Result<void> Validate(const UserNamespace* fs_ns) const;

  // The permission bits that stat(2) shows; false when the list says more than they can.
  bool ToMode(uint32_t& permissions) const;
  // kEACCES. For who is not the owner.
  Result<void> Check(const Credentials& cred, Kgid group, int mask) const;
  // The list after chmod(2).
  RefPtr<const PosixAcl> WithMode(uint32_t mode) const;
  // A default list and what open(2) or mkdir(2) asked for become the new file's list and mode. Null: the mode says all.
  RefPtr<const PosixAcl> ForNewFile(uint32_t& mode) const;

 private:
  const std::vector<Entry> entries_;
};

// The kind that an extended attribute's name means.
std::optional<AclKind> AclKindOf(std::string_view xattr_name);

}  // namespace moat

#endif  // MOAT_FS_VFS_POSIX_ACL_H_
