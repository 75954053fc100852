#include "sentry/kernel/namespace_file.h"

#include <fmt/format.h>
#include <linux/nsfs.h>
#include <linux/sched.h>
#include <sys/vfs.h>

#include "fs/vfs/filesystem.h"
#include "fs/vfs/vfs.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/task.h"

namespace moat {

namespace {

constexpr uint64_t kNsfsMagic = 0x6e736673;

class NsFs final : public FileSystem {
 public:
  NsFs() : FileSystem("nsfs") {}
  RefPtr<Inode> root() override { return nullptr; }
  Result<FsStat> StatFs() override {
    FsStat s;
    s.type = kNsfsMagic;
    return s;
  }
};

NsFs& Instance() {
  static NsFs* fs = new NsFs;  // lives for ever: inodes refer to it
  return *fs;
}

class NsInode final : public Inode {
 public:
  NsInode(int kind, RefPtr<RefCounted> ns, uint64_t id)
      : Inode(Instance(), S_IFREG, id), kind_(kind), ns_(std::move(ns)) {}
  Result<Kstat> GetAttr() override {
    Kstat s;
    s.ino = ino();
    s.mode = S_IFREG | 0444;
    s.dev = fs().device();
    return s;
  }
  Result<RefPtr<File>> Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) override {
    if (flags.writable()) return kEPERM;
    return RefPtr<File>(MakeRef<NamespaceFile>(path, flags, kind_, ns_));
  }

 private:
  const int kind_;
  const RefPtr<RefCounted> ns_;
};

std::string_view KindName(int kind) {
  switch (kind) {
    case CLONE_NEWUSER:
      return "user";
    case CLONE_NEWPID:
      return "pid";
    case CLONE_NEWNS:
      return "mnt";
    case CLONE_NEWUTS:
      return "uts";
    case CLONE_NEWIPC:
      return "ipc";
    case CLONE_NEWNET:
      return "net";
    default:
      return "cgroup";
  }
}

// The user namespace that owns `ns`.
RefPtr<UserNamespace> OwnerOf(int kind, RefCounted& ns) {
  switch (kind) {
    case CLONE_NEWUSER:
      return RefPtr<UserNamespace>(static_cast<UserNamespace&>(ns).parent());
    case CLONE_NEWPID:
      return RefPtr<UserNamespace>(&static_cast<PidNamespace&>(ns).owner());
    case CLONE_NEWNS:
      return RefPtr<UserNamespace>(&static_cast<MountNamespace&>(ns).owner());
    default:
      return RefPtr<UserNamespace>(&static_cast<Namespace&>(ns).owner());
  }
}

}  // namespace

NamespaceFile::NamespaceFile(VfsPath path, OpenFlags flags, int kind, RefPtr<RefCounted> ns)
    : File(std::move(path), flags), kind_(kind), ns_(std::move(ns)) {}

Result<int64_t> NamespaceFile::Ioctl(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg) {
  if (ctx.task == nullptr) return kENOTTY;
  Task& t = *static_cast<Task*>(ctx.task);
  auto open = [&](int kind, RefPtr<RefCounted> ns, uint64_t id) -> Result<int64_t> {
    VfsPath path = NamespacePath(kind, ns, id);
    RefPtr<File> file = MakeRef<NamespaceFile>(std::move(path), OpenFlags{0}, kind, std::move(ns));
    return TRY(t.InstallFd(std::move(file), true));
  };
  switch (cmd) {
    case NS_GET_NSTYPE:
      return kind_;
    case NS_GET_USERNS: {
      RefPtr<UserNamespace> owner = OwnerOf(kind_, *ns_);
      // Not one that the caller is outside of.
      for (const UserNamespace* ns = owner.get(); ns != &t.user_ns(); ns = ns->parent()) {
        if (ns == nullptr) return kEPERM;
      }
      const uint64_t id = owner->id();
      return open(CLONE_NEWUSER, std::move(owner), id);
    }
    case NS_GET_PARENT: {
      if (kind_ == CLONE_NEWUSER) {
        if (ns_ == &t.user_ns()) return kEPERM;
        RefPtr<UserNamespace> parent(static_cast<UserNamespace&>(*ns_).parent());
        if (!parent) return kEPERM;
        const uint64_t id = parent->id();
        return open(CLONE_NEWUSER, std::move(parent), id);
      }
      if (kind_ != CLONE_NEWPID) return kEINVAL;
      RefPtr<PidNamespace> parent(static_cast<PidNamespace&>(*ns_).parent());
      if (!parent || !t.pid_ns()->IsAncestorOf(*parent)) return kEPERM;
      const uint64_t id = parent->id();
      return open(CLONE_NEWPID, std::move(parent), id);
    }
    case NS_GET_OWNER_UID: {
      if (kind_ != CLONE_NEWUSER) return kEINVAL;
      const uint32_t uid = t.user_ns().FromKuid(static_cast<UserNamespace&>(*ns_).owner());
      if (memory.CopyOut(arg, &uid, sizeof uid) != sizeof uid) return kEFAULT;
      return 0;
    }
    default:
      return kENOTTY;
  }
}

VfsPath NamespacePath(int kind, RefPtr<RefCounted> ns, uint64_t id) {
  return vfs::AnonymousPath(MakeRef<NsInode>(kind, std::move(ns), id), NamespaceLinkText(kind, id));
}

std::string NamespaceLinkText(int kind, uint64_t id) { return fmt::format("{}:[{}]", KindName(kind), id); }

}  // namespace moat
