// The mount calls on descriptors: fsopen(2), fspick(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2),
// mount_setattr(2).
#include <fcntl.h>
#include <linux/mount.h>

#include <optional>

#include "fs/anon/anon_inode.h"
#include "fs/vfs/mount_ops.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/path_argument.h"

namespace moat {
namespace {

// <sys/mount.h> and <linux/mount.h> cannot be included together; these are mount(2)'s bits.
constexpr uint64_t kReadOnly = 1, kNoSuid = 2, kNoDev = 4, kNoExec = 8, kNoAtime = 1024, kNoDirAtime = 2048;
constexpr uint64_t kPrivate = 1 << 18, kSlave = 1 << 19, kShared = 1 << 20, kUnbindable = 1 << 17;
constexpr uint64_t kRelatime = 1 << 21, kStrictAtime = 1 << 24, kNoSymFollow = 256;
constexpr unsigned kCreateExclusively = 8;  // FSCONFIG_CMD_CREATE_EXCL
constexpr uint64_t kKnownAttributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC |
                                      MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME | 0x00200000 /* NOSYMFOLLOW */;

// A file system that is being configured: a new one (fsopen), or one that is there (fspick, and after fsmount).
class ConfigFile final : public File {
 public:
  explicit ConfigFile(FileSystemType& type)
      : File(AnonInodePath("fscontext"), OpenFlags{O_RDWR}), type_(type), phase_(Phase::kCreateParameters) {}
  ConfigFile(FileSystemType& type, RefPtr<Mount> of)
      : File(AnonInodePath("fscontext"), OpenFlags{O_RDWR}),
        type_(type),
        phase_(Phase::kReconfigure),
        fs_(&of->fs()),
        mount_(std::move(of)) {}

  Result<void> Set(const VfsContext& ctx, MountParameter p) {
    bool generic = p.is_flag ? p.key == "ro" || p.key == "rw" : p.key == "source" && !p.place;
    if (!generic) TRY(type_.CheckParameter(ctx, p));
    MutexLock lock(mu_);
    if (phase_ != Phase::kCreateParameters && phase_ != Phase::kReconfigure) return kEBUSY;
    if (!generic) {
      if (fs_ && !fs_->takes_new_options()) return kEINVAL;
      std::string item = p.is_flag ? p.key : p.key + "=" + p.value;
      request_.data += (request_.data.empty() ? "" : ",") + std::move(item);
      request_.parameters.push_back(std::move(p));
    } else if (p.is_flag) {
      read_only_ = p.key == "ro";
    } else {
      if (!request_.source.empty() || fs_) return kEINVAL;
      request_.source = std::move(p.value);
    }
    return {};
  }
  bool takes_descriptors() const { return type_.takes_descriptors(); }
  Result<void> CreateFs(const VfsContext& ctx) {
    MountRequest request;
    {
      MutexLock lock(mu_);
      if (phase_ != Phase::kCreateParameters) return kEBUSY;
      phase_ = Phase::kFailed;  // unless it comes out otherwise
      if (read_only_ == true) request_.flags |= kReadOnly;
      request = request_;
    }
    RefPtr<FileSystem> fs = TRY(vfs::MakeFileSystem(ctx, type_.name(), request));
    if ((request.flags & kReadOnly) != 0) fs->set_read_only(true);
    MutexLock lock(mu_);
    fs_ = std::move(fs);
    phase_ = Phase::kAwaitsMount;
    return {};
  }
  // FSCONFIG_CMD_RECONFIGURE.
  Result<void> Reconfigure(const VfsContext& ctx) {
    MutexLock lock(mu_);
    if (phase_ != Phase::kReconfigure) return kEBUSY;
    UserNamespace* owner = fs_->user_ns() != nullptr ? fs_->user_ns() : &RootOf(*ctx.cred.user_ns);
    if (!ctx.cred.HasCapabilityIn(CAP_SYS_ADMIN, *owner)) return kEPERM;
    if (read_only_ == false && !fs_->can_be_written()) return kEROFS;
    TRY(fs_->Reconfigure(request_.data));
    if (read_only_) fs_->set_read_only(*read_only_);
    ForgetLocked();
    return {};
  }
  // fsmount takes the file system out, once. kEINVAL before FSCONFIG_CMD_CREATE.
  Result<RefPtr<FileSystem>> Take(std::string& source) {
    MutexLock lock(mu_);
    if (!fs_) return kEINVAL;
    if (phase_ != Phase::kAwaitsMount) return kEBUSY;
    phase_ = Phase::kReconfigure;
    source = request_.source.empty() ? "none" : request_.source;
    ForgetLocked();
    return fs_;
  }
  // No message is ever left to be read.
  Result<size_t> Read(const VfsContext&, IoDest&) override { return kENODATA; }

 private:
  enum class Phase { kCreateParameters, kAwaitsMount, kReconfigure, kFailed };
  static UserNamespace& RootOf(UserNamespace& ns) {
    UserNamespace* at = &ns;
    while (at->parent() != nullptr) at = at->parent();
    return *at;
  }
  void ForgetLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    request_ = {};
    read_only_.reset();
  }
  FileSystemType& type_;       // lives for ever
  Mutex mu_{LockRank::kFile};  // held over the file system's own
  Phase phase_ ABSL_GUARDED_BY(mu_);
  MountRequest request_ ABSL_GUARDED_BY(mu_);
  std::optional<bool> read_only_ ABSL_GUARDED_BY(mu_);
  RefPtr<FileSystem> fs_ ABSL_GUARDED_BY(mu_);
  const RefPtr<Mount> mount_;  // keeps a picked one
};

Result<uint64_t> MountFlags(uint64_t attributes) {
  if (attributes & ~kKnownAttributes) return kEINVAL;
  uint64_t f = 0;
  if (attributes & MOUNT_ATTR_RDONLY) f |= kReadOnly;
  if (attributes & MOUNT_ATTR_NOSUID) f |= kNoSuid;
  if (attributes & MOUNT_ATTR_NODEV) f |= kNoDev;
  if (attributes & MOUNT_ATTR_NOEXEC) f |= kNoExec;
  if (attributes & MOUNT_ATTR_NODIRATIME) f |= kNoDirAtime;
  if (attributes & 0x00200000) f |= kNoSymFollow;
  switch (attributes & MOUNT_ATTR__ATIME) {
    case MOUNT_ATTR_RELATIME:
      return f | kRelatime;
    case MOUNT_ATTR_NOATIME:
      return f | kNoAtime;
    case MOUNT_ATTR_STRICTATIME:
      return f | kStrictAtime;
    default:
      return kEINVAL;
  }
}

Result<int64_t> InstallPlace(Task& t, const VfsContext& ctx, const VfsPath& place, bool cloexec) {
  RefPtr<File> file = TRY(vfs::OpenPath(ctx, place, {O_PATH, 0, 0}));
  return TRY(t.InstallFd(std::move(file), cloexec));
}

Result<RefPtr<File>> Config(Task& t, FdNum fd) {
  RefPtr<File> file = TRY(t.GetFile(ToInt(fd)));
  if (dynamic_cast<ConfigFile*>(file.get()) == nullptr) return kEINVAL;
  return file;
}

}  // namespace

Result<int64_t> SysFsopen(Task& t, UserString name, unsigned flags) {
  Task::FsCall fs(t);
  TRY(vfs::CheckMayMount(fs));
  if (flags & ~FSOPEN_CLOEXEC) return kEINVAL;
  std::string type = TRY(name.Read(t.memory(), kPageSize));
  FileSystemType* found = vfs::FindFileSystemType(type);
  if (found == nullptr) return kENODEV;
  return TRY(t.InstallFd(MakeRef<ConfigFile>(*found), (flags & FSOPEN_CLOEXEC) != 0));
}

Result<int64_t> SysFsconfig(Task& t, FdNum fd, unsigned command, UserString key, UserString value, int aux) {
  if (ToInt(fd) < 0) return kEINVAL;
  RefPtr<File> file = TRY(Config(t, fd));
  ConfigFile& config = static_cast<ConfigFile&>(*file);
  Task::FsCall fs(t);
  switch (command) {
    case FSCONFIG_SET_FLAG:
      if (!key || value || aux != 0) return kEINVAL;
      TRY(config.Set(fs, {.key = TRY(key.Read(t.memory(), 256)), .is_flag = true}));
      return 0;
    case FSCONFIG_SET_STRING:
      if (!key || !value || aux != 0) return kEINVAL;
      TRY(config.Set(fs, {.key = TRY(key.Read(t.memory(), 256)), .value = TRY(value.Read(t.memory(), 256))}));
      return 0;
    case FSCONFIG_SET_FD: {
      if (!key || value || aux < 0) return kEINVAL;
      std::string name = TRY(key.Read(t.memory(), 256));
      RefPtr<File> given = TRY(t.GetFile(aux));
      if (!config.takes_descriptors()) return kEINVAL;
      TRY(config.Set(fs, {.key = std::move(name), .value = "", .is_flag = false, .place = given->path()}));
      return 0;
    }
    case FSCONFIG_CMD_CREATE:
    case kCreateExclusively:  // no instance is ever shared
      if (key || value || aux != 0) return kEINVAL;
      TRY(vfs::CheckMayMount(fs));
      TRY(config.CreateFs(fs));
      return 0;
    case FSCONFIG_CMD_RECONFIGURE:
      if (key || value || aux != 0) return kEINVAL;
      TRY(config.Reconfigure(fs));
      return 0;
    default:
      return kEOPNOTSUPP;
  }
}

Result<int64_t> SysFspick(Task& t, DirFdNum dirfd, UserString path, unsigned flags) {
  if (flags & ~unsigned{FSPICK_CLOEXEC | FSPICK_SYMLINK_NOFOLLOW | FSPICK_NO_AUTOMOUNT | FSPICK_EMPTY_PATH}) {
    return kEINVAL;
  }
  Task::FsCall fs(t);
  TRY(vfs::CheckMayMount(fs));
  int at =
      ((flags & FSPICK_EMPTY_PATH) ? AT_EMPTY_PATH : 0) | ((flags & FSPICK_SYMLINK_NOFOLLOW) ? AT_SYMLINK_NOFOLLOW : 0);
  VfsPath place = TRY(ResolveArgument(t, fs, ToInt(dirfd), path, at));
  if (place.dentry != place.mount->root()) return kEINVAL;
  FileSystemType* type = vfs::FindFileSystemType(place.mount->fs().type_name());
  if (type == nullptr) return kEOPNOTSUPP;  // not one that can be mounted: the sandbox's root
  return TRY(t.InstallFd(MakeRef<ConfigFile>(*type, std::move(place.mount)), (flags & FSPICK_CLOEXEC) != 0));
}

Result<int64_t> SysFsmount(Task& t, FdNum fd, unsigned flags, unsigned attributes) {
  Task::FsCall fs(t);
  TRY(vfs::CheckMayMount(fs));
  if (flags & ~FSMOUNT_CLOEXEC) return kEINVAL;
  uint64_t mount_flags = TRY(MountFlags(attributes));
  RefPtr<File> file = TRY(Config(t, fd));
  std::string source;
  RefPtr<FileSystem> made = TRY(static_cast<ConfigFile&>(*file).Take(source));
  RefPtr<Mount> mount = MountNamespace::MakeDetached(std::move(made), std::move(source), mount_flags);
  return InstallPlace(t, fs, VfsPath(mount, mount->root()), (flags & FSMOUNT_CLOEXEC) != 0);
}

Result<int64_t> SysOpenTree(Task& t, DirFdNum dirfd, UserString path, unsigned flags) {
  constexpr unsigned kKnown =
      OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW;
  if (flags & ~kKnown) return kEINVAL;
  if ((flags & (AT_RECURSIVE | OPEN_TREE_CLONE)) == AT_RECURSIVE) return kEINVAL;
  Task::FsCall fs(t);
  if (flags & OPEN_TREE_CLONE) TRY(vfs::CheckMayMount(fs));
  int at = static_cast<int>(flags & (AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW));
  VfsPath place = TRY(ResolveArgument(t, fs, ToInt(dirfd), path, at));
  if (flags & OPEN_TREE_CLONE) {
    RefPtr<Mount> copy = TRY(MountNamespace::CloneDetached(place, (flags & AT_RECURSIVE) != 0));
    place = VfsPath(copy, copy->root());
  }
  return InstallPlace(t, fs, place, (flags & OPEN_TREE_CLOEXEC) != 0);
}

Result<int64_t> SysMoveMount(Task& t, DirFdNum from_fd, UserString from, DirFdNum to_fd, UserString to,
                             unsigned flags) {
  constexpr unsigned kKnown = MOVE_MOUNT_F_SYMLINKS | MOVE_MOUNT_F_AUTOMOUNTS | MOVE_MOUNT_F_EMPTY_PATH |
                              MOVE_MOUNT_T_SYMLINKS | MOVE_MOUNT_T_AUTOMOUNTS | MOVE_MOUNT_T_EMPTY_PATH;
  Task::FsCall fs(t);
  TRY(vfs::CheckMayMount(fs));
  if (flags & ~kKnown) return kEINVAL;
  int from_at = ((flags & MOVE_MOUNT_F_EMPTY_PATH) ? AT_EMPTY_PATH : 0) |
                ((flags & MOVE_MOUNT_F_SYMLINKS) ? 0 : AT_SYMLINK_NOFOLLOW);
  int to_at = ((flags & MOVE_MOUNT_T_EMPTY_PATH) ? AT_EMPTY_PATH : 0) |
              ((flags & MOVE_MOUNT_T_SYMLINKS) ? 0 : AT_SYMLINK_NOFOLLOW);
  VfsPath source = TRY(ResolveArgument(t, fs, ToInt(from_fd), from, from_at));
  VfsPath target = TRY(ResolveArgument(t, fs, ToInt(to_fd), to, to_at));
  if (source.mount->detached()) {
    if (source.dentry != source.mount->root()) return kEINVAL;
    TRY(fs.ctx().mounts.Attach(target, source.mount));
  } else {
    TRY(fs.ctx().mounts.Move(target, source));
  }
  return 0;
}

Result<int64_t> SysMountSetattr(Task& t, DirFdNum dirfd, UserString path, unsigned flags, GuestAddr attr, size_t size) {
  if (flags & ~unsigned{AT_EMPTY_PATH | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT}) return kEINVAL;
  if (size < sizeof(mount_attr)) return kEINVAL;
  if (size > kPageSize) return kE2BIG;
  mount_attr a;
  if (t.memory().CopyIn(&a, attr, sizeof a) != sizeof a) return kEFAULT;
  if ((a.attr_set | a.attr_clr) & MOUNT_ATTR_IDMAP) return kEOPNOTSUPP;
  // An access time mode is replaced as a whole.
  bool times = (a.attr_set & MOUNT_ATTR__ATIME) != 0 || (a.attr_clr & MOUNT_ATTR__ATIME) != 0;
  if (times && (a.attr_clr & MOUNT_ATTR__ATIME) != MOUNT_ATTR__ATIME) return kEINVAL;
  uint64_t set = TRY(MountFlags(a.attr_set)), clear = TRY(MountFlags(a.attr_clr & ~uint64_t{MOUNT_ATTR__ATIME}));
  constexpr uint64_t kTimes = kRelatime | kNoAtime | kStrictAtime;
  clear = (clear & ~kTimes) | (times ? kTimes : 0);
  set = (set & ~kStrictAtime) & ~(times ? 0 : kTimes);
  uint64_t type = a.propagation;
  if (type != 0 && type != kPrivate && type != kSlave && type != kShared && type != kUnbindable) return kEINVAL;
  Task::FsCall fs(t);
  TRY(vfs::CheckMayMount(fs));
  int at = static_cast<int>(flags & (AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW));
  VfsPath place = TRY(ResolveArgument(t, fs, ToInt(dirfd), path, at));
  bool recursive = (flags & AT_RECURSIVE) != 0;
  TRY(MountNamespace::SetFlags(place, set, clear, recursive));
  if (type != 0) TRY(fs.ctx().mounts.ChangePropagation(place, type, recursive));
  return 0;
}

}  // namespace moat
