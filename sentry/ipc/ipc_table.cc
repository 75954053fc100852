#include "sentry/ipc/ipc_table.h"

namespace moat {

Result<void> CheckIpc(const Credentials& cred, const IpcPerm& perm, const UserNamespace& owner, uint32_t wanted) {
  wanted = ((wanted >> 6) | (wanted >> 3) | wanted) & 7;
  uint32_t granted = perm.mode;
  if (cred.euid == perm.uid || cred.euid == perm.cuid) {
    granted >>= 6;
  } else if (cred.egid == perm.gid || cred.egid == perm.cgid || cred.InGroup(perm.gid) || cred.InGroup(perm.cgid)) {
    granted >>= 3;
  }
  if ((wanted & ~granted & 7) == 0 || cred.HasCapabilityIn(CAP_IPC_OWNER, owner)) return {};
  return kEACCES;
}

Result<void> CheckIpcOwner(const Credentials& cred, const IpcPerm& perm, const UserNamespace& owner) {
  if (cred.euid == perm.uid || cred.euid == perm.cuid || cred.HasCapabilityIn(CAP_SYS_ADMIN, owner)) return {};
  return kEPERM;
}

ipc_perm EncodePerm(const UserNamespace& ns, const IpcPerm& perm, int id) {
  ipc_perm p{};
  p.__key = perm.key;
  p.uid = ns.FromKuid(perm.uid);
  p.gid = ns.FromKgid(perm.gid);
  p.cuid = ns.FromKuid(perm.cuid);
  p.cgid = ns.FromKgid(perm.cgid);
  p.mode = static_cast<decltype(p.mode)>(perm.mode);
  p.__seq = static_cast<unsigned short>(id / 32768);
  return p;
}

Result<void> ApplyPerm(const UserNamespace& ns, const ipc_perm& from, IpcPerm* perm) {
  Kuid uid = ns.ToKuid(from.uid);
  Kgid gid = ns.ToKgid(from.gid);
  if (uid == kNoId || gid == kNoId) return kEINVAL;
  perm->uid = uid;
  perm->gid = gid;
  perm->mode = (perm->mode & ~0777u) | (from.mode & 0777u);
  return {};
}

}  // namespace moat
