#include "fs/devpts/devpts.h"

#include <dirent.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/ioctl.h>
#include <termios.h>

#include <atomic>
#include <charconv>

namespace moat {
namespace {

constexpr uint32_t kPtmxMajor = 5, kPtmxMinor = 2;
constexpr uint32_t kMinors = 1 << 20;
// kernel.pty.max less kernel.pty.reserve, which only the host's own /dev/pts may use.
constexpr int kMaxPtys = 4096 - 1024;
std::atomic<int> pty_count{0};  // of all instances
constexpr uint64_t kPtmxIno = 2;

// A device node whose owner and mode can be changed.
class NodeInode : public Inode {
 public:
  NodeInode(FileSystem& fs, uint64_t ino, DeviceId rdev, uint32_t mode, Kuid uid, Kgid gid)
      : Inode(fs, S_IFCHR, ino), rdev_(rdev), created_(RealtimeNow()), mode_(mode), uid_(uid), gid_(gid) {}
  Result<Kstat> GetAttr() override {
    Kstat s;
    s.ino = ino();
    s.mode = S_IFCHR | mode_.load(std::memory_order_relaxed);
    s.uid = uid_.load(std::memory_order_relaxed);
    s.gid = gid_.load(std::memory_order_relaxed);
    s.dev = fs().device();
    s.rdev = rdev_;
    s.blksize = 1024;
    s.atime = s.mtime = s.ctime = created_;
    return s;
  }
  Result<void> SetAttr(const VfsContext&, const AttrChange& change) override {
    if (change.mode) mode_ = *change.mode & 07777;
    if (change.uid) uid_ = *change.uid;
    if (change.gid) gid_ = *change.gid;
    return {};
  }
  // Device nodes are opened by their driver.
  Result<RefPtr<File>> Open(const VfsContext&, const VfsPath&, OpenFlags) override { return kENXIO; }

 private:
  const DeviceId rdev_;
  const Nanos created_;
  std::atomic<uint32_t> mode_;
  std::atomic<Kuid> uid_;
  std::atomic<Kgid> gid_;
};

class SlaveInode final : public NodeInode {
 public:
  SlaveInode(FileSystem& fs, RefPtr<Pty> pty, uint32_t mode, Kuid uid, Kgid gid)
      : NodeInode(fs, pty->number() + 3, pty->device(), mode, uid, gid), pty_(std::move(pty)) {}
  Pty& pty() { return *pty_; }

 private:
  const RefPtr<Pty> pty_;
};

class MasterFile final : public File {
 public:
  MasterFile(VfsPath path, OpenFlags flags, RefPtr<Pty> pty, RefPtr<DevptsFs> fs, VfsPath root)
      : File(std::move(path), flags), pty_(std::move(pty)), fs_(std::move(fs)), root_(std::move(root)) {}
  ~MasterFile() override {
    pty_->CloseMaster();
    fs_->Release(pty_->number());
  }
  Result<size_t> Read(const VfsContext&, IoDest& dst) override { return pty_->MasterRead(dst); }
  Result<size_t> Write(const VfsContext&, IoSource& src) override { return pty_->MasterWrite(src); }
  Result<size_t> PRead(const VfsContext&, IoDest&, int64_t) override { return kESPIPE; }
  Result<size_t> PWrite(const VfsContext&, IoSource&, int64_t) override { return kESPIPE; }
  Result<int64_t> Seek(const VfsContext&, int64_t, int) override { return kESPIPE; }
  EventMask Poll(EventMask interest) override { return pty_->PollMaster(interest); }
  WaitQueue& wait_queue() override { return pty_->master_queue(); }
  EventMask AsyncEvents() const override { return kAsyncInput | kAsyncOutput; }
  std::string FdInfo() const override { return fmt::format("tty-index:\t{}\n", pty_->number()); }
  Result<int64_t> Ioctl(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg) override {
    return pty_->MasterIoctl(ctx, memory, cmd, arg);
  }
  // TIOCGPTPEER: the slave, opened without a path of the caller's.
  Result<RefPtr<File>> OpenPeer(const VfsContext& ctx, int flags) override {
    RefPtr<Dentry> name = TRY(root_.dentry->LookupChild(ctx, fmt::format("{}", pty_->number())));
    return pty_->OpenSlave(ctx, VfsPath(root_.mount, name), OpenFlags{flags});
  }

 private:
  const RefPtr<Pty> pty_;
  const RefPtr<DevptsFs> fs_;
  const VfsPath root_;
};

// ptmx: the instance is that of the node itself, else the one mounted on "pts" beside the node.
class PtmxDriver final : public vfs::DeviceDriver {
 public:
  Result<RefPtr<File>> Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags, DeviceId) override {
    VfsPath parent(path.mount, path.dentry->parent());
    if (!parent.dentry) return kENODEV;
    RefPtr<Inode> inode = path.dentry->inode();
    if (auto* fs = inode ? dynamic_cast<DevptsFs*>(&inode->fs()) : nullptr) {
      return fs->OpenMaster(ctx, path, flags, std::move(parent));
    }
    Result<VfsPath> pts = vfs::Resolve(ctx, parent, "pts");
    if (!pts.ok()) return kENODEV;
    inode = pts->dentry->inode();
    auto* fs = inode ? dynamic_cast<DevptsFs*>(&inode->fs()) : nullptr;
    if (fs == nullptr) return kENODEV;
    return fs->OpenMaster(ctx, path, flags, *pts);
  }
};

class SlaveDriver final : public vfs::DeviceDriver {
 public:
  Result<RefPtr<File>> Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags, DeviceId) override {
    RefPtr<Inode> inode = path.dentry->inode();
    auto* slave = dynamic_cast<SlaveInode*>(inode.get());
    if (slave == nullptr) return kENXIO;  // a node made by mknod elsewhere names no instance
    return slave->pty().OpenSlave(ctx, path, flags);
  }
};

class DevptsType final : public FileSystemType {
 public:
  std::string_view name() const override { return "devpts"; }
  bool mountable_in_user_ns() const override { return true; }
  Result<RefPtr<FileSystem>> Mount(const VfsContext& ctx, const MountRequest& request) override {
    return RefPtr<FileSystem>(DevptsFs::Create(TRY(ParseDevptsOptions(*ctx.cred.user_ns, request.data))));
  }
};

Result<uint32_t> Number(std::string_view text, int base) {
  uint32_t v = 0;
  auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), v, base);
  if (ec != std::errc() || end != text.data() + text.size() || text.empty()) return kEINVAL;
  return v;
}

}  // namespace

class DevptsDir final : public PseudoDir {
 public:
  explicit DevptsDir(DevptsFs& fs) : PseudoDir(fs, 1, 0755), fs_(fs) {}
  Result<RefPtr<Inode>> Lookup(const VfsContext&, std::string_view name) override {
    if (name == "ptmx") return fs_.ptmx_;
    Result<uint32_t> number = Number(name, 10);
    if (!number.ok() || (name.size() > 1 && name[0] == '0')) return kENOENT;
    RefPtr<Inode> slave = fs_.FindSlave(*number);
    if (!slave) return kENOENT;
    return slave;
  }
  Result<void> List(const VfsContext&, int64_t from, std::vector<PseudoEntry>& out) override {
    if (from <= 2) out.push_back({"ptmx", kPtmxIno, DT_CHR, 2});
    MutexLock lock(fs_.mu_);
    for (auto& [number, inode] : fs_.slaves_) {
      int64_t position = 3 + static_cast<int64_t>(number);
      if (position >= from) out.push_back({fmt::format("{}", number), inode->ino(), DT_CHR, position});
    }
    return {};
  }

 private:
  DevptsFs& fs_;
};

DevptsFs::DevptsFs(const DevptsOptions& options) : PseudoFs("devpts", DEVPTS_SUPER_MAGIC, false), options_(options) {}

RefPtr<DevptsFs> DevptsFs::Create(const DevptsOptions& options) {
  RefPtr<DevptsFs> fs = AdoptRef(new DevptsFs(options));
  fs->ptmx_ = MakeRef<NodeInode>(*fs, kPtmxIno, DeviceId{kPtmxMajor, kPtmxMinor}, options.ptmx_mode, Kuid{0}, Kgid{0});
  fs->SetRoot(MakeRef<DevptsDir>(*fs));
  return fs;
}

std::string DevptsFs::ShowOptions() const {
  std::string s;
  if (options_.uid) s += fmt::format("uid={},", *options_.uid);
  if (options_.gid) s += fmt::format("gid={},", *options_.gid);
  s += fmt::format("mode={:03o},ptmxmode={:03o}", options_.mode, options_.ptmx_mode);
  if (options_.max < (1 << 20)) s += fmt::format(",max={}", options_.max);
  return s;
}

Result<RefPtr<File>> DevptsFs::OpenMaster(const VfsContext& ctx, const VfsPath& path, OpenFlags flags, VfsPath root) {
  RefPtr<Pty> pty;
  {
    MutexLock lock(mu_);
    uint32_t number = 0;  // the lowest free one
    for (auto& [used, inode] : slaves_) {
      if (used != number) break;
      ++number;
    }
    if (number >= options_.max) return kENOSPC;
    if (pty_count.fetch_add(1, std::memory_order_relaxed) >= kMaxPtys) {
      pty_count.fetch_sub(1, std::memory_order_relaxed);
      return kENOSPC;
    }
    pty = MakeRef<Pty>(number);
    slaves_.emplace(number, MakeRef<SlaveInode>(*this, pty, options_.mode, options_.uid.value_or(ctx.cred.fsuid),
                                                options_.gid.value_or(ctx.cred.fsgid)));
  }
  return RefPtr<File>(MakeRef<MasterFile>(path, flags, std::move(pty), RefPtr<DevptsFs>(this), std::move(root)));
}

void DevptsFs::Release(uint32_t number) {
  RefPtr<Inode> dropped;
  MutexLock lock(mu_);
  auto at = slaves_.find(number);
  if (at == slaves_.end()) return;
  dropped = std::move(at->second);
  slaves_.erase(at);
  pty_count.fetch_sub(1, std::memory_order_relaxed);
}

RefPtr<Inode> DevptsFs::FindSlave(uint32_t number) {
  MutexLock lock(mu_);
  auto at = slaves_.find(number);
  return at == slaves_.end() ? nullptr : at->second;
}

Result<DevptsOptions> ParseDevptsOptions(const UserNamespace& ns, std::string_view data) {
  DevptsOptions o;
  while (!data.empty()) {
    size_t comma = data.find(',');
    std::string_view item = data.substr(0, comma);
    data = comma == std::string_view::npos ? std::string_view() : data.substr(comma + 1);
    size_t equals = item.find('=');
    std::string_view key = item.substr(0, equals);
    std::string_view value = equals == std::string_view::npos ? std::string_view() : item.substr(equals + 1);
    if (key.empty() || item == "newinstance") continue;
    if (key == "uid") {
      o.uid = ns.ToKuid(TRY(Number(value, 10)));
      if (*o.uid == kNoId) return kEINVAL;
    } else if (key == "gid") {
      o.gid = ns.ToKgid(TRY(Number(value, 10)));
      if (*o.gid == kNoId) return kEINVAL;
    } else if (key == "mode") {
      o.mode = TRY(Number(value, 8)) & 07777;
    } else if (key == "ptmxmode") {
      o.ptmx_mode = TRY(Number(value, 8)) & 07777;
    } else if (key == "max") {
      o.max = TRY(Number(value, 10));
      if (o.max > (1 << 20)) return kEINVAL;
    } else {
      return kEINVAL;
    }
  }
  return o;
}

void RegisterDevpts() {
  static PtmxDriver ptmx;
  static SlaveDriver slaves;
  static DevptsType type;
  vfs::RegisterDevice(vfs::DeviceKind::kChar, kPtmxMajor, kPtmxMinor, 1, ptmx);
  vfs::RegisterDevice(vfs::DeviceKind::kChar, kPtySlaveMajor, 0, kMinors, slaves);
  vfs::RegisterFileSystemType(type);
}

}  // namespace moat
