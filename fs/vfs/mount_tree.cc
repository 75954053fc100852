#include "fs/vfs/mount_tree.h"

#include <sys/mount.h>

#include <algorithm>
#include <set>

namespace moat {
namespace {

struct Registry {
  Mutex mu{LockRank::kLeaf};
  std::map<uint64_t, Mount*> mounts ABSL_GUARDED_BY(mu);  // by id
  uint64_t next_id ABSL_GUARDED_BY(mu) = 20;
};

Registry& Mounts() {
  static Registry* r = new Registry;
  return *r;
}

}  // namespace

SharedMutex& MountLock() {
  static SharedMutex* mu = new SharedMutex(LockRank::kMountTree);
  return *mu;
}

Mount::Mount() : impl_(new Impl) {}

Mount::~Mount() {
  {
    MutexLock lock(Mounts().mu);
    Mounts().mounts.erase(impl_->id);
  }
  // A detached tree ends with its last user: what is mounted below goes with it.
  if (!impl_->children.empty()) {
    MountTree::Graveyard g;
    WriterLock lock(MountLock());
    MountTree::DissolveBelow(*this, g);
  }
  impl_->root.reset();
  delete impl_;
}

FileSystem& Mount::fs() const { return *impl_->fs; }
RefPtr<Dentry> Mount::root() const { return impl_->root; }
uint64_t Mount::flags() const { return impl_->flags.load(std::memory_order_relaxed); }
bool Mount::read_only() const { return (flags() & MS_RDONLY) != 0 || impl_->fs->read_only(); }
bool Mount::detached() const {
  ReaderLock lock(MountLock());
  return impl_->ns == nullptr;
}
uint64_t Mount::id() const { return impl_->id; }
const std::string& Mount::source() const { return impl_->source; }

RefPtr<Mount> MountTree::Make(RefPtr<FileSystem> fs, RefPtr<Dentry> root, std::string source, uint64_t flags) {
  RefPtr<Mount> m = AdoptRef(new Mount);
  m->impl_->fs = std::move(fs);
  m->impl_->root = std::move(root);
  m->impl_->source = std::move(source);
  m->impl_->flags = flags;
  MutexLock lock(Mounts().mu);
  m->impl_->id = Mounts().next_id++;
  Mounts().mounts.emplace(m->impl_->id, m.get());
  return m;
}

const std::vector<RefPtr<Mount>>& MountTree::All(Graveyard& g) {
  g.all.clear();
  MutexLock lock(Mounts().mu);
  for (const auto& [id, m] : Mounts().mounts) {
    if (m->TryAddRef()) g.all.push_back(AdoptRef(m));
  }
  return g.all;
}

RefPtr<Mount> MountTree::Find(uint64_t unique_id) {
  MutexLock lock(Mounts().mu);
  auto it = Mounts().mounts.find(unique_id - Mount::kUniqueIdOffset);
  return it != Mounts().mounts.end() && it->second->TryAddRef() ? AdoptRef(it->second) : nullptr;
}

int MountTree::NewGroup() {
  static std::atomic<int> next{1};
  return next.fetch_add(1);
}

Mount* MountTree::ChildAt(const Mount& parent, const Dentry* point) {
  for (const RefPtr<Mount>& c : parent.impl_->children) {
    if (c->impl_->mount_point.get() == point) return c.get();
  }
  return nullptr;
}

void MountTree::ForEach(Mount& top, const std::function<void(Mount&)>& f) {
  std::vector<Mount*> pending = {&top};
  while (!pending.empty()) {
    Mount* m = pending.back();
    pending.pop_back();
    auto& children = m->impl_->children;
    for (auto it = children.rbegin(); it != children.rend(); ++it) pending.push_back(it->get());
    f(*m);
  }
}

bool MountTree::IsBelow(const Mount& m, const Mount& top) {
  for (const Mount* at = &m; at != nullptr; at = at->impl_->parent) {
    if (at == &top) return true;
  }
  return false;
}

void MountTree::SetNamespace(Mount& m, MountNamespace* ns) {
  ForEach(m, [&](Mount& at) { at.impl_->ns = ns; });
}

RefPtr<Mount> MountTree::Copy(Mount& m, const RefPtr<Dentry>& root, bool recursive, CopyKind kind, bool with_unbindable,
                              std::map<Mount*, Mount*>* map) {
  const Mount::Impl& from = *m.impl_;
  RefPtr<Mount> copy = Make(from.fs, root, from.source, from.flags.load());
  Mount::Impl& to = *copy->impl_;
  switch (kind) {
    case CopyKind::kPrivate:
      break;
    case CopyKind::kKeep:
      to.group = from.group;
      to.master = from.master;
      to.unbindable = with_unbindable && from.unbindable;
      break;
    case CopyKind::kPeer:
      to.group = from.group;
      to.master = from.master;
      break;
    case CopyKind::kSlave:
    case CopyKind::kSharedSlave:
      to.master = from.group != 0 ? from.group : from.master;
      if (kind == CopyKind::kSharedSlave) to.group = NewGroup();
      break;
  }
  if (map != nullptr) (*map)[&m] = copy.get();
  if (!recursive) return copy;
  for (const RefPtr<Mount>& child : from.children) {
    if (child->impl_->unbindable && !with_unbindable) continue;
    if (!root->IsAncestorOf(*child->impl_->mount_point)) continue;
    RefPtr<Mount> c = Copy(*child, child->impl_->root, true, kind, with_unbindable, map);
    Attach(c, *copy, child->impl_->mount_point, nullptr);
  }
  return copy;
}

void MountTree::Attach(const RefPtr<Mount>& tree, Mount& parent, const RefPtr<Dentry>& point, MountNamespace* ns) {
  tree->impl_->parent = &parent;
  tree->impl_->mount_point = point;
  point->PinMountPoint();
  parent.impl_->children.push_back(tree);
  SetNamespace(*tree, ns);
}

void MountTree::Detach(Mount& m, Graveyard& g) {
  Mount::Impl& i = *m.impl_;
  if (i.parent != nullptr) {
    auto& siblings = i.parent->impl_->children;
    auto it = std::find_if(siblings.begin(), siblings.end(), [&](const RefPtr<Mount>& c) { return c.get() == &m; });
    g.mounts.push_back(std::move(*it));
    siblings.erase(it);
    i.mount_point->UnpinMountPoint();
    g.points.push_back(std::move(i.mount_point));
    i.parent = nullptr;
  }
  SetNamespace(m, nullptr);
}

void MountTree::DissolveBelow(Mount& m, Graveyard& g) {
  std::vector<Mount*> order;
  ForEach(m, [&](Mount& at) { order.push_back(&at); });
  for (auto it = order.rbegin(); it != order.rend(); ++it) {
    if (*it != &m) Detach(**it, g);
  }
}

namespace {

struct Receiver {
  Mount* mount;
  bool peer;  // else a slave, of this group or of one that receives from it
};

// The mounts that see what happens on `m`: its peers, its slaves, their peers and slaves.
std::vector<Receiver> ReceiversOf(const Mount& m, const std::vector<RefPtr<Mount>>& all) {
  std::vector<Receiver> out;
  int group = m.impl().group;
  if (group == 0) return out;
  std::set<int> seen = {group};
  std::vector<int> pending = {group};
  while (!pending.empty()) {
    int g = pending.back();
    pending.pop_back();
    for (const RefPtr<Mount>& r : all) {
      if (r.get() == &m || r->impl().ns == nullptr) continue;
      bool peer = r->impl().group == g && g == group;
      if (!peer && r->impl().master != g) continue;
      if (!peer && r->impl().group == group) continue;
      out.push_back({r.get(), peer});
      int own = r->impl().group;
      if (own != 0 && seen.insert(own).second) pending.push_back(own);
    }
  }
  return out;
}

}  // namespace

void MountTree::AttachAndPropagate(const RefPtr<Mount>& tree, Mount& parent, const RefPtr<Dentry>& point,
                                   MountNamespace* ns, Graveyard& g) {
  if (parent.impl_->group != 0) {
    All(g);
    ForEach(*tree, [](Mount& m) {
      if (m.impl_->group == 0) m.impl_->group = NewGroup();
      m.impl_->unbindable = false;
    });
  }
  for (const Receiver& r : ReceiversOf(parent, g.all)) {
    // Only where the place is visible.
    if (!r.mount->impl_->root->IsAncestorOf(*point)) continue;
    CopyKind kind = r.peer ? CopyKind::kPeer : r.mount->impl_->group != 0 ? CopyKind::kSharedSlave : CopyKind::kSlave;
    // What stands there already moves on top of the newcomer only when it came first; a stack is as good.
    Mount* at = r.mount;
    RefPtr<Dentry> where = point;
    while (Mount* covered = ChildAt(*at, where.get())) {
      at = covered;
      where = covered->impl_->root;
    }
    RefPtr<Mount> copy = Copy(*tree, tree->impl_->root, true, kind, false, nullptr);
    Attach(copy, *at, where, r.mount->impl_->ns);
  }
  Attach(tree, parent, point, ns);
}

void MountTree::DetachAndPropagate(Mount& m, Graveyard& g) {
  Mount* parent = m.impl_->parent;
  RefPtr<Dentry> point = m.impl_->mount_point;
  if (parent != nullptr && parent->impl_->group != 0) All(g);
  if (parent != nullptr) {
    for (const Receiver& r : ReceiversOf(*parent, g.all)) {
      Mount* copy = ChildAt(*r.mount, point.get());
      // A copy that has got something mounted on it stays.
      if (copy != nullptr && copy->impl_->root == m.impl_->root && copy->impl_->children.empty()) Detach(*copy, g);
    }
  }
  Detach(m, g);
}

}  // namespace moat
