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

RefPtr<HostInode> HostFs::KnownInode(uint32_t dev_major, uint32_t dev_minor, uint64_t ino) {
  MutexLock lock(mu_);
  auto it = inodes_.find(Key{Device(dev_major, dev_minor), ino});
  if (it == inodes_.end() || !it->second->TryAddRef()) return nullptr;
  return AdoptRef(it->second);
}

RefPtr<HostInode> HostFs::InodeOf(gofer::Handle handle, const gofer::Attr& attr, std::string target) {
  Kstat st = ToKstat(attr);
  Key key{Device(attr.dev_major, attr.dev_minor), attr.ino};
  RefPtr<HostInode> known;
  {
    MutexLock lock(mu_);
    auto it = inodes_.find(key);
    // The known one's handle keeps the object alive on the host, so its number has not been used anew.
    if (it != inodes_.end() && it->second->TryAddRef()) known = AdoptRef(it->second);
    if (known && known->type() != (attr.mode & S_IFMT)) known.reset();
    if (!known) {
      RefPtr<HostInode> made = AdoptRef(new HostInode(*this, handle, key.dev, attr.ino, st, std::move(target)));
      inodes_[key] = made.get();
      return made;
    }
  }
  // What an exclusive mount knows is newer than what was on its way meanwhile.
  if (!exclusive()) known->Refresh(st, known->generation());
  client_->Forget(handle);
  return known;
}

void HostFs::FileIdle(HostInode& inode) {
  RefPtr<HostInode> oldest;
  {
    MutexLock lock(mu_);
    if (inode.idle_) {
      idle_.splice(idle_.end(), idle_, *inode.idle_);
    } else {
      inode.idle_ = idle_.insert(idle_.end(), &inode);
    }
    if (idle_.size() <= kMaxIdleFiles) return;
    HostInode* victim = idle_.front();
    idle_.pop_front();
    victim->idle_.reset();
    if (victim->TryAddRef()) oldest = AdoptRef(victim);
  }
  if (oldest) oldest->CloseIfIdle();
}

void HostFs::Drop(HostInode& inode) {
  MutexLock lock(mu_);
  if (inode.idle_) idle_.erase(*inode.idle_);
  auto it = inodes_.find(Key{inode.host_dev_, inode.host_ino_});
  if (it != inodes_.end() && it->second == &inode) inodes_.erase(it);
}

}  // namespace moat
