#include "fs/overlay/guest_overlay_fs.h"

#include <linux/magic.h>

#include <algorithm>

#include "fs/overlay/guest_overlay.h"
#include "fs/overlay/guest_overlay_inode.h"
#include "fs/vfs/posix_acl.h"

namespace moat {
namespace {

constexpr int kMaxStackDepth = 2;  // FILESYSTEM_MAX_STACK_DEPTH
constexpr int kMaxWorkDepth = 3;   // how deep leftovers of an earlier mount are cleared away

class GuestOverlayType final : public FileSystemType {
 public:
  std::string_view name() const override { return "overlay"; }
  bool mountable_in_user_ns() const override { return true; }
  bool takes_descriptors() const override { return true; }
  Result<void> CheckParameter(const VfsContext& ctx, const MountParameter& p) override {
    return GuestOverlayOptions::CheckOne(ctx, p);
  }
  Result<RefPtr<FileSystem>> Mount(const VfsContext& ctx, const MountRequest& request) override {
    GuestOverlayOptions options = TRY(GuestOverlayOptions::Parse(ctx, request));
    return RefPtr<FileSystem>(TRY(GuestOverlayFs::Create(ctx, std::move(options))));
  }
};

int DepthOf(const GuestOverlayOptions& o) {
  int below = o.upper.place ? o.upper.place.mount->fs().stack_depth() : 0;
  for (const GuestOverlayOptions::Layer& l : o.lowers) below = std::max(below, l.place.mount->fs().stack_depth());
  return below + 1;
}

// Removes what is in a directory, as far as it can be removed.
void Clear(const VfsContext& ctx, const VfsPath& dir, int depth) {
  Result<std::vector<LayerEntry>> entries = ListLayer(ctx, *dir.dentry->inode_ptr());
  if (!entries.ok()) return;
  for (const LayerEntry& e : *entries) {
    if (vfs::Unlink(ctx, dir, e.name).ok()) continue;
    Result<RefPtr<Dentry>> child = dir.dentry->LookupChild(ctx, e.name);
    if (!child.ok() || (*child)->inode_ptr() == nullptr || !(*child)->inode_ptr()->is_dir()) continue;
    if (depth > 1) Clear(ctx, VfsPath(dir.mount, *child), depth - 1);
    (void)vfs::Rmdir(ctx, dir, e.name);
  }
}

}  // namespace

void RegisterGuestOverlay() {
  static GuestOverlayType type;
  vfs::RegisterFileSystemType(type);
}

AsMounter::AsMounter(const GuestOverlayFs& fs, const VfsContext& caller)
    : cred_(fs.mounter_), ctx_(Make(fs, caller, *cred_)) {}

AsMounter::AsMounter(const GuestOverlayFs& fs, const VfsContext& caller, Kuid owner, Kgid group)
    : cred_([&]() -> RefPtr<const Credentials> {
        if (fs.mounter_->fsuid == owner && fs.mounter_->fsgid == group) return fs.mounter_;
        RefPtr<Credentials> cred = fs.mounter_->Copy();
        cred->fsuid = owner;
        cred->fsgid = group;
        return cred;
      }()),
      ctx_(Make(fs, caller, *cred_)) {}

VfsContext AsMounter::Make(const GuestOverlayFs& fs, const VfsContext& caller, const Credentials& cred) {
  // The guest's limit on file sizes is about its own writes.
  return VfsContext{.cred = cred,
                    .mounts = *fs.mounts_,
                    .root = fs.mounts_root_,
                    .cwd = fs.mounts_root_,
                    .umask = 0,
                    .file_size_limit = ~uint64_t{0},
                    .pid = caller.pid,
                    .tid = caller.tid,
                    .leased = caller.leased,
                    .task = caller.task};
}

GuestOverlayFs::GuestOverlayFs(const VfsContext& ctx, GuestOverlayOptions options, int depth)
    : FileSystem("overlay", depth == 1 ? LockRank::kStackedRename1 : LockRank::kStackedRename2),
      options_(std::move(options)),
      depth_(depth),
      mounter_(&ctx.cred),
      xattr_prefix_(options_.user_xattr ? "user.overlay." : "trusted.overlay."),
      copy_up_mu_(depth == 1 ? LockRank::kStackedCopyUp1 : LockRank::kStackedCopyUp2) {
  bool may_see_trusted = ctx.cred.HasCapability(CAP_SYS_ADMIN) && ctx.cred.user_ns->parent() == nullptr;
  reads_xattrs_ = options_.user_xattr || may_see_trusted;
}

GuestOverlayFs::~GuestOverlayFs() = default;

void GuestOverlayFs::OnLastUnref() {
  root_.reset();
  FileSystem::OnLastUnref();
}

Result<int> GuestOverlayFs::CheckLayers(const GuestOverlayOptions& o) {
  int depth = DepthOf(o);
  if (depth > kMaxStackDepth) return kEINVAL;
  std::vector<const Dentry*> traps;
  if (o.upper.place) {
    Dentry& upper = *o.upper.place.dentry;
    Dentry& work = *o.work.place.dentry;
    if (o.upper.place.mount->fs().stack_depth() > 0) return kEINVAL;  // names of an overlay have no whiteouts
    if (o.upper.place.mount != o.work.place.mount) return kEINVAL;
    if (upper.IsAncestorOf(work) || work.IsAncestorOf(upper)) return kEINVAL;
    traps = {&upper, &work};
  }
  // No lower layer may lie in another layer; what lies above the upper may be a lower.
  for (const GuestOverlayOptions::Layer& l : o.lowers) traps.push_back(l.place.dentry.get());
  std::sort(traps.begin(), traps.end());
  if (std::adjacent_find(traps.begin(), traps.end()) != traps.end()) return kELOOP;
  for (const GuestOverlayOptions::Layer& l : o.lowers) {
    for (RefPtr<Dentry> d = l.place.dentry->parent(); d; d = d->parent()) {
      if (std::binary_search(traps.begin(), traps.end(), d.get())) return kELOOP;
    }
  }
  return depth;
}

Result<void> GuestOverlayFs::TakeLayers(const VfsContext& ctx) {
  auto take = [](const GuestOverlayOptions::Layer& l) -> Result<VfsPath> {
    return VfsPath(TRY(MountNamespace::ClonePrivate(l.place)), l.place.dentry);
  };
  if (options_.upper.place) upper_ = TRY(take(options_.upper));
  for (const GuestOverlayOptions::Layer& l : options_.lowers) lowers_.push_back(TRY(take(l)));

  std::vector<const FileSystem*> seen;
  auto index = [&](const VfsPath& layer) {
    const FileSystem* fs = &layer.mount->fs();
    auto it = std::find(seen.begin(), seen.end(), fs);
    if (it == seen.end()) it = seen.insert(it, fs);
    return static_cast<uint64_t>(it - seen.begin());
  };
  for (const VfsPath& l : lowers_) lower_fs_index_.push_back(index(l));
  if (upper_) upper_fs_index_ = index(upper_);

  RefPtr<FileSystem> any(&lowers_[0].mount->fs());
  mounts_ = MountNamespace::Create(std::move(any), "overlay", 0, ctx.cred.user_ns);
  mounts_root_ = mounts_->root();
  return {};
}

Result<void> GuestOverlayFs::PrepareWork(const VfsContext& ctx, const VfsPath& base) {
  AsMounter mounter(*this, ctx);
  Result<void> made = vfs::Mkdir(mounter, base, "work", 0);
  if (!made.ok() && made.error() != kEEXIST) return made;
  work_ = VfsPath(base.mount, TRY(base.dentry->LookupChild(mounter, "work")));
  Inode* work = work_.dentry->inode_ptr();
  if (work == nullptr || !work->is_dir()) return kEINVAL;
  if (!made.ok()) {
    // An earlier mount that cannot be trusted after a crash says so here (volatile).
    Result<RefPtr<Inode>> incompat = work->Lookup(mounter, "incompat");
    if (incompat.ok() && (*incompat)->is_dir() && !TRY(ListLayer(mounter, **incompat)).empty()) return kEINVAL;
    Clear(mounter, work_, kMaxWorkDepth);
  }
  // What is made in here goes elsewhere: it must inherit nothing.
  for (AclKind kind : {AclKind::kAccess, AclKind::kDefault}) {
    if (Result<RefPtr<const PosixAcl>> acl = work->GetAcl(kind); acl.ok() && *acl) {
      TRY(work->SetAcl(mounter, kind, nullptr));
    }
  }
  // One attribute for a try: without them directories cannot hide those below.
  no_xattrs_ = !vfs::SetXattr(mounter, work_, XattrName("opaque"), "0", 0).ok();
  if (!no_xattrs_) TRY(vfs::RemoveXattr(mounter, work_, XattrName("opaque")));
  return options_.is_volatile ? MarkVolatile(ctx) : Result<void>();
}

Result<void> GuestOverlayFs::MarkVolatile(const VfsContext& ctx) {
  AsMounter mounter(*this, ctx);
  VfsPath at = work_;
  for (std::string_view name : {"incompat", "volatile"}) {
    TRY(vfs::Mkdir(mounter, at, name, 0));
    at.dentry = TRY(at.dentry->LookupChild(mounter, name));
    if (at.dentry->inode_ptr() == nullptr) return kENOENT;
  }
  return vfs::Mknod(mounter, at, "dirty", S_IFREG, {});
}

Result<RefPtr<GuestOverlayFs>> GuestOverlayFs::Create(const VfsContext& ctx, GuestOverlayOptions options) {
  int depth = TRY(CheckLayers(options));
  RefPtr<GuestOverlayFs> fs = AdoptRef(new GuestOverlayFs(ctx, std::move(options), depth));
  TRY(fs->TakeLayers(ctx));
  Lowers lowers;
  lowers.path = "";
  for (size_t i = 0; i < fs->lowers_.size(); ++i) {
    lowers.inodes.push_back(fs->lowers_[i].dentry->inode());
    lowers.layers.push_back(static_cast<uint16_t>(i));
  }
  if (fs->has_upper()) {
    TRY(fs->PrepareWork(ctx, fs->UpperPlace(fs->options_.work.place.dentry)));
    fs->root_ = fs->InodeOfUpper(fs->upper_.dentry, std::move(lowers));
  } else {
    fs->set_read_only(true);
    fs->root_ = fs->InodeOfLower(nullptr, "", std::move(lowers));
  }
  return fs;
}

RefPtr<Inode> GuestOverlayFs::root() { return root_; }

Result<FsStat> GuestOverlayFs::StatFs() {
  FsStat st = TRY((has_upper() ? upper_ : lowers_[0]).mount->fs().StatFs());
  st.type = OVERLAYFS_SUPER_MAGIC;
  return st;
}

Result<void> GuestOverlayFs::SyncAll() {
  if (!has_upper() || options_.is_volatile) return {};
  return upper_.mount->fs().SyncAll();
}

uint64_t GuestOverlayFs::InoOfUpper(uint64_t upper_ino) {
  MutexLock lock(table_mu_);
  auto it = copied_ino_.find(upper_ino);
  return it != copied_ino_.end() ? it->second : UpperIno(upper_ino);
}

RefPtr<GuestOverlayInode> GuestOverlayFs::InodeOfUpper(RefPtr<Dentry> upper, Lowers lowers) {
  Inode& inode = *upper->inode_ptr();
  uint64_t ino = lowers.inodes.empty() ? InoOfUpper(inode.ino()) : LowerIno(lowers.layers[0], lowers.inodes[0]->ino());
  MutexLock lock(table_mu_);
  auto [it, fresh] = by_upper_.try_emplace(&inode, nullptr);
  if (!fresh && it->second->TryAddRef()) return AdoptRef(it->second);
  RefPtr<GuestOverlayInode> made =
      AdoptRef(new GuestOverlayInode(*this, inode.type(), ino, std::move(upper), std::move(lowers), nullptr, ""));
  it->second = made.get();
  return made;
}

RefPtr<GuestOverlayInode> GuestOverlayFs::InodeOfLower(RefPtr<GuestOverlayInode> parent, std::string_view name,
                                                       Lowers lowers) {
  uint32_t type = lowers.inodes[0]->type();
  uint64_t ino = LowerIno(lowers.layers[0], lowers.inodes[0]->ino());
  MutexLock lock(table_mu_);
  auto [it, fresh] = by_place_.try_emplace({parent.get(), std::string(name)}, nullptr);
  if (!fresh && it->second->TryAddRef()) return AdoptRef(it->second);
  RefPtr<GuestOverlayInode> made =
      AdoptRef(new GuestOverlayInode(*this, type, ino, nullptr, std::move(lowers), std::move(parent), name));
  it->second = made.get();
  return made;
}

RefPtr<GuestOverlayInode> GuestOverlayFs::AtPlace(const GuestOverlayInode& parent, std::string_view name) {
  MutexLock lock(table_mu_);
  auto it = by_place_.find({&parent, std::string(name)});
  return it != by_place_.end() && it->second->TryAddRef() ? AdoptRef(it->second) : nullptr;
}

void GuestOverlayFs::Forget(GuestOverlayInode& inode) {
  MutexLock lock(table_mu_);
  ForgetLocked(inode);
}

void GuestOverlayFs::ForgetLocked(GuestOverlayInode& inode) {
  auto it = by_place_.find({inode.parent_.get(), inode.name_});
  if (it != by_place_.end() && it->second == &inode) by_place_.erase(it);
}

void GuestOverlayFs::MoveToUpper(GuestOverlayInode& inode, Inode& upper) {
  MutexLock lock(table_mu_);
  by_upper_[&upper] = &inode;
  copied_ino_[upper.ino()] = inode.ino();
  ForgetLocked(inode);
}

void GuestOverlayFs::Drop(GuestOverlayInode& inode) {
  MutexLock lock(table_mu_);
  if (Inode* upper = inode.upper()) {
    auto it = by_upper_.find(upper);
    if (it != by_upper_.end() && it->second == &inode) by_upper_.erase(it);
    if (inode.removed()) copied_ino_.erase(upper->ino());
    return;
  }
  ForgetLocked(inode);
}

}  // namespace moat
