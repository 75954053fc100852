#include "fs/overlay/overlay_fs.h"

#include <linux/magic.h>

#include "fs/overlay/overlay_inode.h"
#include "platform/base/log.h"

namespace moat {

OverlayFs::OverlayFs(RefPtr<FileSystem> upper, std::vector<RefPtr<FileSystem>> lowers)
    : FileSystem("overlay"), upper_fs_(std::move(upper)), lower_fs_(std::move(lowers)) {}

OverlayFs::~OverlayFs() = default;

void OverlayFs::OnLastUnref() {
  // Inodes refer to this object: those that it keeps go first, outside of the lock.
  std::unordered_map<OverlayInode*, RefPtr<OverlayInode>> pins;
  {
    MutexLock lock(table_mu_);
    pins.swap(pins_);
  }
  pins.clear();
  root_.reset();
  work_.reset();
  FileSystem::OnLastUnref();
}

Result<RefPtr<OverlayFs>> OverlayFs::Create(const VfsContext& ctx, RefPtr<FileSystem> upper,
                                            std::vector<RefPtr<FileSystem>> lowers) {
  if (lowers.empty()) return kEINVAL;
  std::vector<RefPtr<Inode>> lower_roots;
  for (const RefPtr<FileSystem>& fs : lowers) lower_roots.push_back(fs->root());
  uint32_t type = lower_roots[0]->type();
  if (type != S_IFDIR) return kENOTDIR;
  Kstat st = TRY(lower_roots[0]->GetAttr());
  RefPtr<OverlayFs> fs = AdoptRef(new OverlayFs(std::move(upper), std::move(lowers)));
  RefPtr<Inode> upper_root;
  if (fs->upper_fs_) {
    RefPtr<Inode> top = fs->upper_fs_->root();
    fs->work_ = TRY(top->Mkdir(ctx, "work", 0700));
    upper_root = TRY(top->Mkdir(ctx, "root", st.mode & 07777));
    AttrChange change;
    change.mode = st.mode & 07777;
    change.uid = st.uid;
    change.gid = st.gid;
    change.atime = st.atime;
    change.mtime = st.mtime;
    TRY(upper_root->SetAttr(ctx, change));
  } else {
    fs->set_read_only(true);
  }
  fs->root_ = AdoptRef(new OverlayInode(*fs, type, fs->LowerIno(0, st.ino), upper_root, std::move(lower_roots)));
  if (upper_root) fs->RegisterUpper(*fs->root_, upper_root->ino());
  return fs;
}

RefPtr<Inode> OverlayFs::root() { return root_; }

Result<FsStat> OverlayFs::StatFs() {
  FsStat st = TRY((upper_fs_ ? upper_fs_ : lower_fs_[0])->StatFs());
  st.type = OVERLAYFS_SUPER_MAGIC;
  return st;
}

Result<void> OverlayFs::SyncAll() {
  if (!upper_fs_) return {};
  return upper_fs_->SyncAll();
}

std::string OverlayFs::ShowOptions() const {
  std::string options = "lowerdir=";
  for (size_t i = 0; i < lower_fs_.size(); ++i) options += i == 0 ? "lower0" : ":lower" + std::to_string(i);
  if (upper_fs_) options += ",upperdir=upper,workdir=work";
  return options;
}

size_t OverlayFs::LayerOf(const Inode& lower) const {
  for (size_t i = 0; i < lower_fs_.size(); ++i) {
    if (lower_fs_[i].get() == &lower.fs()) return i;
  }
  return 0;
}

RefPtr<OverlayInode> OverlayFs::InodeOfUpper(RefPtr<Inode> upper) {
  MutexLock lock(table_mu_);
  auto [it, fresh] = by_upper_.try_emplace(upper->ino(), nullptr);
  if (!fresh && it->second->TryAddRef()) return AdoptRef(it->second);
  uint64_t ino = UpperIno(upper->ino());
  uint32_t type = upper->type();
  RefPtr<OverlayInode> made = AdoptRef(new OverlayInode(*this, type, ino, std::move(upper), {}));
  it->second = made.get();
  return made;
}

RefPtr<OverlayInode> OverlayFs::InodeOfLower(std::vector<RefPtr<Inode>> lowers) {
  const Inode* key = lowers[0].get();
  uint64_t ino = LowerIno(LayerOf(*key), key->ino());
  RefPtr<OverlayInode> made;
  std::vector<RefPtr<Inode>> unused;  // given back after the lock is gone
  MutexLock lock(table_mu_);
  auto [it, fresh] = by_lower_.try_emplace(key, nullptr);
  if (!fresh && it->second->TryAddRef()) {
    unused = std::move(lowers);
    return AdoptRef(it->second);
  }
  made = AdoptRef(new OverlayInode(*this, key->type(), ino, nullptr, std::move(lowers)));
  it->second = made.get();
  return made;
}

uint64_t OverlayFs::InoOfUpperEntry(uint64_t upper_ino) {
  MutexLock lock(table_mu_);
  auto it = by_upper_.find(upper_ino);
  return it != by_upper_.end() ? it->second->ino() : UpperIno(upper_ino);
}

std::string OverlayFs::NewAnchorName() {
  return "#" + std::to_string(next_anchor_.fetch_add(1, std::memory_order_relaxed));
}

void OverlayFs::Pin(OverlayInode& inode) {
  MutexLock lock(table_mu_);
  pins_.try_emplace(&inode, RefPtr<OverlayInode>(&inode));
}

void OverlayFs::Unpin(OverlayInode& inode) {
  RefPtr<OverlayInode> last;
  MutexLock lock(table_mu_);
  auto it = pins_.find(&inode);
  if (it == pins_.end()) return;
  last = std::move(it->second);
  pins_.erase(it);
}

void OverlayFs::RegisterUpper(OverlayInode& inode, uint64_t upper_ino) {
  MutexLock lock(table_mu_);
  by_upper_[upper_ino] = &inode;
}

void OverlayFs::Drop(OverlayInode& inode) {
  MutexLock lock(table_mu_);
  if (inode.lower_born()) {
    auto it = by_lower_.find(inode.lowers()[0].get());
    if (it != by_lower_.end() && it->second == &inode) by_lower_.erase(it);
  }
  if (Inode* upper = inode.upper()) {
    auto it = by_upper_.find(upper->ino());
    if (it != by_upper_.end() && it->second == &inode) by_upper_.erase(it);
  }
}

}  // namespace moat
