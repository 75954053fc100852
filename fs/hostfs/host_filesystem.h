// HostFs: a directory of the host (or one file), as the gofer serves it. docs/gofer-protocol.md.
//
// Two cache policies: an *exclusive* mount belongs to this sandbox, so attributes, names and missing names are kept
// for as long as the VFS keeps the dentry, and a second look costs no round trip; a *shared* mount changes under
// the host's hands: names are looked up again and attributes fetched again.
// The ids of files are the host's. Device nodes of the host are opened by the VFS's own drivers, never on the
// host; FIFOs and sockets connect processes of the sandbox only (nobody on the host listens there).
// st_dev is one number for the whole mount, also where the host has mounts below the root: inode numbers of
// further host devices carry the device in their upper bits.
#ifndef MOAT_FS_HOSTFS_HOST_FILESYSTEM_H_
#define MOAT_FS_HOSTFS_HOST_FILESYSTEM_H_

#include <list>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "fs/hostfs/gofer_client.h"
#include "fs/hostfs/read_ahead_policy.h"
#include "fs/vfs/filesystem.h"

namespace moat {

class HostInode;

enum class HostCache { kExclusive, kShared };

class HostFs final : public FileSystem {
 public:
  struct Options {
    HostCache cache = HostCache::kExclusive;
    bool read_only = false;        // what the gofer enforces; kept here to answer EROFS without a round trip
    std::string type_name = "9p";  // what /proc/mounts shows; statfs answers the host's
  };
  // Attaches to mount `index` of the gofer.
  static Result<RefPtr<HostFs>> Create(RefPtr<GoferClient> client, uint32_t index, Options options);

  RefPtr<Inode> root() override;
  Result<FsStat> StatFs() override;
  Result<void> SyncAll() override;
  std::string ShowOptions() const override;
  bool caches_dentries() const override { return options_.cache == HostCache::kExclusive; }

  GoferClient& client() const { return *client_; }
  bool exclusive() const { return options_.cache == HostCache::kExclusive; }
  bool read_only_mount() const { return options_.read_only; }

  // Counts changes of names by this sandbox.
  uint64_t name_changes() const { return name_changes_.load(std::memory_order_acquire); }
  void NameChanged() { name_changes_.fetch_add(1, std::memory_order_acq_rel); }

  // The inode of a host object; takes over `handle`. An object that is known keeps its inode, whatever name it was
  // reached by, and gets the fresh attributes.
  RefPtr<HostInode> InodeOf(gofer::Handle handle, const gofer::Attr& attr, std::string target = {});
  // The same for an answer of an earlier batch, asked when lost_changes() was `asked_at`. Null, and `found` is left as
  // it is, when its attributes may be stale: the object was changed, and the inode that knew it is gone.
  RefPtr<HostInode> InodeOfAnswer(GoferClient::Found& found, uint64_t asked_at);
  // Counts inodes that went after their objects had been changed through them.
  uint64_t lost_changes() const { return lost_changes_.load(std::memory_order_acquire); }
  // Whether there is an inode of this object; no round trip.
  bool IsKnown(uint32_t dev_major, uint32_t dev_minor, uint64_t ino);
  // A regular file's last description went: its donated descriptors may be closed when there are too many of them.
  void FileIdle(HostInode& inode);
  static constexpr size_t kMaxIdleFiles = 2048;
  // A directory has answers of a batch that no lookup has taken yet: only the newest ones keep theirs.
  void HasAnswers(HostInode& dir);
  void NoAnswers(HostInode& dir);
  static constexpr size_t kMaxDirsWithAnswers = 16;
  ReadAheadPolicy& read_ahead() { return read_ahead_; }

  uint64_t GuestIno(uint32_t dev_major, uint32_t dev_minor, uint64_t ino);
  Kstat ToKstat(const gofer::Attr& attr);

 private:
  friend class HostInode;
  struct Key {
    uint64_t dev, ino;
    bool operator==(const Key&) const = default;
    template <typename H>
    friend H AbslHashValue(H h, const Key& k) {
      return H::combine(std::move(h), k.dev, k.ino);
    }
  };

  HostFs(RefPtr<GoferClient> client, Options options);
  ~HostFs() override;
  void OnLastUnref() override;
  void Drop(HostInode& inode);  // by its destructor
  static uint64_t Device(uint32_t major, uint32_t minor) { return (uint64_t{major} << 32) | minor; }
  // Inodes in the order of their last use, oldest first; each is in inodes_ or about to Drop.
  enum Lru { kIdleFiles, kDirsWithAnswers, kLruCount };
  // `inode` is the newest now. The oldest, if there are more than `max`: it is no longer in the list.
  RefPtr<HostInode> Touch(Lru which, HostInode& inode, size_t max);
  static Key KeyOf(const gofer::Attr& attr) { return {Device(attr.dev_major, attr.dev_minor), attr.ino}; }
  // `dying`: there is one in its destructor, which has not been counted in lost_changes_ yet.
  RefPtr<HostInode> KnownLocked(const gofer::Attr& attr, bool& dying) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  RefPtr<HostInode> MakeLocked(gofer::Handle handle, const gofer::Attr& attr, const Kstat& st, std::string target)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t GuestInoLocked(uint64_t dev, uint64_t ino) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const RefPtr<GoferClient> client_;
  const Options options_;
  RefPtr<HostInode> root_;  // constant after Create
  std::atomic<uint64_t> name_changes_{0};
  Mutex mu_{LockRank::kGofer};
  absl::flat_hash_map<Key, HostInode*> inodes_ ABSL_GUARDED_BY(mu_);
  std::vector<uint64_t> devices_ ABSL_GUARDED_BY(mu_);  // [0] is the root's
  std::list<HostInode*> lru_[kLruCount] ABSL_GUARDED_BY(mu_);
  ReadAheadPolicy read_ahead_;
  std::atomic<uint64_t> lost_changes_{0};  // written with mu_ held
};

}  // namespace moat

#endif  // MOAT_FS_HOSTFS_HOST_FILESYSTEM_H_
