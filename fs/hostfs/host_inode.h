// HostInode: one object of the host, by its gofer handle. Attributes, a symlink's target, a directory's listing and
// the donated descriptors of a regular file are kept here. Thread-safe. Lock: kInode, never held over a round trip.
#ifndef MOAT_FS_HOSTFS_HOST_INODE_H_
#define MOAT_FS_HOSTFS_HOST_INODE_H_

#include <list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "fs/hostfs/directory_scan.h"
#include "fs/hostfs/host_filesystem.h"
#include "fs/vfs/inode.h"

namespace moat {

class HostMappable;

class HostInode final : public Inode {
 public:
  HostFs& host_fs() const { return static_cast<HostFs&>(fs()); }
  gofer::Handle handle() const { return handle_; }

  Result<Kstat> GetAttr() override;
  Result<Access> GetAccess() override;
  Result<void> SetAttr(const VfsContext& ctx, const AttrChange& change) override;

  Result<RefPtr<Inode>> Lookup(const VfsContext& ctx, std::string_view name) override;
  RefPtr<RefCounted> LookAhead(const VfsContext& ctx, std::span<const std::string_view> names) override;
  Result<RefPtr<Inode>> Create(const VfsContext& ctx, std::string_view name, uint32_t mode) override;
  Result<RefPtr<Inode>> Mkdir(const VfsContext& ctx, std::string_view name, uint32_t mode) override;
  Result<RefPtr<Inode>> Mknod(const VfsContext& ctx, std::string_view name, uint32_t mode, DeviceId dev) override;
  Result<RefPtr<Inode>> Symlink(const VfsContext& ctx, std::string_view name, std::string_view target) override;
  Result<void> Link(const VfsContext& ctx, std::string_view name, Inode& target) override;
  Result<void> Unlink(const VfsContext& ctx, std::string_view name, Inode& child) override;
  Result<void> Rmdir(const VfsContext& ctx, std::string_view name, Inode& child) override;
  Result<void> Rename(const VfsContext& ctx, std::string_view old_name, Inode& child, Inode& new_dir,
                      std::string_view new_name, Inode* replaced, unsigned flags) override;
  Result<RefPtr<Inode>> CreateTemporary(const VfsContext& ctx, uint32_t mode) override;

  Result<std::string> Readlink(const VfsContext& ctx) override;
  Result<RefPtr<File>> Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) override;
  Result<std::string> GetXattr(const VfsContext& ctx, std::string_view name) override;
  Result<void> SetXattr(const VfsContext& ctx, std::string_view name, std::string_view value, int flags) override;
  Result<void> RemoveXattr(const VfsContext& ctx, std::string_view name) override;
  Result<std::vector<std::string>> ListXattr(const VfsContext& ctx) override;
  Result<RefPtr<Mappable>> GetMappable() override;

  // --- for the files and mappings of this inode ---
  // The donated descriptor, open at least for that; valid while the file is open or mapped. One round trip the first
  // time.
  Result<int> HostFd(bool write);
  // Around each open description: the descriptors stay while there is one, or a mapping. At the end the file system
  // may close them; a later open asks the gofer again.
  void FileOpened();
  void FileClosed();
  // The descriptor when HostFd would need no round trip.
  int CachedHostFd(bool write) const;
  // The guest wrote [offset, offset+n): the size is known, the other attributes are stale.
  void Wrote(uint64_t offset, uint64_t n);
  // The guest appended `n` bytes; answers the offset after them as far as this sandbox knows.
  Result<uint64_t> Appended(uint64_t n);
  void MarkStale();
  Result<uint64_t> Size();
  // On a shared mount, attributes that a lookup or an operation brought are good for this long: for the same system
  // call, or the fstat that follows an open. Too short for the host to change the file and tell the guest.
  static constexpr Nanos kSharedFreshness = 50'000;

  // Attributes came with an operation that began when generation() was `generation`: they are kept unless something
  // changed meanwhile, for then nobody knows which came first.
  uint64_t generation() const;
  void Refresh(const Kstat& st, uint64_t generation);
  // A shared writable mapping came or went: the host changes times and blocks as it likes. Takes no lock.
  void MappedWritable(int delta);

  // Mappable::Derived: of a file of an exclusive mount that nobody here could ever write to.
  RefPtr<RefCounted> DerivedFromBytes(absl::FunctionRef<RefPtr<RefCounted>()> make);

  // The listing of a directory of an exclusive mount; null when it has to be read (again).
  using Listing = std::vector<GoferClient::Entry>;
  std::shared_ptr<const Listing> CachedListing() const;
  // A program reads this directory from its start.
  void NoteListed() { NoteUse(host_fs().read_ahead().directories); }
  // `exact`: gofer::kExact of all its parts. `generation`: as Refresh.
  void StoreListing(std::shared_ptr<const Listing> listing, bool exact, uint64_t generation);

 private:
  friend class HostFs;
  friend class HostMappable;
  HostInode(HostFs& fs, gofer::Handle handle, uint64_t host_dev, uint64_t host_ino, const Kstat& st,
            std::string target);
  ~HostInode() override;

  // What a new object in this directory is: the caller's ids, the group of a set-gid directory.
  Result<GoferClient::NewOwner> OwnerOfNew(const VfsContext& ctx, uint32_t mode);
  RefPtr<Inode> AdoptNew(std::string_view name, GoferClient::Object object, std::string target = {});
  Result<void> RemoveName(std::string_view name, Inode& child, bool directory);
  // `name` in this directory changed (empty: a nameless file was made): listing and attributes are stale.
  void NamesChanged(std::string_view name);
  void CloseIfIdle();

  // Lookups on exclusive mounts (host_inode_scan.cc).
  Result<RefPtr<Inode>> LookupAmongSiblings(std::string_view name);
  Result<RefPtr<Inode>> AskWithSiblings(std::string_view name, std::shared_ptr<const Listing> listing,
                                        const DirectoryScan::Step& step);
  bool ListingPaysLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ReadListing();
  // A lookup ends: `inode` keeps the descriptor or the listing, if there is one.
  RefPtr<Inode> Accept(RefPtr<HostInode> inode, GoferClient::Found& found);
  void DropAnswers();
  void GiveBack(DirectoryScan::Answers answers);
  // A lookup brought this inode; somebody reads it.
  void NoteLookup(UseRatio& ratio) {
    if (!unused_.exchange(true, std::memory_order_relaxed)) ratio.Seen();
  }
  void NoteUse(UseRatio& ratio) {
    if (unused_.exchange(false, std::memory_order_relaxed)) ratio.Used();
  }
  // For the destructor: the object was changed, and may have other names that earlier answers are about.
  bool HasLostChanges() const;
  // What was found out about extended attributes when generation() was `generation`; `missing`: there is none of that
  // name.
  void XattrsChanged();
  void NoteXattrs(std::string_view missing, bool none, uint64_t generation);
  bool CacheableLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const gofer::Handle handle_;
  const uint64_t host_dev_, host_ino_;
  const std::string target_;                                  // of a symlink, as of the lookup
  std::optional<std::list<HostInode*>::iterator> in_lru_[2];  // by HostFs::Lru; guarded by the file system's mu_
  std::atomic<bool> changed_{false};                          // by this sandbox, since this inode is there
  std::atomic<bool> unused_{false};                           // a lookup has brought it, and nobody has read it yet

  mutable Mutex mu_{LockRank::kInode};
  Kstat attr_ ABSL_GUARDED_BY(mu_);
  Nanos fresh_until_ ABSL_GUARDED_BY(mu_) = 0;  // shared mounts
  bool attr_valid_ ABSL_GUARDED_BY(mu_) = true;
  bool size_valid_ ABSL_GUARDED_BY(mu_) = true;   // attr_.size is right even while the rest is stale
  uint64_t generation_ ABSL_GUARDED_BY(mu_) = 0;  // of changes: an answer that was on its way during one is not kept
  ScopedFd read_fd_ ABSL_GUARDED_BY(mu_), write_fd_ ABSL_GUARDED_BY(mu_);  // see FileOpened
  int open_files_ ABSL_GUARDED_BY(mu_) = 0;
  // On exclusive mounts: execve asks for one name each time, cp -a lists twice.
  std::string missing_xattr_ ABSL_GUARDED_BY(mu_);
  bool no_xattrs_ ABSL_GUARDED_BY(mu_) = false;
  std::shared_ptr<const Listing> listing_ ABSL_GUARDED_BY(mu_);
  std::unique_ptr<DirectoryScan> scan_ ABSL_GUARDED_BY(mu_);  // of the newest listing; outlives it
  uint64_t lookups_unlisted_ ABSL_GUARDED_BY(mu_) = 0;        // since there was no listing

  // A descriptor for writing was there, or the size was set: by this sandbox, since this inode is there.
  std::atomic<bool> bytes_may_change_{false};
  Mutex derived_mu_{LockRank::kLeaf};
  RefPtr<RefCounted> derived_ ABSL_GUARDED_BY(derived_mu_);

  std::atomic<int> writable_mappings_{0};
  std::atomic<bool> mapping_wrote_{false};  // a writable mapping was there since the last GetAttr
  Mutex mappable_mu_{LockRank::kGofer};     // apart from mu_: mm drops mappables with its own locks held
  HostMappable* mappable_ ABSL_GUARDED_BY(mappable_mu_) = nullptr;  // the mappable refers to this inode
};

}  // namespace moat

#endif  // MOAT_FS_HOSTFS_HOST_INODE_H_
