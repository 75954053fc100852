// What the three kinds of System V objects share: identity, permissions and a table by key and by id.
// A table and its objects are guarded by the table's mutex (kIpc). Source: sysvipc(7), svipc(7).
#ifndef MOAT_SENTRY_IPC_IPC_TABLE_H_
#define MOAT_SENTRY_IPC_IPC_TABLE_H_

#include <sys/ipc.h>

#include <algorithm>
#include <map>
#include <unordered_map>

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
  static constexpr int kIndexSpan = 32768;  // ids are sequence * span + index

  // `max`: objects, SHMMNI and the like.
  IpcTable(const UserNamespace& owner, int max) : owner_(owner), max_(max) {}
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
      if (auto at = by_key_.find(key); at != by_key_.end()) {
        T& o = *objects_.find(at->second)->second;
        if ((flags & IPC_CREAT) && (flags & IPC_EXCL)) return kEEXIST;
        TRY(fits(o));
        TRY(CheckIpc(cred, o.perm, owner_, static_cast<uint32_t>(flags) & 0777));
        return o.id;
      }
      if (!(flags & IPC_CREAT)) return kENOENT;
    }
    if (objects_.size() >= static_cast<size_t>(max_)) return kENOSPC;
    while (objects_.contains(lowest_free_)) ++lowest_free_;
    const int index = lowest_free_;
    RefPtr<T> o = TRY(make());
    o->perm.key = key;
    o->perm.uid = o->perm.cuid = cred.euid;
    o->perm.gid = o->perm.cgid = cred.egid;
    o->perm.mode = static_cast<uint32_t>(flags) & 0777;
    o->id = static_cast<int>(sequence_++ % (INT32_MAX / kIndexSpan)) * kIndexSpan + index;
    int id = o->id;
    objects_.emplace(index, std::move(o));
    if (key != IPC_PRIVATE) by_key_.emplace(key, index);
    return id;
  }

  // The reference is the caller's, to be dropped after the mutex.
  RefPtr<T> Remove(T& o) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    auto at = objects_.find(o.id % kIndexSpan);
    RefPtr<T> taken = std::move(at->second);
    lowest_free_ = std::min(lowest_free_, at->first);
    if (auto key = by_key_.find(taken->perm.key); key != by_key_.end() && key->second == at->first) by_key_.erase(key);
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
  const int max_;
  Mutex mu_{LockRank::kIpc};
  std::map<int, RefPtr<T>> objects_ ABSL_GUARDED_BY(mu_);  // by index
  std::unordered_map<int32_t, int> by_key_ ABSL_GUARDED_BY(mu_);
  int lowest_free_ ABSL_GUARDED_BY(mu_) = 0;  // no index below it is free
  uint32_t sequence_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace moat

#endif  // MOAT_SENTRY_IPC_IPC_TABLE_H_
