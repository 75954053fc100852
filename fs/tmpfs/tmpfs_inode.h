// The inodes of tmpfs. Attributes that every path component looks at are atomics; the rest is under the inode's lock
// (rank kInode). A directory owns its children.
#ifndef MOAT_FS_TMPFS_TMPFS_INODE_H_
#define MOAT_FS_TMPFS_TMPFS_INODE_H_

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "fs/tmpfs/tmpfs.h"
#include "fs/vfs/file.h"
#include "fs/vfs/posix_acl.h"

namespace moat {

Nanos TmpfsNow();  // of the tick, as Linux stamps inodes

class TmpfsInode : public Inode {
 public:
  struct New {
    uint32_t mode;  // type and permissions
    Kuid uid;
    Kgid gid;
    uint32_t nlink;
    RefPtr<const PosixAcl> acl = nullptr, default_acl = nullptr;
  };
  // The caller has charged the inode to the quota; the destructor gives it back.
  TmpfsInode(TmpfsFs& fs, const New& n);
  ~TmpfsInode() override;

  Result<Kstat> GetAttr() override;
  Result<Access> GetAccess() override;
  Result<void> SetAttr(const VfsContext& ctx, const AttrChange& change) override;
  Result<void> CheckPermission(const VfsContext& ctx, int mask) override;
  Result<RefPtr<const PosixAcl>> GetAcl(AclKind kind) override;
  Result<void> SetAcl(const VfsContext& ctx, AclKind kind, RefPtr<const PosixAcl> acl) override;
  bool HasDefaultAcl() const override { return has_acl_[1].load(std::memory_order_acquire); }
  Result<RefPtr<File>> Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) override { return kENXIO; }
  Result<std::string> GetXattr(const VfsContext& ctx, std::string_view name) override;
  Result<void> SetXattr(const VfsContext& ctx, std::string_view name, std::string_view value, int flags) override;
  Result<void> RemoveXattr(const VfsContext& ctx, std::string_view name) override;
  Result<std::vector<std::string>> ListXattr(const VfsContext& ctx) override;

  TmpfsFs& tmpfs() const { return static_cast<TmpfsFs&>(fs()); }
  uint32_t nlink() const { return nlink_.load(std::memory_order_relaxed); }
  void AddLinks(int n) {
    nlink_.fetch_add(static_cast<uint32_t>(n), std::memory_order_relaxed);
    ctime_.store(TmpfsNow(), std::memory_order_relaxed);
  }
  void TouchData() { TouchDataAt(TmpfsNow()); }  // the content changed
  // A read through `path`: relatime and noatime are the mount's, O_NOATIME the file's.
  void TouchAccess(const VfsPath& path, int file_flags);

 protected:
  // When bytes changed behind this object's back, once; 0: they did not.
  virtual Nanos TakeStoreTime() { return 0; }
  virtual uint64_t size() const { return 0; }
  virtual uint64_t blocks() const { return 0; }
  virtual DeviceId rdev() const { return {}; }
  virtual Result<void> Resize(uint64_t) { return kEINVAL; }
  // F_SEAL_EXEC: the execute bits stay as they are.
  virtual bool ExecSealed() const { return false; }

  Mutex mu_{LockRank::kInode};

 private:
  void TouchDataAt(Nanos now) {
    mtime_.store(now, std::memory_order_relaxed);
    ctime_.store(now, std::memory_order_relaxed);
  }
  // Stores through mappings, before anybody looks at the times or sets them.
  void NoticeStores() {
    if (Nanos at = TakeStoreTime()) TouchDataAt(at);
  }

  const RefPtr<FileQuota> quota_;
  std::atomic<uint32_t> mode_;
  std::atomic<Kuid> uid_;
  std::atomic<Kgid> gid_;
  std::atomic<uint32_t> nlink_;
  std::atomic<Nanos> atime_, mtime_, ctime_;
  const Nanos btime_;
  struct Xattrs {
    std::map<std::string, std::string, std::less<>> values;
    size_t bytes = 0;
  };
  std::unique_ptr<Xattrs> xattrs_ ABSL_GUARDED_BY(mu_);
  // By AclKind; what every path component looks at says whether there is one.
  RefPtr<const PosixAcl> acl_[2] ABSL_GUARDED_BY(mu_);
  std::atomic<bool> has_acl_[2] = {false, false};
};

class TmpfsRegular final : public TmpfsInode {
 public:
  TmpfsRegular(TmpfsFs& fs, const New& n, uint32_t seals, bool temporary);
  Result<RefPtr<File>> Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) override;
  Result<RefPtr<Mappable>> GetMappable() override { return RefPtr<Mappable>(data_); }
  PagedData& data() { return *data_; }
  // O_TMPFILE: linkat may give it its first name.
  bool temporary() const { return temporary_; }

 protected:
  uint64_t size() const override { return data_->size(); }
  uint64_t blocks() const override { return data_->pages() * (kPageSize / 512); }
  Result<void> Resize(uint64_t size) override { return data_->Resize(size); }
  Nanos TakeStoreTime() override { return data_->TakeStoreTime(); }
  bool ExecSealed() const override;

 private:
  const RefPtr<PagedData> data_;
  const bool temporary_;
};

class TmpfsSymlink final : public TmpfsInode {
 public:
  TmpfsSymlink(TmpfsFs& fs, const New& n, std::string_view target) : TmpfsInode(fs, n), target_(target) {}
  Result<std::string> Readlink(const VfsContext&) override { return target_; }

 protected:
  uint64_t size() const override { return target_.size(); }

 private:
  const std::string target_;
};

class TmpfsSpecial final : public TmpfsInode {
 public:
  TmpfsSpecial(TmpfsFs& fs, const New& n, DeviceId dev) : TmpfsInode(fs, n), dev_(dev) {}

 protected:
  DeviceId rdev() const override { return dev_; }

 private:
  const DeviceId dev_;
};

class TmpfsDirectory final : public TmpfsInode {
 public:
  TmpfsDirectory(TmpfsFs& fs, const New& n) : TmpfsInode(fs, n) {}
  ~TmpfsDirectory() override;

  Result<RefPtr<Inode>> Lookup(const VfsContext& ctx, std::string_view name) override;
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
  Result<RefPtr<File>> Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) override;

  // Entries from position `from` on (positions ascend and are never used twice): calls sink.Add until it refuses.
  // Returns the position to go on from.
  int64_t List(int64_t from, DirEntrySink& sink);
  // Calls f(name, inode) for each entry.
  void ForEach(const std::function<void(const std::string&, TmpfsInode&)>& f);

 protected:
  uint64_t size() const override { return entries_.load(std::memory_order_relaxed) * 20 + 40; }

 private:
  static constexpr int64_t kFirstPosition = 2;  // after "." and ".."
  struct Entry {
    std::string name;
    RefPtr<TmpfsInode> inode;
  };
  Result<New> Attributes(const VfsContext& ctx, uint32_t mode, uint32_t nlink);
  Result<RefPtr<Inode>> Add(std::string_view name, RefPtr<TmpfsInode> inode);
  Entry* FindLocked(std::string_view name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void InsertLocked(std::string_view name, RefPtr<TmpfsInode> inode) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  RefPtr<TmpfsInode> EraseLocked(std::string_view name) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool empty() const { return entries_.load(std::memory_order_acquire) == 0; }

  // std::map: its nodes stay where they are, and by_name_ points into them.
  std::map<int64_t, Entry> by_position_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<std::string_view, int64_t> by_name_ ABSL_GUARDED_BY(mu_);
  int64_t next_position_ ABSL_GUARDED_BY(mu_) = kFirstPosition;
  std::atomic<uint64_t> entries_{0};
};

}  // namespace moat

#endif  // MOAT_FS_TMPFS_TMPFS_INODE_H_
