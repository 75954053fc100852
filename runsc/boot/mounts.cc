#include "runsc/boot/mounts.h"

#include <fcntl.h>
#include <sys/mount.h>

#include "fs/devfs/devfs.h"
#include "fs/hostfs/host_filesystem.h"
#include "fs/overlay/overlay.h"
#include "fs/vfs/vfs.h"
#include "runsc/error/error.h"
#include "sentry/procfs/procfs.h"

namespace moat {
namespace {

constexpr uint64_t kPerMountFlags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME |
                                    MS_RELATIME | MS_STRICTATIME | 256 /* MS_NOSYMFOLLOW */;

absl::Status StepFailed(const MountStep& step, Errno e) {
  return Failed("{}: mount {} on {}: {}", step.field, step.type, step.destination, ErrnoText(e));
}

class MountBuilder {
 public:
  MountBuilder(const BootConfig& config, Kernel& kernel, RefPtr<PidNamespace> pid_ns, RefPtr<GoferClient> gofer)
      : config_(config),
        kernel_(kernel),
        pid_ns_(std::move(pid_ns)),
        root_ns_(kernel.root_user_ns()),
        gofer_(std::move(gofer)),
        cred_(Credentials::CreateRoot(root_ns_)) {}

  absl::StatusOr<RefPtr<MountNamespace>> Build() {
    const MountStep& root = config_.mounts.front();
    Result<RefPtr<FileSystem>> fs = MakeFileSystem(root, nullptr);
    if (!fs.ok()) return StepFailed(root, fs.error());
    ns_ = MountNamespace::Create(*std::move(fs), root.source, 0, root_ns_);
    VfsContext ctx = Context();
    for (size_t i = 1; i < config_.mounts.size(); ++i) RETURN_IF_ERROR(Apply(ctx, config_.mounts[i]));
    RETURN_IF_ERROR(MakeDevices(ctx));
    for (const std::string& path : config_.masked_paths) RETURN_IF_ERROR(Mask(ctx, path));
    for (const std::string& path : config_.readonly_paths) RETURN_IF_ERROR(MakeReadOnly(ctx, path));
    // Last: mount points below the root had to be made first.
    if ((root.flags & kPerMountFlags) != 0) {
      Result<void> done = ns_->Remount(ns_->root(), root.flags & kPerMountFlags, /*bind_only=*/true, "");
      if (!done.ok()) return StepFailed(root, done.error());
    }
    if (root.propagation != 0) {
      Result<void> done = Propagate(ns_->root(), root.propagation);
      if (!done.ok()) return StepFailed(root, done.error());
    }
    return ns_;
  }

 private:
  VfsContext Context() {
    VfsPath root = ns_->root();
    return VfsContext{.cred = *cred_, .mounts = *ns_, .root = root, .cwd = root, .umask = 0};
  }

  Result<RefPtr<FileSystem>> MakeFileSystem(const MountStep& step, const VfsContext* ctx) {
    if (step.type == "proc") return MakeProc(step.data);
    if (step.type != "host") {
      FileSystemType* type = vfs::FindFileSystemType(step.type);
      if (type == nullptr) return kENODEV;
      return type->Mount(*ctx, MountRequest{step.source, step.data, step.flags});
    }
    HostFs::Options options;
    options.cache = step.shared_with_host ? HostCache::kShared : HostCache::kExclusive;
    options.read_only = step.overlay || (step.flags & MS_RDONLY) != 0;
    // The root of a bundle: the guest's read-only root still gets its mount points made.
    if (step.destination == "/" && !step.overlay) options.read_only = false;
    RefPtr<FileSystem> host = TRY(HostFs::Create(gofer_, static_cast<uint32_t>(step.gofer_index), options));
    return step.overlay ? MakePrivateOverlay(std::move(host)) : Result<RefPtr<FileSystem>>(std::move(host));
  }

  // Of the container's pid namespace, which no task is in yet.
  Result<RefPtr<FileSystem>> MakeProc(const std::string& data) {
    ProcFs::Options options;
    for (size_t at = 0; at < data.size();) {
      size_t comma = std::min(data.find(',', at), data.size());
      std::string item = data.substr(at, comma - at);
      at = comma + 1;
      static constexpr std::pair<std::string_view, int> kHidePid[] = {
          {"0", 0}, {"off", 0}, {"1", 1}, {"noaccess", 1}, {"2", 2}, {"invisible", 2}, {"4", 4}, {"ptraceable", 4}};
      bool known = item == "subset=pid";
      options.pid_only |= known;
      for (const auto& [name, value] : kHidePid) {
        if (item != "hidepid=" + std::string(name)) continue;
        options.hide_pid = value;
        known = true;
      }
      if (!known) return kEINVAL;
    }
    return RefPtr<FileSystem>(ProcFs::Create(kernel_, pid_ns_, options));
  }

  // Where a link that leads nowhere yet points to; empty when `path` is no link.
  static std::string LinkTarget(const VfsContext& ctx, const std::string& path) {
    Result<VfsPath> link = vfs::Resolve(ctx, ctx.root, path, {.follow_last = false});
    if (!link.ok() || link->dentry->inode()->type() != S_IFLNK) return {};
    std::string target = link->dentry->inode()->Readlink(ctx).value_or("");
    return target.empty() || target[0] == '/' ? target : path.substr(0, path.rfind('/') + 1) + target;
  }

  // Makes what is missing of `path`, a directory or (for a mount of one file) an empty file at its end. A link on the
  // way that leads nowhere gets its target made (/var/run -> /run in an image without /run).
  Result<VfsPath> MountPoint(const VfsContext& ctx, const std::string& path, bool directory, int links = 40) {
    Result<VfsPath> there = vfs::Resolve(ctx, ctx.root, path);
    if (there.ok() || there.error() != kENOENT) return there;
    if (links == 0) return kELOOP;
    for (size_t slash = path.find('/', 1);; slash = path.find('/', slash + 1)) {
      std::string part = path.substr(0, slash);
      if (std::string target = LinkTarget(ctx, part); !target.empty()) {
        TRY(MountPoint(ctx, target, directory || slash != path.npos, links - 1));
      } else if (slash == path.npos && !directory) {
        TRY(vfs::Open(ctx, ctx.root, part, {.flags = O_CREAT | O_RDONLY, .mode = 0644}));
      } else if (!part.empty()) {
        Result<void> made = vfs::Mkdir(ctx, ctx.root, part, 0755);
        if (!made.ok() && made.error() != kEEXIST) return made.error();
      }
      if (slash == path.npos) break;
    }
    return vfs::Resolve(ctx, ctx.root, path);
  }

  Result<void> Propagate(const VfsPath& top, uint64_t how) {
    return ns_->ChangePropagation(top, how & ~uint64_t{MS_REC}, (how & MS_REC) != 0);
  }

  absl::Status Change(const VfsContext& ctx, const MountStep& step) {
    Result<VfsPath> top = vfs::Resolve(ctx, ctx.root, step.destination);
    Result<void> done = top.ok() ? ns_->Remount(*top, step.flags & kPerMountFlags, step.bind_remount, step.data)
                                 : Result<void>(top.error());
    if (!done.ok()) return Failed("{}: remount {}: {}", step.field, step.destination, ErrnoText(done.error()));
    return absl::OkStatus();
  }

  absl::Status Apply(const VfsContext& ctx, const MountStep& step) {
    if (step.remount) return Change(ctx, step);
    Result<RefPtr<FileSystem>> fs = MakeFileSystem(step, &ctx);
    if (!fs.ok()) {
      // A kernel without POSIX message queues runs most programs; it is said, not hidden.
      if (step.type == "mqueue" && fs.error() == kENODEV) {
        MOAT_LOG(kWarning, "{}: mqueue is not implemented, {} is not mounted", step.field, step.destination);
        return absl::OkStatus();
      }
      return StepFailed(step, fs.error());
    }
    Result<VfsPath> target = MountPoint(ctx, step.destination, step.type != "host" || step.host_is_directory);
    if (!target.ok()) return StepFailed(step, target.error());
    Result<RefPtr<Mount>> mount = ns_->MountAt(*target, *std::move(fs), step.source, step.flags & kPerMountFlags);
    if (!mount.ok()) return StepFailed(step, mount.error());
    if (step.propagation != 0) {
      VfsPath top = *target;
      ns_->Descend(top);
      Result<void> done = Propagate(top, step.propagation);
      if (!done.ok()) return StepFailed(step, done.error());
    }
    return absl::OkStatus();
  }

  absl::Status MakeDevices(const VfsContext& ctx) {
    Result<VfsPath> dev = vfs::Resolve(ctx, ctx.root, "/dev", {.directory_only = true});
    if (!dev.ok()) return absl::OkStatus();  // a root without /dev: its choice
    for (size_t i = 0; i < config_.devices.size(); ++i) {
      const oci::Device& d = config_.devices[i];
      if (d.path == "/dev/ptmx") continue;  // the container's own, whatever number the host's has
      uint32_t type = d.type == "b" ? S_IFBLK : d.type == "p" ? S_IFIFO : S_IFCHR;
      const DeviceId id{static_cast<uint32_t>(d.major), static_cast<uint32_t>(d.minor)};
      const size_t slash = d.path.rfind('/');
      if (slash > 0) [[maybe_unused]]
        auto parent = MountPoint(ctx, d.path.substr(0, slash), /*directory=*/true);
      Result<void> made = vfs::Mknod(ctx, ctx.root, d.path, type | (d.file_mode.value_or(0666) & 07777), id);
      if (!made.ok() && made.error() != kEEXIST)
        return Failed("linux.devices[{}]: make {}: {}", i, d.path, ErrnoText(made.error()));
      Result<VfsPath> node = vfs::Resolve(ctx, ctx.root, d.path, {.follow_last = false});
      Result<Kstat> there = node.ok() ? node->dentry->inode()->GetAttr() : Result<Kstat>(node.error());
      if (!there.ok()) return Failed("linux.devices[{}]: {}: {}", i, d.path, ErrnoText(there.error()));
      if ((there->mode & S_IFMT) != type || (type != S_IFIFO && !(there->rdev == id)))
        return Failed("linux.devices[{}]: {}: is there already and another file", i, d.path);
      if (made.ok() && (d.uid || d.gid)) {
        AttrChange change;
        change.uid = d.uid;
        change.gid = d.gid;
        [[maybe_unused]] auto owned = vfs::SetAttr(ctx, *node, change);
      }
    }
    // What the configuration lists itself is there by now.
    Result<void> populated = config_.default_devices ? PopulateDev(ctx, *dev) : Result<void>();
    if (!populated.ok() && populated.error() != kEROFS)
      return Failed("make the default devices in /dev: {}", ErrnoText(populated.error()));
    return absl::OkStatus();
  }

  absl::Status Mask(const VfsContext& ctx, const std::string& path) {
    Result<VfsPath> place = vfs::Resolve(ctx, ctx.root, path);
    if (!place.ok()) return absl::OkStatus();  // nothing there to hide
    RefPtr<Inode> inode = place->dentry->inode();
    Result<void> done;
    if (inode && inode->is_dir()) {
      FileSystemType* tmpfs = vfs::FindFileSystemType("tmpfs");
      Result<RefPtr<FileSystem>> fs = tmpfs->Mount(ctx, MountRequest{"tmpfs", "mode=555,size=4k", MS_RDONLY});
      if (fs.ok()) {
        Result<RefPtr<Mount>> mount =
            ns_->MountAt(*place, *std::move(fs), "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC);
        if (!mount.ok()) done = mount.error();
      } else {
        done = fs.error();
      }
    } else {
      Result<VfsPath> null = vfs::Resolve(ctx, ctx.root, "/dev/null");
      if (null.ok()) {
        Result<RefPtr<Mount>> mount = ns_->Bind(*place, *null, false);
        if (!mount.ok()) done = mount.error();
      } else {
        done = null.error();
      }
    }
    if (!done.ok()) return Failed("linux.maskedPaths: hide {}: {}", path, ErrnoText(done.error()));
    return absl::OkStatus();
  }

  absl::Status MakeReadOnly(const VfsContext& ctx, const std::string& path) {
    Result<VfsPath> place = vfs::Resolve(ctx, ctx.root, path);
    if (!place.ok()) return absl::OkStatus();
    Result<RefPtr<Mount>> mount = ns_->Bind(*place, *place, true);
    Result<void> done = mount.ok() ? Result<void>() : Result<void>(mount.error());
    if (done.ok()) {
      VfsPath top = *place;
      ns_->Descend(top);
      done = ns_->Remount(top, ((*mount)->flags() & kPerMountFlags) | MS_RDONLY, /*bind_only=*/true, "");
    }
    if (!done.ok()) return Failed("linux.readonlyPaths: protect {}: {}", path, ErrnoText(done.error()));
    return absl::OkStatus();
  }

  const BootConfig& config_;
  Kernel& kernel_;
  RefPtr<PidNamespace> pid_ns_;
  RefPtr<UserNamespace> root_ns_;
  RefPtr<GoferClient> gofer_;
  RefPtr<const Credentials> cred_;
  RefPtr<MountNamespace> ns_;
};

}  // namespace

absl::StatusOr<RefPtr<MountNamespace>> BuildMounts(const BootConfig& config, Kernel& kernel,
                                                   RefPtr<PidNamespace> pid_ns, RefPtr<GoferClient> gofer) {
  return MountBuilder(config, kernel, std::move(pid_ns), std::move(gofer)).Build();
}

}  // namespace moat
