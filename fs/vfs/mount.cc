#include "fs/vfs/mount.h"

#include <sys/epoll.h>
#include <sys/mount.h>

#include <algorithm>

#include "fs/vfs/mount_tree.h"

namespace moat {
namespace {

constexpr uint64_t kPerMount = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME | MS_RELATIME |
                               MS_STRICTATIME | 256 /* MS_NOSYMFOLLOW */;
constexpr size_t kMaxMounts = 100'000;  // /proc/sys/fs/mount-max

uint64_t NextNamespaceId() {
  static std::atomic<uint64_t> next{0xF0000000u};
  return next.fetch_add(1);
}

uint64_t MountFlagsOf(uint64_t flags) {
  // Relative access times are the default (mount(8), Linux 2.6.30).
  uint64_t f = flags & kPerMount & ~uint64_t{MS_STRICTATIME};
  if ((flags & (MS_NOATIME | MS_STRICTATIME)) == 0) f |= MS_RELATIME;
  return f;
}

bool IsMountRoot(const VfsPath& p) { return p.dentry == p.mount->impl().root.get(); }

}  // namespace

MountNamespace::MountNamespace() : impl_(new Impl) {}

MountNamespace::~MountNamespace() {
  MountTree::Graveyard g;
  {
    WriterLock lock(MountLock());
    RefPtr<Mount> root = std::move(impl_->root);
    if (root) {
      MountTree::SetNamespace(*root, nullptr);
      MountTree::DissolveBelow(*root, g);
      g.mounts.push_back(std::move(root));
    }
  }
  delete impl_;
}

RefPtr<MountNamespace> MountNamespace::Create(RefPtr<FileSystem> fs, std::string source, uint64_t flags,
                                              RefPtr<UserNamespace> owner) {
  RefPtr<MountNamespace> ns = AdoptRef(new MountNamespace);
  ns->impl_->owner = std::move(owner);
  ns->impl_->id = NextNamespaceId();
  RefPtr<Dentry> root = fs->root_dentry();
  ns->impl_->root = MountTree::Make(std::move(fs), std::move(root), std::move(source), MountFlagsOf(flags));
  ns->impl_->root->impl_->ns = ns.get();
  return ns;
}

Result<RefPtr<MountNamespace>> MountNamespace::Clone(RefPtr<UserNamespace> owner, std::vector<VfsPath*> paths) {
  RefPtr<MountNamespace> ns = AdoptRef(new MountNamespace);
  bool other_owner = owner != impl_->owner;
  ns->impl_->owner = std::move(owner);
  ns->impl_->id = NextNamespaceId();
  std::vector<RefPtr<Mount>> dropped;
  WriterLock lock(MountLock());
  std::map<Mount*, Mount*> copies;
  // In a less privileged namespace the copies only receive.
  auto kind = other_owner ? MountTree::CopyKind::kSharedSlave : MountTree::CopyKind::kKeep;
  ns->impl_->root = MountTree::Copy(*impl_->root, impl_->root->impl_->root, true, kind, true, &copies);
  if (other_owner) {
    for (auto& [from, to] : copies) {
      if (from->impl_->group == 0) to->impl_->group = 0;
    }
  }
  MountTree::SetNamespace(*ns->impl_->root, ns.get());
  for (VfsPath* p : paths) {
    auto it = copies.find(p->mount.get());
    if (it == copies.end()) continue;
    dropped.push_back(std::move(p->mount));
    p->mount = RefPtr<Mount>(it->second);
  }
  return ns;
}

uint64_t MountNamespace::id() const { return impl_->id; }
UserNamespace& MountNamespace::owner() const { return *impl_->owner; }
WaitQueue& MountNamespace::change_queue() { return impl_->change_queue; }
uint64_t MountNamespace::generation() const { return impl_->generation.load(std::memory_order_acquire); }

VfsPath MountNamespace::root() const {
  ReaderLock lock(MountLock());
  return VfsPath(impl_->root, impl_->root->impl_->root);
}

bool MountNamespace::Descend(VfsPath& path) const {
  bool crossed = false;
  RefPtr<Mount> old;
  while (path.dentry->mount_count.load(std::memory_order_relaxed) != 0) {
    ReaderLock lock(MountLock());
    Mount* m = MountTree::ChildAt(*path.mount, path.dentry.get());
    if (m == nullptr) break;
    // The references dropped here are not the last ones: the tree has others.
    RefPtr<Dentry> root = m->impl_->root;
    RefPtr<Mount> mount(m);
    std::swap(path.mount, mount);
    std::swap(path.dentry, root);
    crossed = true;
  }
  return crossed;
}

bool MountNamespace::Ascend(VfsPath& path) const {
  VfsPath up;
  {
    ReaderLock lock(MountLock());
    Mount::Impl& i = *path.mount->impl_;
    if (i.parent == nullptr) return false;
    up = VfsPath(RefPtr<Mount>(i.parent), i.mount_point);
  }
  std::swap(path, up);
  return true;
}

namespace {

template <typename NamespaceImpl>
void Changed(NamespaceImpl& ns) {
  ns.generation.fetch_add(1, std::memory_order_acq_rel);
  ns.change_queue.Notify(EPOLLERR | EPOLLPRI);
}

}  // namespace

Result<void> MountNamespace::Attach(const VfsPath& target, const RefPtr<Mount>& tree) {
  MountTree::Graveyard g;
  {
    WriterLock lock(MountLock());
    if (target.mount->impl_->ns != this) return kEINVAL;
    if (tree->impl_->ns != nullptr || tree->impl_->parent != nullptr) return kEINVAL;
    if (target.dentry->IsDetached()) return kENOENT;
    bool dir = target.dentry->inode_ptr()->is_dir();
    if (tree->impl_->root->inode_ptr()->is_dir() != dir) return kENOTDIR;
    if (MountTree::All(g).size() > kMaxMounts) return kENOSPC;
    Mount* at = target.mount.get();
    RefPtr<Dentry> point = target.dentry;
    while (Mount* covering = MountTree::ChildAt(*at, point.get())) {
      at = covering;
      point = covering->impl_->root;
    }
    MountTree::AttachAndPropagate(tree, *at, point, this, g);
  }
  Changed(*impl_);
  return {};
}

RefPtr<Mount> MountNamespace::MakeDetached(RefPtr<FileSystem> fs, std::string source, uint64_t flags) {
  RefPtr<Dentry> root = fs->root_dentry();
  return MountTree::Make(std::move(fs), std::move(root), std::move(source), MountFlagsOf(flags));
}

Result<RefPtr<Mount>> MountNamespace::MountAt(const VfsPath& target, RefPtr<FileSystem> fs, std::string source,
                                              uint64_t flags) {
  if ((flags & MS_RDONLY) != 0) fs->set_read_only(true);
  RefPtr<Mount> m = MakeDetached(std::move(fs), std::move(source), flags);
  TRY(Attach(target, m));
  return m;
}

Result<RefPtr<Mount>> MountNamespace::CloneDetached(const VfsPath& source, bool recursive) {
  WriterLock lock(MountLock());
  Mount& m = *source.mount;
  if (m.impl_->unbindable) return kEINVAL;
  return MountTree::Copy(m, source.dentry, recursive, MountTree::CopyKind::kKeep, false, nullptr);
}

Result<RefPtr<Mount>> MountNamespace::ClonePrivate(const VfsPath& source) {
  WriterLock lock(MountLock());
  if (source.mount->impl_->unbindable) return kEINVAL;
  return MountTree::Copy(*source.mount, source.dentry, false, MountTree::CopyKind::kPrivate, false, nullptr);
}

Result<RefPtr<Mount>> MountNamespace::Bind(const VfsPath& target, const VfsPath& source, bool recursive) {
  RefPtr<Mount> copy = TRY(CloneDetached(source, recursive));
  TRY(Attach(target, copy));
  return copy;
}

Result<void> MountNamespace::Move(const VfsPath& target, const VfsPath& source) {
  MountTree::Graveyard g;
  {
    WriterLock lock(MountLock());
    Mount& m = *source.mount;
    if (!IsMountRoot(source) || m.impl_->ns != this || target.mount->impl_->ns != this) return kEINVAL;
    if (m.impl_->parent == nullptr) return kEINVAL;
    if (m.impl_->root->inode_ptr()->is_dir() != target.dentry->inode_ptr()->is_dir()) return kEINVAL;
    if (m.impl_->parent->impl_->group != 0) return kEINVAL;  // the move would have to propagate
    if (MountTree::IsBelow(*target.mount, m)) return kELOOP;
    bool unbindable = false;
    MountTree::ForEach(m, [&](Mount& at) { unbindable |= at.impl_->unbindable; });
    if (target.mount->impl_->group != 0 && unbindable) return kEINVAL;
    RefPtr<Mount> keep(&m);
    MountTree::Detach(m, g);
    MountTree::AttachAndPropagate(keep, *target.mount, target.dentry, this, g);
    g.mounts.push_back(std::move(keep));
  }
  Changed(*impl_);
  return {};
}

Result<void> MountNamespace::Unmount(const VfsPath& target, int flags, int own_refs) {
  if ((flags & ~(MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW)) != 0) return kEINVAL;
  if ((flags & MNT_EXPIRE) != 0 && (flags & (MNT_FORCE | MNT_DETACH)) != 0) return kEINVAL;
  MountTree::Graveyard g;
  {
    WriterLock lock(MountLock());
    Mount& m = *target.mount;
    if (!IsMountRoot(target) || m.impl_->ns != this || m.impl_->parent == nullptr) return kEINVAL;
    if ((flags & MNT_DETACH) == 0) {
      // The tree's reference, the target's and the caller's own do not count.
      bool busy = !m.impl_->children.empty() || m.RefCountForTesting() > 2 + own_refs;
      if (busy) return kEBUSY;
    }
    if ((flags & MNT_EXPIRE) != 0 && !m.impl_->expired_once) {
      m.impl_->expired_once = true;
      return kEAGAIN;
    }
    if ((flags & MNT_DETACH) != 0) {
      // Everything below goes too; users keep what they have open.
      std::vector<RefPtr<Mount>> order;
      MountTree::ForEach(m, [&](Mount& at) { order.push_back(RefPtr<Mount>(&at)); });
      for (auto it = order.rbegin(); it != order.rend(); ++it) {
        MountTree::DetachAndPropagate(**it, g);
        g.mounts.push_back(std::move(*it));
      }
    } else {
      MountTree::DetachAndPropagate(m, g);
    }
  }
  Changed(*impl_);
  return {};
}

Result<void> MountNamespace::ChangePropagation(const VfsPath& target, uint64_t type, bool recursive) {
  MountTree::Graveyard g;
  {
    WriterLock lock(MountLock());
    if (!IsMountRoot(target)) return kEINVAL;
    const auto& all = MountTree::All(g);
    auto change = [&](Mount& m) {
      Mount::Impl& i = *m.impl_;
      if (type == MS_SHARED) {
        if (i.group == 0) i.group = MountTree::NewGroup();
        i.unbindable = false;
        return;
      }
      int old_group = i.group;
      bool has_peers = std::any_of(all.begin(), all.end(), [&](const RefPtr<Mount>& o) {
        return o.get() != &m && o->impl_->group == old_group && old_group != 0;
      });
      i.group = 0;
      i.unbindable = type == MS_UNBINDABLE;
      if (old_group != 0 && !has_peers) {
        // The group ends: who received from it now receives from its own master.
        for (const RefPtr<Mount>& o : all) {
          if (o->impl_->master == old_group) o->impl_->master = i.master;
        }
      }
      if (type != MS_SLAVE) {
        i.master = 0;
      } else if (has_peers) {
        i.master = old_group;
      }
    };
    if (recursive) {
      MountTree::ForEach(*target.mount, change);
    } else {
      change(*target.mount);
    }
  }
  Changed(*impl_);
  return {};
}

Result<void> MountNamespace::SetFlags(const VfsPath& target, uint64_t set, uint64_t clear, bool recursive) {
  MountNamespace* ns;
  {
    WriterLock lock(MountLock());
    if (!IsMountRoot(target)) return kEINVAL;
    ns = target.mount->impl_->ns;
    auto change = [&](Mount& m) {
      uint64_t f = (m.impl_->flags.load() & ~clear) | (set & kPerMount);
      m.impl_->flags.store(f);
    };
    if (recursive) {
      MountTree::ForEach(*target.mount, change);
    } else {
      change(*target.mount);
    }
  }
  if (ns != nullptr) Changed(*ns->impl_);
  return {};
}

Result<void> MountNamespace::Remount(const VfsPath& target, uint64_t flags, bool bind_only, std::string_view data) {
  {
    ReaderLock lock(MountLock());
    if (!IsMountRoot(target) || target.mount->impl_->ns != this) return kEINVAL;
  }
  Mount& m = *target.mount;
  if (!bind_only) {
    if ((flags & MS_RDONLY) == 0 && !m.fs().can_be_written()) return kEROFS;
    TRY(m.fs().Reconfigure(data));
    m.fs().set_read_only((flags & MS_RDONLY) != 0);
  }
  // Without a word about access times they stay as they are.
  uint64_t times = MS_NOATIME | MS_NODIRATIME | MS_RELATIME;
  uint64_t f = MountFlagsOf(flags);
  if ((flags & (times | MS_STRICTATIME)) == 0) f = (f & ~times) | (m.flags() & times);
  m.impl_->flags.store(f);
  Changed(*impl_);
  return {};
}

Result<void> MountNamespace::PivotRoot(const VfsPath& new_root, const VfsPath& put_old, Mount* root) {
  MountTree::Graveyard g;
  {
    WriterLock lock(MountLock());
    Mount& n = *new_root.mount;
    Mount& old_root = root != nullptr ? *root : *impl_->root;
    if (old_root.impl_->ns != this) return kEINVAL;
    if (n.impl_->ns != this || put_old.mount->impl_->ns != this) return kEINVAL;
    const Mount* above_new = n.impl_->parent;
    if ((above_new != nullptr && above_new->impl_->group != 0) || old_root.impl_->group != 0 ||
        put_old.mount->impl_->group != 0) {
      return kEINVAL;  // shared: the change would propagate
    }
    if (&n == &old_root || put_old.mount.get() == &old_root) return kEBUSY;
    if (!IsMountRoot(new_root) || above_new == nullptr) return kEINVAL;
    if (!MountTree::IsBelow(*put_old.mount, n)) return kEINVAL;
    // put_old at or below new_root, as a directory of its mount tree.
    if (put_old.mount.get() == &n && !n.impl_->root->IsAncestorOf(*put_old.dentry)) return kEINVAL;
    RefPtr<Mount> keep_new(&n);
    RefPtr<Mount> keep_old(&old_root);
    MountTree::Detach(n, g);
    if (Mount* above = old_root.impl_->parent) {
      RefPtr<Dentry> point = old_root.impl_->mount_point;
      MountTree::Detach(old_root, g);
      MountTree::Attach(keep_new, *above, point, this);
    } else {
      impl_->root = keep_new;
      MountTree::SetNamespace(n, this);
    }
    // pivot_root(".", "."): the old root lands on top of the new one.
    Mount* at = put_old.mount.get();
    MountTree::Attach(keep_old, *at, put_old.dentry, this);
    g.mounts.push_back(std::move(keep_new));
    g.mounts.push_back(std::move(keep_old));
  }
  Changed(*impl_);
  return {};
}

}  // namespace moat
