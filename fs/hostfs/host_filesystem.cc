#include "fs/hostfs/host_filesystem.h"

#include "fs/hostfs/host_inode.h"

namespace moat {

HostFs::HostFs(RefPtr<GoferClient> client, Options options)
    : FileSystem(options.type_name), client_(std::move(client)), options_(std::move(options)) {}

HostFs::~HostFs() = default;

void HostFs::OnLastUnref() {
  // The root's inode refers to this object: it goes first.
  root_.reset();
  FileSystem::OnLastUnref();
}

Result<RefPtr<HostFs>> HostFs::Create(RefPtr<GoferClient> client, uint32_t index, Options options) {
  GoferClient::Object root = TRY(client->Attach(index));
  RefPtr<HostFs> fs = AdoptRef(new HostFs(std::move(client), std::move(options)));
  fs->set_read_only(fs->options_.read_only);
  fs->root_ = fs->InodeOf(root.handle, root.attr);
  return fs;
}

RefPtr<Inode> HostFs::root() { return root_; }

Result<FsStat> HostFs::StatFs() {
  gofer::StatFs st = TRY(client_->StatFileSystem(root_->handle()));
  FsStat out;
  out.type = st.type;
  out.block_size = st.block_size;
  out.blocks = st.blocks;
  out.blocks_free = st.blocks_free;
  out.blocks_available = st.blocks_available;
  out.files = st.files;
  out.files_free = st.files_free;
  out.fsid = st.fsid;
  out.name_length = st.name_length;
  return out;
}

Result<void> HostFs::SyncAll() {
  if (options_.read_only) return {};
  return client_->Sync(root_->handle(), GoferClient::SyncKind::kFileSystem);
}

std::string HostFs::ShowOptions() const { return exclusive() ? "cache=exclusive" : "cache=shared"; }

uint64_t HostFs::GuestInoLocked(uint64_t dev, uint64_t ino) {
  size_t index = 0;
  while (index < devices_.size() && devices_[index] != dev) ++index;
  if (index == devices_.size()) devices_.push_back(dev);
  return ino ^ (static_cast<uint64_t>(index) << 48);
}

uint64_t HostFs::GuestIno(uint32_t dev_major, uint32_t dev_minor, uint64_t ino) {
  MutexLock lock(mu_);
  return GuestInoLocked(Device(dev_major, dev_minor), ino);
}

Kstat HostFs::ToKstat(const gofer::Attr& a) {
  Kstat st;
  st.ino = GuestIno(a.dev_major, a.dev_minor, a.ino);
  st.mode = a.mode;
  st.nlink = a.nlink;
  st.uid = a.uid;
  st.gid = a.gid;
  st.dev = device();
  st.rdev = {a.rdev_major, a.rdev_minor};
  st.size = a.size;
  st.blocks = a.blocks;
  st.blksize = a.blksize == 0 ? 4096 : a.blksize;
  st.atime = a.atime;
  st.mtime = a.mtime;
  st.ctime = a.ctime;
  st.btime = a.btime;
  st.has_btime = a.has_btime != 0;
  st.attributes = a.attributes;
  return st;
}

bool HostFs::IsKnown(uint32_t dev_major, uint32_t dev_minor, uint64_t ino) {
  MutexLock lock(mu_);
  return inodes_.contains(Key{Device(dev_major, dev_minor), ino});
}

RefPtr<HostInode> HostFs::KnownLocked(const gofer::Attr& attr, bool& dying) {
  auto it = inodes_.find(KeyOf(attr));
  dying = false;
  // The known one's handle keeps the object alive on the host, so its number has not been used anew.
  if (it == inodes_.end() || it->second->type() != (attr.mode & S_IFMT)) return nullptr;
  dying = !it->second->TryAddRef();
  return dying ? nullptr : AdoptRef(it->second);
}

RefPtr<HostInode> HostFs::MakeLocked(gofer::Handle handle, const gofer::Attr& attr, const Kstat& st,
                                     std::string target) {
  Key key = KeyOf(attr);
  RefPtr<HostInode> made = AdoptRef(new HostInode(*this, handle, key.dev, key.ino, st, std::move(target)));
  inodes_[key] = made.get();
  return made;
}

RefPtr<HostInode> HostFs::InodeOf(gofer::Handle handle, const gofer::Attr& attr, std::string target) {
  Kstat st = ToKstat(attr);
  RefPtr<HostInode> known;
  {
    MutexLock lock(mu_);
    bool dying;
    known = KnownLocked(attr, dying);
    if (!known) return MakeLocked(handle, attr, st, std::move(target));
  }
  // What an exclusive mount knows is newer than what was on its way meanwhile.
  if (!exclusive()) known->Refresh(st, known->generation());
  client_->Forget(handle);
  return known;
}

RefPtr<HostInode> HostFs::InodeOfAnswer(GoferClient::Found& found, uint64_t asked_at) {
  Kstat st = ToKstat(found.attr);
  RefPtr<HostInode> known;
  {
    MutexLock lock(mu_);
    bool dying;
    known = KnownLocked(found.attr, dying);
    bool stale = dying || lost_changes_.load(std::memory_order_relaxed) != asked_at;
    if (!known) {
      if (stale) return nullptr;
      return MakeLocked(found.handle, found.attr, st, std::move(found.target));
    }
    // Its attributes are better; it may have been looked up again after what made the listing stale.
    if (stale) found.listing.at_end = false;
  }
  client_->Forget(found.handle);
  return known;
}

RefPtr<HostInode> HostFs::Touch(Lru which, HostInode& inode, size_t max) {
  MutexLock lock(mu_);
  std::list<HostInode*>& lru = lru_[which];
  auto& at = inode.in_lru_[which];
  if (at) {
    lru.splice(lru.end(), lru, *at);
  } else {
    at = lru.insert(lru.end(), &inode);
  }
  if (lru.size() <= max) return nullptr;
  HostInode* victim = lru.front();
  lru.pop_front();
  victim->in_lru_[which].reset();
  return victim->TryAddRef() ? AdoptRef(victim) : nullptr;
}

void HostFs::FileIdle(HostInode& inode) {
  if (RefPtr<HostInode> oldest = Touch(kIdleFiles, inode, kMaxIdleFiles)) oldest->CloseIfIdle();
}

void HostFs::HasAnswers(HostInode& dir) {
  if (RefPtr<HostInode> oldest = Touch(kDirsWithAnswers, dir, kMaxDirsWithAnswers)) oldest->DropAnswers();
}

void HostFs::NoAnswers(HostInode& dir) {
  MutexLock lock(mu_);
  auto& at = dir.in_lru_[kDirsWithAnswers];
  if (at) lru_[kDirsWithAnswers].erase(*at);
  at.reset();
}

void HostFs::Drop(HostInode& inode) {
  bool lost_changes = inode.HasLostChanges();
  MutexLock lock(mu_);
  for (size_t i = 0; i < kLruCount; ++i) {
    if (inode.in_lru_[i]) lru_[i].erase(*inode.in_lru_[i]);
  }
  if (lost_changes) lost_changes_.fetch_add(1, std::memory_order_release);
  auto it = inodes_.find(Key{inode.host_dev_, inode.host_ino_});
  if (it != inodes_.end() && it->second == &inode) inodes_.erase(it);
}

}  // namespace moat
