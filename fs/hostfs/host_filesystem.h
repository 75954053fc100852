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
#include <unordered_map>
#include <vector>

#include "fs/hostfs/gofer_client.h"
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
  // The inode if it is known; no round trip.
  RefPtr<HostInode> KnownInode(uint32_t dev_major, uint32_t dev_minor, uint64_t ino);
  // A regular file's last description went: its donated descriptors may be closed when there are too many of them.
  void FileIdle(HostInode& inode);
  static constexpr size_t kMaxIdleFiles = 2048;

  uint64_t GuestIno(uint32_t dev_major, uint32_t dev_minor, uint64_t ino);
  Kstat ToKstat(const gofer::Attr& attr);

 private:
  friend class HostInode;
  struct Key {
    uint64_t dev, ino;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& k) const { return (k.ino * 0x9E3779B97F4A7C15ull) ^ (k.dev << 7); }
  };

  HostFs(RefPtr<GoferClient> client, Options options);
  ~HostFs() override;
  void OnLastUnref() override;
  void Drop(HostInode& inode);  // by its destructor
  static uint64_t Device(uint32_t major, uint32_t minor) { return (uint64_t{major} << 32) | minor; }
  uint64_t GuestInoLocked(uint64_t dev, uint64_t ino) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const RefPtr<GoferClient> client_;
  const Options options_;
  RefPtr<HostInode> root_;  // constant after Create
  std::atomic<uint64_t> name_changes_{0};
  Mutex mu_{LockRank::kGofer};
  std::unordered_map<Key, HostInode*, KeyHash> inodes_ ABSL_GUARDED_BY(mu_);
  std::vector<uint64_t> devices_ ABSL_GUARDED_BY(mu_);  // [0] is the root's
  std::list<HostInode*> idle_ ABSL_GUARDED_BY(mu_);     // oldest first; each is in inodes_ or about to Drop
};

}  // namespace moat

#endif  // MOAT_FS_HOSTFS_HOST_FILESYSTEM_H_
