// Base classes for generated trees (procfs, sysfs, mqueue, devpts): a file system without storage, inodes with fixed
// attributes, directories that list themselves. Thread-safe; names change under the derived class's own locks.
#ifndef MOAT_FS_PSEUDOFS_PSEUDO_FS_H_
#define MOAT_FS_PSEUDOFS_PSEUDO_FS_H_

#include <map>
#include <string>
#include <vector>

#include "fs/vfs/file.h"
#include "fs/vfs/filesystem.h"

namespace moat {

class PseudoFs : public FileSystem {
 public:
  // `magic` of <linux/magic.h>. `caches`: names never change behind the VFS's back.
  PseudoFs(std::string_view type_name, uint64_t magic, bool caches)
      : FileSystem(type_name), magic_(magic), caches_(caches) {}
  RefPtr<Inode> root() override { return root_; }
  // Once, before the file system is used.
  void SetRoot(RefPtr<Inode> root) { root_ = std::move(root); }
  Result<FsStat> StatFs() override;
  bool caches_dentries() const override { return caches_; }
  bool can_be_layer() const override { return caches_; }

 private:
  const uint64_t magic_;
  const bool caches_;
  RefPtr<Inode> root_;
};

// An inode whose owner and mode the code decides. chmod and chown answer kEPERM, times and truncation are accepted and
// change nothing (open(O_TRUNC) for a write is usual), as procfs does.
class PseudoInode : public Inode {
 public:
  PseudoInode(FileSystem& fs, uint32_t type, uint64_t ino, uint32_t permissions)
      : Inode(fs, type, ino, LockRank::kLog), permissions_(permissions), created_(RealtimeNow()) {}
  Result<Kstat> GetAttr() override;
  Result<Access> GetAccess() override;
  Result<void> SetAttr(const VfsContext& ctx, const AttrChange& change) override;

 protected:
  // Who owns it now; root unless overridden.
  virtual void Owner(Kuid& uid, Kgid& gid) {
    uid = 0;
    gid = 0;
  }
  virtual uint32_t Nlink() { return is_dir() ? 2 : 1; }
  uint32_t permissions() const { return permissions_; }

 private:
  const uint32_t permissions_;
  const Nanos created_;
};

// One name of a directory. Positions are unique, ascend and are at least 2: a listing goes on at the right place
// although names came and went meanwhile.
struct PseudoEntry {
  std::string name;
  uint64_t ino;
  uint8_t type;  // DT_*
  int64_t position;
};

class PseudoDir : public PseudoInode {
 public:
  PseudoDir(FileSystem& fs, uint64_t ino, uint32_t permissions) : PseudoInode(fs, S_IFDIR, ino, permissions) {}
  // All names at or after `from`, by position; "." and ".." are added by the file.
  virtual Result<void> List(const VfsContext& ctx, int64_t from, std::vector<PseudoEntry>& out) = 0;
  Result<RefPtr<Inode>> Lookup(const VfsContext& ctx, std::string_view name) override = 0;
  // A name that the tree does not generate cannot be made either: it does not exist, as procfs answers.
  Result<RefPtr<Inode>> Create(const VfsContext&, std::string_view, uint32_t) override { return kENOENT; }
  Result<RefPtr<Inode>> Mkdir(const VfsContext&, std::string_view, uint32_t) override { return kENOENT; }
  Result<RefPtr<File>> Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) override;
};

// A directory whose names are fixed before it is used.
class StaticDir : public PseudoDir {
 public:
  StaticDir(FileSystem& fs, uint32_t permissions = 0555) : PseudoDir(fs, fs.NextIno(), permissions) {}
  void Add(std::string name, RefPtr<Inode> inode) { children_.insert_or_assign(std::move(name), std::move(inode)); }
  // The sub-directory of that name, made if it is missing.
  StaticDir& Sub(const std::string& name);
  Result<void> List(const VfsContext& ctx, int64_t from, std::vector<PseudoEntry>& out) override;
  Result<RefPtr<Inode>> Lookup(const VfsContext& ctx, std::string_view name) override;

 protected:
  uint32_t Nlink() override;

 private:
  std::map<std::string, RefPtr<Inode>, std::less<>> children_;
};

// The description of an open PseudoDir.
class PseudoDirFile final : public File {
 public:
  PseudoDirFile(VfsPath path, OpenFlags flags, RefPtr<PseudoDir> dir)
      : File(std::move(path), flags), dir_(std::move(dir)) {}
  Result<void> ReadDir(const VfsContext& ctx, DirEntrySink& sink) override;
  Result<int64_t> Seek(const VfsContext& ctx, int64_t offset, int whence) override;
  Result<size_t> PRead(const VfsContext&, IoDest&, int64_t) override { return kEISDIR; }
  Result<size_t> Read(const VfsContext&, IoDest&) override { return kEISDIR; }

 private:
  const RefPtr<PseudoDir> dir_;
};

uint8_t DirentType(uint32_t file_type);  // S_IFREG -> DT_REG

}  // namespace moat

#endif  // MOAT_FS_PSEUDOFS_PSEUDO_FS_H_
