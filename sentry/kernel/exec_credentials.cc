#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/mount.h>

#include <cstring>

#include "fs/vfs/dentry.h"
#include "fs/vfs/mount.h"
#include "sentry/kernel/task_exec.h"

namespace moat {

namespace {

struct FileCapabilities {
  bool present = false;
  bool effective = false;
  CapabilitySet permitted, inheritable;
};

// security.capability: struct vfs_cap_data (revisions 2 and 3), little-endian.
FileCapabilities ReadFileCapabilities(const VfsContext& ctx, Inode& inode, const UserNamespace& ns) {
  FileCapabilities caps;
  Result<std::string> value = inode.GetXattr(ctx, "security.capability");
  if (!value.ok()) return caps;
  vfs_ns_cap_data data{};
  if (value->size() != XATTR_CAPS_SZ_2 && value->size() != XATTR_CAPS_SZ_3) return caps;
  memcpy(&data, value->data(), value->size());
  const uint32_t revision = data.magic_etc & VFS_CAP_REVISION_MASK;
  if (revision != VFS_CAP_REVISION_2 && revision != VFS_CAP_REVISION_3) return caps;
  // Revision 3 names the root user of the namespace that the capabilities are for.
  if (revision == VFS_CAP_REVISION_3 && ns.ToKuid(0) != data.rootid) return caps;
  if (revision == VFS_CAP_REVISION_2 && ns.parent() != nullptr) return caps;
  caps.present = true;
  caps.effective = (data.magic_etc & VFS_CAP_FLAGS_EFFECTIVE) != 0;
  caps.permitted = {static_cast<uint64_t>(data.data[1].permitted) << 32 | data.data[0].permitted};
  caps.inheritable = {static_cast<uint64_t>(data.data[1].inheritable) << 32 | data.data[0].inheritable};
  caps.permitted = caps.permitted & CapabilitySet::All();
  caps.inheritable = caps.inheritable & CapabilitySet::All();
  return caps;
}

}  // namespace

// capabilities(7), "Transformation of capabilities during execve()" and "Capabilities and execution of programs by
// root".
Result<ExecCredentials> CredentialsForExec(const Credentials& caller, const VfsContext& ctx, const File& file,
                                           bool watched) {
  RefPtr<Inode> inode = file.inode();
  const Inode::Access access = TRY(inode->GetAccess());
  RefPtr<Credentials> next = caller.Copy();
  const UserNamespace& ns = *caller.user_ns;
  const bool privileges = !caller.no_new_privs && (file.path().mount->flags() & MS_NOSUID) == 0;
  bool ids_changed = false;
  if (privileges && ns.HasMapping(access.uid, access.gid)) {
    if ((access.mode & S_ISUID) != 0) {
      ids_changed |= next->euid != access.uid;
      next->euid = access.uid;
    }
    if ((access.mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP)) {
      ids_changed |= next->egid != access.gid;
      next->egid = access.gid;
    }
  }
  const bool set_id = ids_changed;
  FileCapabilities file_caps;
  if (privileges) file_caps = ReadFileCapabilities(ctx, *inode, ns);
  const Kuid root = ns.ToKuid(0);
  const bool root_rules = (caller.securebits & SECBIT_NOROOT) == 0;
  bool effective_bit = file_caps.effective;
  if (root_rules && (next->uid == root || next->euid == root) && !(file_caps.present && next->uid != root)) {
    file_caps.permitted = file_caps.inheritable = CapabilitySet::All();
    file_caps.present = true;
    effective_bit = next->euid == root;
  }
  const bool gained_by_file = ids_changed || (file_caps.present && !(root_rules && next->uid == root));
  next->ambient = gained_by_file ? CapabilitySet::None() : caller.ambient;
  next->permitted =
      (caller.inheritable & file_caps.inheritable) | (file_caps.permitted & caller.bounding) | next->ambient;
  if (file_caps.effective && !file_caps.permitted.IsSubsetOf(next->permitted)) return kEPERM;
  // ptrace(2), "execve(2) under ptrace"; capabilities(7).
  if (watched && (set_id || !next->permitted.IsSubsetOf(caller.permitted))) {
    if (!caller.HasCapability(CAP_SETUID) || caller.no_new_privs) {
      next->euid = next->uid;
      next->egid = next->gid;
    }
    next->permitted = next->permitted & caller.permitted;
  }
  next->suid = next->fsuid = next->euid;
  next->sgid = next->fsgid = next->egid;
  next->effective = effective_bit ? next->permitted : next->ambient;
  next->securebits &= ~static_cast<uint32_t>(SECBIT_KEEP_CAPS);

  ExecCredentials out;
  out.secure = next->euid != next->uid || next->egid != next->gid || ids_changed ||
               (next->uid != root && (effective_bit || !next->permitted.IsSubsetOf(next->ambient)));
  out.cred = std::move(next);
  return out;
}

}  // namespace moat
