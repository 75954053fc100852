// Who may do what to an inode: mode bits, access control lists, capabilities, sticky directories and the protected_*
// rules.
// Source: path_resolution(7), capabilities(7), chmod(2), chown(2), utimensat(2), proc_sys_fs(5).
#ifndef MOAT_FS_VFS_PERMISSIONS_H_
#define MOAT_FS_VFS_PERMISSIONS_H_

#include "fs/vfs/inode.h"

namespace moat {

inline constexpr int kMayExec = 1;
inline constexpr int kMayWrite = 2;
inline constexpr int kMayRead = 4;

// The fs.protected_* sysctls; they begin with Debian's defaults.
struct ProtectedNames {
  static inline std::atomic<int32_t> symlinks{1}, hardlinks{1}, fifos{1}, regular{2};
};

// capable_wrt_inode_uidgid(): a capability counts for an inode whose ids the caller's user namespace maps.
bool CapableOver(const Credentials& cred, const Inode::Access& inode, int cap);
// CAP_FOWNER or the owner.
bool OwnerOrCapable(const Credentials& cred, const Inode::Access& inode);

// Mode bits or `acl`, and CAP_DAC_*; kEACCES. `access.mode` carries the file type.
Result<void> GenericPermission(const Credentials& cred, const Inode::Access& access, int mask,
                               const PosixAcl* acl = nullptr);

// May a name be made in `dir`? Write and search permission; kENOENT when the directory was removed is the fs's answer.
Result<void> MayCreate(const VfsContext& ctx, Inode& dir);
// May `victim` be taken out of `dir`? Write, search and the sticky rule (kEPERM); `is_dir`: by rmdir (kENOTDIR),
// else by unlink (kEISDIR).
Result<void> MayDelete(const VfsContext& ctx, Inode& dir, Inode& victim, bool is_dir);
// protected_symlinks: may the walk follow `link`, which lies in `dir`?
Result<void> MayFollowSymlink(const VfsContext& ctx, Inode& dir, Inode& link);
// protected_hardlinks.
Result<void> MayLink(const VfsContext& ctx, Inode& source);
// protected_fifos and protected_regular: open(O_CREAT) of something that exists in a sticky directory.
Result<void> MayOpenExistingInSticky(const VfsContext& ctx, Inode& dir, Inode& inode);

// Checks a change of attributes and completes it: a chown or chmod that must drop S_ISUID or S_ISGID does so in `mode`.
Result<void> PrepareSetAttr(const VfsContext& ctx, Inode& inode, AttrChange& change);

// The mode of a new object: umask, where the directory has no default list, and, for a directory below a set-group-id
// directory, S_ISGID.
Result<uint32_t> ModeForCreate(const VfsContext& ctx, Inode& dir, uint32_t mode);
// The group of a new object: the directory's when it has S_ISGID, else the creator's.
Kgid GroupForCreate(const Credentials& cred, const Inode::Access& dir);

// A write by `cred` takes S_ISUID (and S_ISGID of a group-executable file) away. Cheap when neither is set.
Result<void> RemovePrivileges(const VfsContext& ctx, Inode& inode);

}  // namespace moat

#endif  // MOAT_FS_VFS_PERMISSIONS_H_
