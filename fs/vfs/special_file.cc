#include "fs/vfs/special_file.h"

#include <sys/epoll.h>

#include <vector>

#include "fs/vfs/mount_tree.h"

namespace moat::vfs {
namespace {

std::atomic<FifoOpener> fifo_opener{nullptr};

struct DeviceRange {
  DeviceKind kind;
  uint32_t major, first, count;
  DeviceDriver* driver;
};

struct Registries {
  Mutex mu{LockRank::kLeaf};
  std::vector<DeviceRange> devices ABSL_GUARDED_BY(mu);
  std::vector<FileSystemType*> types ABSL_GUARDED_BY(mu);
};

Registries& Tables() {
  static Registries* r = new Registries;
  return *r;
}

DeviceDriver* FindDriver(DeviceKind kind, DeviceId id) {
  MutexLock lock(Tables().mu);
  for (const DeviceRange& r : Tables().devices) {
    if (r.kind == kind && r.major == id.major && id.minor >= r.first && id.minor - r.first < r.count) return r.driver;
  }
  return nullptr;
}

class PathFile final : public File {
 public:
  using File::File;
  Result<void> SetStatusFlags(int) override { return kEBADF; }
  EventMask Poll(EventMask) override { return EPOLLNVAL_; }
  Result<void> Flush(const VfsContext&) override { return {}; }

 private:
  static constexpr EventMask EPOLLNVAL_ = 0x20;  // POLLNVAL
};

// The file system of pseudo files (Linux: pipefs, sockfs and anon_inodefs in one).
class AnonymousFs final : public FileSystem {
 public:
  AnonymousFs() : FileSystem("anon_inodefs") {}
  RefPtr<Inode> root() override;
  Result<FsStat> StatFs() override {
    FsStat st;
    st.type = 0x09041934;  // ANON_INODE_FS_MAGIC
    return st;
  }
};

class EmptyDirectory final : public Inode {
 public:
  explicit EmptyDirectory(FileSystem& fs) : Inode(fs, S_IFDIR, 1) {}
  Result<Kstat> GetAttr() override {
    Kstat st;
    st.ino = ino();
    st.mode = S_IFDIR | 0755;
    st.nlink = 2;
    st.dev = fs().device();
    return st;
  }
  Result<RefPtr<File>> Open(const VfsContext&, const VfsPath&, OpenFlags) override { return kEACCES; }
};

RefPtr<Inode> AnonymousFs::root() { return MakeRef<EmptyDirectory>(*this); }

// One for the sandbox; lives for ever.
const RefPtr<Mount>& AnonymousMount() {
  static const RefPtr<Mount>* m =
      new RefPtr<Mount>(MountNamespace::MakeDetached(MakeRef<AnonymousFs>(), "anon_inodefs", 0));
  return *m;
}

}  // namespace

void SetFifoOpener(FifoOpener opener) { fifo_opener.store(opener); }

Result<RefPtr<File>> OpenSpecial(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) {
  Inode& inode = *path.dentry->inode_ptr();
  if (inode.type() == S_IFIFO) {
    FifoOpener opener = fifo_opener.load();
    if (opener == nullptr) return kENXIO;
    return opener(ctx, path, flags);
  }
  Kstat st = TRY(inode.GetAttr());
  DeviceDriver* driver = FindDriver(inode.type() == S_IFCHR ? DeviceKind::kChar : DeviceKind::kBlock, st.rdev);
  if (driver == nullptr) return kENXIO;
  return driver->Open(ctx, path, flags, st.rdev);
}

Result<RefPtr<File>> MakePathFile(const VfsPath& path, OpenFlags flags) {
  return RefPtr<File>(MakeRef<PathFile>(path, flags));
}

void RegisterDevice(DeviceKind kind, uint32_t major, uint32_t first_minor, uint32_t count, DeviceDriver& driver) {
  MutexLock lock(Tables().mu);
  Tables().devices.push_back({kind, major, first_minor, count, &driver});
}

void RegisterFileSystemType(FileSystemType& type) {
  MutexLock lock(Tables().mu);
  Tables().types.push_back(&type);
}

FileSystemType* FindFileSystemType(std::string_view name) {
  MutexLock lock(Tables().mu);
  for (FileSystemType* t : Tables().types) {
    if (t->name() == name) return t;
  }
  return nullptr;
}

std::vector<FileSystemType*> FileSystemTypes() {
  MutexLock lock(Tables().mu);
  return Tables().types;
}

VfsPath AnonymousPath(RefPtr<Inode> inode, std::string name) {
  return VfsPath(AnonymousMount(), Dentry::CreateAnonymous(std::move(inode), std::move(name)));
}

}  // namespace moat::vfs
