// Attributes, descriptors and caches of a host object. Names are in host_inode_names.cc.
#include "fs/hostfs/host_inode.h"

#include <fcntl.h>

#include "fs/hostfs/host_file.h"
#include "fs/hostfs/host_mappable.h"
#include "fs/vfs/file.h"

namespace moat {

HostInode::HostInode(HostFs& fs, gofer::Handle handle, uint64_t host_dev, uint64_t host_ino, const Kstat& st,
                     std::string target)
    : Inode(fs, st.mode, st.ino),
      handle_(handle),
      host_dev_(host_dev),
      host_ino_(host_ino),
      target_(std::move(target)),
      attr_(st) {}

HostInode::~HostInode() {
  host_fs().Drop(*this);
  DropAnswers();
  host_fs().client().Forget(handle_);
}

bool HostInode::CacheableLocked() const {
  if (!attr_valid_ || mapping_wrote_.load(std::memory_order_relaxed)) return false;
  return host_fs().exclusive() || MonotonicNow() < fresh_until_;
}

Result<Kstat> HostInode::GetAttr() {
  uint64_t generation;
  {
    MutexLock lock(mu_);
    if (CacheableLocked()) return attr_;
    generation = generation_;
  }
  if (writable_mappings_.load() == 0) mapping_wrote_.store(false);
  Kstat st = host_fs().ToKstat(TRY(host_fs().client().GetAttr(handle_)));
  Refresh(st, generation);
  return st;
}

Result<Inode::Access> HostInode::GetAccess() {
  // Mode and owner change through this object only (exclusive), or were fresh when the path led here (shared).
  MutexLock lock(mu_);
  return Access{attr_.mode, attr_.uid, attr_.gid};
}

uint64_t HostInode::generation() const {
  MutexLock lock(mu_);
  return generation_;
}

void HostInode::Refresh(const Kstat& st, uint64_t generation) {
  changed_.store(true, std::memory_order_relaxed);
  MutexLock lock(mu_);
  if (generation == generation_) {
    attr_ = st;
    attr_valid_ = size_valid_ = true;
    if (!host_fs().exclusive()) fresh_until_ = MonotonicNow() + kSharedFreshness;
  } else {
    attr_valid_ = size_valid_ = false;
  }
}

void HostInode::MarkStale() {
  changed_.store(true, std::memory_order_relaxed);
  MutexLock lock(mu_);
  ++generation_;
  attr_valid_ = false;
}

bool HostInode::HasLostChanges() const {
  if (!changed_.load(std::memory_order_relaxed) && !mapping_wrote_.load(std::memory_order_relaxed)) return false;
  MutexLock lock(mu_);
  return !attr_valid_ || attr_.nlink != 0;
}

Result<uint64_t> HostInode::Size() {
  if (host_fs().exclusive()) {
    // The size is kept right by every operation that changes it; only the other attributes go stale.
    MutexLock lock(mu_);
    if (size_valid_) return attr_.size;
  }
  return TRY(GetAttr()).size;
}

void HostInode::Wrote(uint64_t offset, uint64_t n) {
  changed_.store(true, std::memory_order_relaxed);
  MutexLock lock(mu_);
  ++generation_;
  attr_valid_ = false;
  attr_.size = std::max(attr_.size, offset + n);
}

Result<uint64_t> HostInode::Appended(uint64_t n) {
  changed_.store(true, std::memory_order_relaxed);
  {
    MutexLock lock(mu_);
    ++generation_;
    attr_valid_ = false;
    // Exact on an exclusive mount: every append of the file goes through here.
    attr_.size += n;
    if (host_fs().exclusive() && size_valid_) return attr_.size;
  }
  return TRY(GetAttr()).size;
}

void HostInode::MappedWritable(int delta) {
  writable_mappings_.fetch_add(delta);
  mapping_wrote_.store(true);
}

Result<void> HostInode::SetAttr(const VfsContext&, const AttrChange& change) {
  if (host_fs().read_only_mount()) return kEROFS;
  gofer::Request r = {};
  if (change.mode) {
    r.mask |= gofer::kSetMode;
    r.mode = *change.mode;
  }
  if (change.uid) {
    r.mask |= gofer::kSetUid;
    r.uid = *change.uid;
  }
  if (change.gid) {
    r.mask |= gofer::kSetGid;
    r.gid = *change.gid;
  }
  if (change.size) {
    bytes_may_change_.store(true, std::memory_order_relaxed);
    r.mask |= gofer::kSetSize;
    r.value = *change.size;
  }
  if (change.atime_now) {
    r.mask |= gofer::kSetAtimeNow;
  } else if (change.atime) {
    r.mask |= gofer::kSetAtime;
    r.atime = *change.atime;
  }
  if (change.mtime_now) {
    r.mask |= gofer::kSetMtimeNow;
  } else if (change.mtime) {
    r.mask |= gofer::kSetMtime;
    r.mtime = *change.mtime;
  }
  if (r.mask == 0) return {};
  uint64_t before = generation();
  Result<gofer::Attr> after = host_fs().client().SetAttr(handle_, r);
  if (!after.ok()) {
    // Several changes in one request: some may have happened.
    changed_.store(true, std::memory_order_relaxed);
    MutexLock lock(mu_);
    ++generation_;
    attr_valid_ = size_valid_ = false;
    return after.error();
  }
  Refresh(host_fs().ToKstat(*after), before);
  return {};
}

int HostInode::CachedHostFd(bool write) const {
  MutexLock lock(mu_);
  if (write_fd_.valid()) return write_fd_.get();
  return write ? -1 : read_fd_.get();
}

Result<int> HostInode::HostFd(bool write) {
  int fd = CachedHostFd(write);
  if (fd >= 0) return fd;
  if (write && host_fs().read_only_mount()) return kEROFS;
  if (write) bytes_may_change_.store(true, std::memory_order_relaxed);
  GoferClient::Opened opened = TRY(host_fs().client().Open(handle_, write ? O_RDWR : O_RDONLY));
  MutexLock lock(mu_);
  ScopedFd& slot = write ? write_fd_ : read_fd_;
  // Another thread may have been faster; its descriptor may be in use already.
  if (!slot.valid()) slot = std::move(opened.fd);
  return slot.get();
}

RefPtr<RefCounted> HostInode::DerivedFromBytes(absl::FunctionRef<RefPtr<RefCounted>()> make) {
  if (!host_fs().exclusive() || bytes_may_change_.load(std::memory_order_relaxed)) return nullptr;
  MutexLock lock(derived_mu_);
  if (!derived_) derived_ = make();
  return derived_;
}

void HostInode::FileOpened() {
  MutexLock lock(mu_);
  ++open_files_;
}

void HostInode::FileClosed() {
  {
    MutexLock lock(mu_);
    if (--open_files_ > 0) return;
  }
  host_fs().FileIdle(*this);
}

void HostInode::CloseIfIdle() {
  ScopedFd read_fd, write_fd;  // closed after the locks are gone
  MutexLock lock(mu_);
  MutexLock mappable_lock(mappable_mu_);
  if (open_files_ > 0 || mappable_ != nullptr) return;
  read_fd = std::move(read_fd_);
  write_fd = std::move(write_fd_);
}

Result<std::string> HostInode::Readlink(const VfsContext&) {
  if (!is_symlink()) return kEINVAL;
  // A symlink's contents never change: another target is another inode.
  if (!target_.empty()) return target_;
  return host_fs().client().Readlink(handle_);
}

Result<RefPtr<File>> HostInode::Open(const VfsContext&, const VfsPath& path, OpenFlags flags) {
  if (is_dir()) return RefPtr<File>(MakeRef<HostDirectory>(RefPtr<HostInode>(this), path, flags));
  if (type() != S_IFREG) return kENXIO;
  RefPtr<File> file = MakeRef<HostRegularFile>(RefPtr<HostInode>(this), path, flags);
  TRY(HostFd(flags.writable()));
  if (!flags.writable()) NoteUse(host_fs().read_ahead().files);
  return file;
}

Result<std::string> HostInode::GetXattr(const VfsContext&, std::string_view name) {
  uint64_t before;
  {
    MutexLock lock(mu_);
    if (!name.empty() && missing_xattr_ == name) return kENODATA;
    before = generation_;
  }
  Result<std::string> value = host_fs().client().GetXattr(handle_, name);
  if (!value.ok() && value.error() == kENODATA) NoteXattrs(name, false, before);
  return value;
}

void HostInode::NoteXattrs(std::string_view missing, bool none, uint64_t generation) {
  if (!host_fs().exclusive()) return;
  MutexLock lock(mu_);
  if (generation != generation_) return;
  if (!missing.empty()) missing_xattr_ = std::string(missing);
  no_xattrs_ |= none;
}

void HostInode::XattrsChanged() {
  MarkStale();
  MutexLock lock(mu_);
  missing_xattr_.clear();
  no_xattrs_ = false;
}

Result<void> HostInode::SetXattr(const VfsContext&, std::string_view name, std::string_view value, int flags) {
  if (host_fs().read_only_mount()) return kEROFS;
  TRY(host_fs().client().SetXattr(handle_, name, value, flags));
  XattrsChanged();
  return {};
}

Result<void> HostInode::RemoveXattr(const VfsContext&, std::string_view name) {
  if (host_fs().read_only_mount()) return kEROFS;
  TRY(host_fs().client().RemoveXattr(handle_, name));
  XattrsChanged();
  return {};
}

Result<std::vector<std::string>> HostInode::ListXattr(const VfsContext&) {
  uint64_t before;
  {
    MutexLock lock(mu_);
    if (no_xattrs_) return std::vector<std::string>();
    before = generation_;
  }
  std::vector<std::string> names = TRY(host_fs().client().ListXattr(handle_));
  if (names.empty()) NoteXattrs({}, true, before);
  return names;
}

Result<RefPtr<Mappable>> HostInode::GetMappable() {
  if (type() != S_IFREG) return kENODEV;
  RefPtr<HostMappable> made = MakeRef<HostMappable>(RefPtr<HostInode>(this));
  MutexLock lock(mappable_mu_);
  if (mappable_ != nullptr && mappable_->TryAddRef()) {
    return RefPtr<Mappable>(AdoptRef<Mappable>(mappable_));
  }
  mappable_ = made.get();
  return RefPtr<Mappable>(made);
}

}  // namespace moat
