#include "fs/devfs/devfs.h"

#include <sys/stat.h>

#include "fs/devfs/mem_devices.h"

namespace moat {
namespace {

constexpr uint32_t kTtyMajor = 5;
constexpr uint32_t kTtyMinor = 0, kConsoleMinor = 1, kPtmxMinor = 2;

Mutex console_mu{LockRank::kLeaf};
Tty* console ABSL_GUARDED_BY(console_mu) = nullptr;  // holds a reference

// /dev/tty is the caller's controlling terminal, /dev/console the sandbox's.
class TtyDriver final : public vfs::DeviceDriver {
 public:
  Result<RefPtr<File>> Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags, DeviceId dev) override {
    RefPtr<Tty> tty;
    if (dev.minor == kTtyMinor) {
      if (tty_job_control != nullptr) tty = tty_job_control->ControllingTty(ctx);
    } else {
      MutexLock lock(console_mu);
      tty = RefPtr<Tty>(console);
    }
    if (!tty) return kENXIO;
    return tty->OpenAgain(ctx, path, flags);
  }
};

struct Node {
  const char* name;
  uint32_t mode;
  DeviceId dev;
};
constexpr Node kNodes[] = {
    {"null", 0666, {kMemMajor, kNullMinor}},       {"zero", 0666, {kMemMajor, kZeroMinor}},
    {"full", 0666, {kMemMajor, kFullMinor}},       {"random", 0666, {kMemMajor, kRandomMinor}},
    {"urandom", 0666, {kMemMajor, kUrandomMinor}}, {"tty", 0666, {kTtyMajor, kTtyMinor}},
};

struct Link {
  const char* name;
  const char* target;
};
constexpr Link kLinks[] = {
    {"fd", "/proc/self/fd"},       {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
    {"stderr", "/proc/self/fd/2"}, {"core", "/proc/kcore"},      {"ptmx", "pts/ptmx"},
};

struct Dir {
  const char* name;
  uint32_t mode;
};
constexpr Dir kDirs[] = {{"pts", 0755}, {"shm", 01777}, {"mqueue", 01777}};

Result<void> UnlessExists(Result<void> r) {
  if (!r.ok() && r.error() == kEEXIST) return {};
  return r;
}

// A tmpfs that starts with the nodes. They are made through the root inode: nothing is mounted yet.
class DevtmpfsType final : public FileSystemType {
 public:
  std::string_view name() const override { return "devtmpfs"; }
  Result<RefPtr<FileSystem>> Mount(const VfsContext& ctx, const MountRequest& request) override {
    FileSystemType* tmpfs = vfs::FindFileSystemType("tmpfs");
    if (tmpfs == nullptr) return kENODEV;
    MountRequest r = request;
    if (r.data.find("mode=") == std::string::npos) r.data += r.data.empty() ? "mode=755" : ",mode=755";
    RefPtr<FileSystem> fs = TRY(tmpfs->Mount(ctx, r));
    RefPtr<Inode> root = fs->root();
    for (const Node& n : kNodes) TRY(root->Mknod(ctx, n.name, S_IFCHR | n.mode, n.dev));
    TRY(root->Mknod(ctx, "console", S_IFCHR | 0600, {kTtyMajor, kConsoleMinor}));
    TRY(root->Mknod(ctx, "ptmx", S_IFCHR | 0666, {kTtyMajor, kPtmxMinor}));
    for (const Dir& d : kDirs) TRY(root->Mkdir(ctx, d.name, d.mode));
    for (const Link& l : kLinks) {
      if (std::string_view(l.name) != "ptmx") TRY(root->Symlink(ctx, l.name, l.target));
    }
    return fs;
  }
};

}  // namespace

void RegisterDevices(FillRandomFn fill_random) {
  static MemDriver mem(fill_random);
  static TtyDriver tty;
  static DevtmpfsType devtmpfs;
  vfs::RegisterDevice(vfs::DeviceKind::kChar, kMemMajor, 0, 16, mem);
  vfs::RegisterDevice(vfs::DeviceKind::kChar, kTtyMajor, kTtyMinor, 2, tty);
  vfs::RegisterFileSystemType(devtmpfs);
}

Result<void> PopulateDev(const VfsContext& ctx, const VfsPath& dev) {
  // The nodes' modes are meant as written.
  VfsContext plain = ctx;
  plain.umask = 0;
  for (const Node& n : kNodes) TRY(UnlessExists(vfs::Mknod(plain, dev, n.name, S_IFCHR | n.mode, n.dev)));
  for (const Dir& d : kDirs) TRY(UnlessExists(vfs::Mkdir(plain, dev, d.name, d.mode)));
  for (const Link& l : kLinks) TRY(UnlessExists(vfs::Symlink(plain, l.target, dev, l.name)));
  return {};
}

void SetConsole(RefPtr<Tty> tty) {
  RefPtr<Tty> old;
  MutexLock lock(console_mu);
  old = AdoptRef(console);
  console = tty.Leak();
}

}  // namespace moat
