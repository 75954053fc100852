#include "fs/anon/anon_inode.h"

#include <fmt/format.h>
#include <linux/magic.h>

#include "fs/vfs/file.h"
#include "fs/vfs/vfs.h"

namespace moat {
namespace {

class AnonFs final : public FileSystem {
 public:
  AnonFs(std::string_view name, uint64_t magic) : FileSystem(name), magic_(magic) {}
  RefPtr<Inode> root() override { return nullptr; }
  Result<FsStat> StatFs() override {
    FsStat s;
    s.type = magic_;
    return s;
  }

 private:
  const uint64_t magic_;
};

// Attributes that chmod and chown may change, as sockfs allows; the shared anon inode refuses.
class AnonInode final : public Inode {
 public:
  AnonInode(FileSystem& fs, uint32_t type, uint32_t mode, Kuid uid, Kgid gid)
      : Inode(fs, type, fs.NextIno()), created_(RealtimeNow()), mode_(mode), uid_(uid), gid_(gid) {}

  Result<Kstat> GetAttr() override {
    Kstat s;
    s.ino = ino();
    s.uid = uid_.load(std::memory_order_relaxed);
    s.gid = gid_.load(std::memory_order_relaxed);
    s.mode = type() | mode_.load(std::memory_order_relaxed);
    s.dev = fs().device();
    s.atime = s.mtime = s.ctime = created_;
    return s;
  }
  Result<void> SetAttr(const VfsContext&, const AttrChange& change) override {
    if (type() != S_IFSOCK) return kEPERM;
    if (change.mode) mode_ = *change.mode & 07777;
    if (change.uid) uid_ = *change.uid;
    if (change.gid) gid_ = *change.gid;
    return {};
  }
  // Reached through /proc/<pid>/fd: these cannot be opened a second time.
  Result<RefPtr<File>> Open(const VfsContext&, const VfsPath&, OpenFlags) override { return kENXIO; }

 private:
  const Nanos created_;
  std::atomic<uint32_t> mode_;
  std::atomic<Kuid> uid_;
  std::atomic<Kgid> gid_;
};

}  // namespace

VfsPath AnonInodePath(std::string_view kind) {
  static AnonFs* const fs = new AnonFs("anon_inodefs", ANON_INODE_FS_MAGIC);
  static AnonInode* const inode = new AnonInode(*fs, 0, 0600, 0, 0);
  return vfs::AnonymousPath(RefPtr<Inode>(inode), fmt::format("anon_inode:[{}]", kind));
}

VfsPath SocketPath(Kuid uid, Kgid gid) {
  static AnonFs* const fs = new AnonFs("sockfs", SOCKFS_MAGIC);
  RefPtr<Inode> inode = MakeRef<AnonInode>(*fs, uint32_t{S_IFSOCK}, 0777u, uid, gid);
  uint64_t ino = inode->ino();
  return vfs::AnonymousPath(std::move(inode), fmt::format("socket:[{}]", ino));
}

}  // namespace moat
