// What can be said about mounts: the names of places, /proc/<pid>/mountinfo, statmount(2), listmount(2).
#include <algorithm>

#include "fs/vfs/mount_tree.h"

namespace moat {
namespace {

void PrependName(std::string& out, const std::string& name) { out.insert(0, "/" + name); }

// is_path_reachable(): does the way up from `m` come by `place`? Under MountLock().
bool IsBelow(const Mount& m, const VfsPath& place) {
  const Mount* at = &m;
  const Dentry* dentry = m.impl().root.get();
  while (at != place.mount.get() && at->impl().parent != nullptr) {
    dentry = at->impl().mount_point.get();
    at = at->impl().parent;
  }
  return at == place.mount.get() && place.dentry->IsAncestorOf(*dentry);
}

}  // namespace

std::string MountNamespace::PathName(const VfsPath& path, const VfsPath& root) const {
  // A mounted one (bind mounts of /proc/<pid>/ns/*) has a place in the tree (d_path.c).
  if (path.dentry->IsAnonymous() && path.dentry != path.mount->impl_->root) return path.dentry->name();
  std::string out;
  if (path.dentry->IsDetached()) out = " (deleted)";
  std::string names;
  RefPtr<Mount> m = path.mount;
  RefPtr<Dentry> d = path.dentry;
  bool reached = false;
  for (;;) {
    if (m == root.mount && d == root.dentry) {
      reached = true;
      break;
    }
    if (d == m->impl_->root) {
      VfsPath up(m, d);
      if (!Ascend(up)) break;
      m = std::move(up.mount);
      d = std::move(up.dentry);
      continue;
    }
    RefPtr<Dentry> parent = d->parent();
    if (!parent) break;
    PrependName(names, d->name());
    d = std::move(parent);
  }
  if (names.empty()) names = "/";
  if (!reached && root.mount) {
    // Within this namespace but above `root`, or in no namespace at all.
    VfsPath top = this->root();
    if (!(m == top.mount && d == top.dentry && root == top)) names.insert(0, "(unreachable)");
  }
  return names + out;
}

RefPtr<FileSystem> MountNamespace::FindFileSystem(DeviceId device) const {
  RefPtr<FileSystem> found;
  ReaderLock lock(MountLock());
  MountTree::ForEach(*impl_->root, [&](Mount& m) {
    const DeviceId d = m.fs().device();
    if (d.major == device.major && d.minor == device.minor) found = RefPtr<FileSystem>(&m.fs());
  });
  return found;
}

// get_dominating_id(): the nearest group above the one that `m` receives from that has a member below `root`.
int MountNamespace::PropagatesFrom(const Mount& m, const VfsPath& root, const std::vector<RefPtr<Mount>>& all) {
  int group = m.impl_->master;
  // A chain of masters is not longer than there are mounts.
  for (size_t step = 0; group != 0 && step <= all.size(); ++step) {
    int next = 0;
    for (const RefPtr<Mount>& peer : all) {
      if (peer->impl_->group != group) continue;
      if (peer->impl_->ns == m.impl_->ns && IsBelow(*peer, root)) return group;
      if (peer->impl_->master != 0) next = peer->impl_->master;
    }
    group = next;
  }
  return 0;
}

MountNamespace::MountInfo MountNamespace::Describe(const RefPtr<Mount>& mount, const VfsPath& root) const {
  MountInfo info;
  MountTree::Graveyard g;
  {
    ReaderLock lock(MountLock());
    const Mount::Impl& i = *mount->impl_;
    info.parent_id = i.parent != nullptr ? i.parent->impl_->id : i.id;
    info.parent_unique_id = i.parent != nullptr ? i.parent->unique_id() : mount->unique_id();
    info.peer_group = i.group;
    info.master_group = i.master;
    info.unbindable = i.unbindable;
    if (i.master != 0) info.propagates_from = PropagatesFrom(*mount, root, MountTree::All(g));
  }
  info.mount_point = PathName(VfsPath(mount, mount->root()), root);
  FileSystem& fs = mount->fs();
  info.id = mount->id();
  info.device = fs.device();
  std::string top;
  for (RefPtr<Dentry> d = mount->root(); d && !d->IsRoot(); d = d->parent()) PrependName(top, d->name());
  info.root = top.empty() ? "/" : top;
  info.source = mount->source();
  info.fs_type = std::string(fs.type_name());
  info.fs_options = fs.ShowOptions();
  info.flags = mount->flags();
  info.fs_read_only = fs.read_only();
  return info;
}

std::vector<MountNamespace::MountInfo> MountNamespace::Snapshot(const VfsPath& root) const {
  std::vector<RefPtr<Mount>> mounts;
  {
    ReaderLock lock(MountLock());
    MountTree::ForEach(*impl_->root, [&](Mount& m) {
      if (IsBelow(m, root)) mounts.push_back(RefPtr<Mount>(&m));
    });
  }
  std::vector<MountInfo> out;
  for (const RefPtr<Mount>& m : mounts) {
    MountInfo info = Describe(m, root);
    if (!info.mount_point.starts_with("(unreachable)")) out.push_back(std::move(info));
  }
  return out;
}

RefPtr<Mount> MountNamespace::Find(uint64_t unique_id) const {
  RefPtr<Mount> m = MountTree::Find(unique_id);
  ReaderLock lock(MountLock());
  return m && m->impl_->ns == this ? m : nullptr;
}

bool MountNamespace::Reaches(const VfsPath& root, const Mount& m) const {
  ReaderLock lock(MountLock());
  return IsBelow(m, root);
}

std::vector<uint64_t> MountNamespace::ListBelow(const VfsPath& place, const Mount* except) const {
  std::vector<uint64_t> ids;
  {
    ReaderLock lock(MountLock());
    MountTree::ForEach(*impl_->root, [&](Mount& m) {
      if (&m != except && IsBelow(m, place)) ids.push_back(m.unique_id());
    });
  }
  std::sort(ids.begin(), ids.end());
  return ids;
}

RefPtr<MountNamespace> MountNamespace::FindById(uint64_t id) {
  MountTree::Graveyard g;
  ReaderLock lock(MountLock());
  for (const RefPtr<Mount>& m : MountTree::All(g)) {
    MountNamespace* ns = m->impl_->ns;
    if (ns != nullptr && ns->id() == id && ns->TryAddRef()) return AdoptRef(ns);
  }
  return nullptr;
}

}  // namespace moat
