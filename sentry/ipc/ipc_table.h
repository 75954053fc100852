// What the three kinds of System V objects share: identity, permissions and a table by key and by id.
// A table and its objects are guarded by the table's mutex (kIpc). Source: sysvipc(7), svipc(7).
#ifndef MOAT_SENTRY_IPC_IPC_TABLE_H_
#define MOAT_SENTRY_IPC_IPC_TABLE_H_

#include <sys/ipc.h>

#include <algorithm>
#include <map>

#include "platform/base/mutex.h"
#include "platform/base/ref_ptr.h"
#include "platform/base/result.h"
#include "platform/cred/credentials.h"

namespace moat {

struct IpcPerm {
  int32_t key = 0;
  Kuid uid = 0, cuid = 0;
  Kgid gid = 0, cgid = 0;
  uint32_t mode = 0;  // permission bits and SHM_DEST, SHM_LOCKED
};

// `wanted`: permission bits as in a mode (0444 to read, 0222 to write); which of the three digits counts depends on who
// asks. kEACCES.
Result<void> CheckIpc(const Credentials& cred, const IpcPerm& perm, const UserNamespace& owner, uint32_t wanted);
// IPC_SET and IPC_RMID: the owner, the creator, or CAP_SYS_ADMIN. kEPERM.
Result<void> CheckIpcOwner(const Credentials& cred, const IpcPerm& perm, const UserNamespace& owner);

// To and from the guest's struct ipc_perm, with the ids of `ns`.
ipc_perm EncodePerm(const UserNamespace& ns, const IpcPerm& perm, int id);
// IPC_SET: owner and permission bits. kEINVAL for unmapped ids.
Result<void> ApplyPerm(const UserNamespace& ns, const ipc_perm& from, IpcPerm* perm);

template <typename T>  // has IpcPerm perm; int id; bool removed
class IpcTable {
 public:
  static constexpr int kMax = 32000;        // SHMMNI and the like
  static constexpr int kIndexSpan = 32768;  // ids are sequence * span + index

  explicit IpcTable(const UserNamespace& owner) : owner_(owner) {}
  Mutex& mutex() ABSL_LOCK_RETURNED(mu_) { return mu_; }
  const UserNamespace& owner() const { return owner_; }

  Result<T*> Find(int id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    auto at = objects_.find(id % kIndexSpan);
    if (id < 0 || at == objects_.end() || at->second->id != id) return kEINVAL;
    return at->second.get();
  }
  Result<T*> FindIndex(int index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    auto at = objects_.find(index);
    if (at == objects_.end()) return kEINVAL;
    return at->second.get();
  }

  // xxxget(2): `make` creates the object, `fits` checks an existing one.
  template <typename Make, typename Fits>
  Result<int> Get(const Credentials& cred, int32_t key, int flags, Make make, Fits fits)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (key != IPC_PRIVATE) {
      for (auto& [index, o] : objects_) {
        if (o->perm.key != key) continue;
        if ((flags & IPC_CREAT) && (flags & IPC_EXCL)) return kEEXIST;
        TRY(fits(*o));
        TRY(CheckIpc(cred, o->perm, owner_, static_cast<uint32_t>(flags) & 0777));
        return o->id;
      }
      if (!(flags & IPC_CREAT)) return kENOENT;
    }
    int index = 0;  // the lowest free one
    for (auto& [used, o] : objects_) {
      if (used != index) break;
      ++index;
    }
    if (index >= kMax) return kENOSPC;
    RefPtr<T> o = TRY(make());
    o->perm.key = key;
    o->perm.uid = o->perm.cuid = cred.euid;
    o->perm.gid = o->perm.cgid = cred.egid;
    o->perm.mode = static_cast<uint32_t>(flags) & 0777;
    o->id = static_cast<int>(sequence_++ % (INT32_MAX / kIndexSpan)) * kIndexSpan + index;
    int id = o->id;
    objects_.emplace(index, std::move(o));
    return id;
  }

  // The reference is the caller's, to be dropped after the mutex.
  RefPtr<T> Remove(T& o) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    auto at = objects_.find(o.id % kIndexSpan);
    RefPtr<T> taken = std::move(at->second);
    objects_.erase(at);
    taken->removed = true;
    return taken;
  }
  const std::map<int, RefPtr<T>>& objects() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return objects_; }
  int HighestIndex() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    return objects_.empty() ? 0 : objects_.rbegin()->first;
  }

 private:
  const UserNamespace& owner_;
  Mutex mu_{LockRank::kIpc};
  std::map<int, RefPtr<T>> objects_ ABSL_GUARDED_BY(mu_);
  uint32_t sequence_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace moat

#endif  // MOAT_SENTRY_IPC_IPC_TABLE_H_
