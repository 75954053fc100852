#include "fs/tmpfs/tmpfs_inode.h"

#include <fcntl.h>
#include <linux/xattr.h>
#include <sys/mount.h>

#include "fs/vfs/mount.h"
#include "fs/vfs/permissions.h"

namespace moat {
namespace {

constexpr size_t kMaxXattrBytes = 128 << 10;  // per inode, so that names without data cannot eat all memory
constexpr Nanos kDay = 24 * 3600 * kNanosPerSec;

bool StoresXattr(std::string_view name) {
  return name.starts_with(XATTR_USER_PREFIX) || name.starts_with(XATTR_TRUSTED_PREFIX) ||
         name.starts_with(XATTR_SECURITY_PREFIX);
}

}  // namespace

Nanos TmpfsNow() { return ReadHostClock(CLOCK_REALTIME_COARSE); }

TmpfsInode::TmpfsInode(TmpfsFs& fs, const New& n)
    : Inode(fs, n.mode, fs.NextIno()),
      quota_(fs.quota()),
      mode_(n.mode),
      uid_(n.uid),
      gid_(n.gid),
      nlink_(n.nlink),
      btime_(TmpfsNow()),
      acl_{n.acl, n.default_acl},
      has_acl_{n.acl != nullptr, n.default_acl != nullptr} {
  atime_ = mtime_ = ctime_ = btime_;
}

TmpfsInode::~TmpfsInode() { quota_->UnchargeInode(); }

Result<Kstat> TmpfsInode::GetAttr() {
  NoticeStores();
  Kstat st;
  st.ino = ino();
  st.mode = mode_.load(std::memory_order_relaxed);
  st.nlink = nlink();
  st.uid = uid_.load(std::memory_order_relaxed);
  st.gid = gid_.load(std::memory_order_relaxed);
  st.dev = fs().device();
  st.rdev = rdev();
  st.size = size();
  st.blocks = blocks();
  st.atime = atime_.load(std::memory_order_relaxed);
  st.mtime = mtime_.load(std::memory_order_relaxed);
  st.ctime = ctime_.load(std::memory_order_relaxed);
  st.btime = btime_;
  st.has_btime = true;
  return st;
}

Result<Inode::Access> TmpfsInode::GetAccess() {
  return Access{mode_.load(std::memory_order_relaxed), uid_.load(std::memory_order_relaxed),
                gid_.load(std::memory_order_relaxed)};
}

Result<void> TmpfsInode::SetAttr(const VfsContext&, const AttrChange& c) {
  if (c.mode && ExecSealed() && ((*c.mode ^ mode_.load()) & 0111) != 0) return kEPERM;
  NoticeStores();
  if (c.size) {
    TRY(Resize(*c.size));
    TouchData();
  }
  MutexLock lock(mu_);
  Nanos now = TmpfsNow();
  if (c.mode) {
    mode_.store((mode_.load() & S_IFMT) | (*c.mode & 07777), std::memory_order_relaxed);
    if (acl_[0]) acl_[0] = acl_[0]->WithMode(*c.mode);
  }
  if (c.uid) uid_.store(*c.uid, std::memory_order_relaxed);
  if (c.gid) gid_.store(*c.gid, std::memory_order_relaxed);
  if (c.atime) atime_.store(*c.atime, std::memory_order_relaxed);
  if (c.mtime) mtime_.store(*c.mtime, std::memory_order_relaxed);
  // Exact: a program that sets "now" compares it with its own clock.
  if (c.atime_now) atime_.store(RealtimeNow(), std::memory_order_relaxed);
  if (c.mtime_now) mtime_.store(RealtimeNow(), std::memory_order_relaxed);
  ctime_.store(now, std::memory_order_relaxed);
  return {};
}

Result<void> TmpfsInode::CheckPermission(const VfsContext& ctx, int mask) {
  if (!has_acl_[0].load(std::memory_order_acquire)) [[likely]]
    return Inode::CheckPermission(ctx, mask);
  RefPtr<const PosixAcl> acl;
  {
    MutexLock lock(mu_);
    acl = acl_[0];
  }
  return GenericPermission(ctx.cred, TRY(GetAccess()), mask, acl.get());
}

Result<RefPtr<const PosixAcl>> TmpfsInode::GetAcl(AclKind kind) {
  MutexLock lock(mu_);
  return acl_[static_cast<size_t>(kind)];
}

Result<void> TmpfsInode::SetAcl(const VfsContext& ctx, AclKind kind, RefPtr<const PosixAcl> acl) {
  bool access = kind == AclKind::kAccess;
  bool keeps_set_gid = true;
  if (access) {
    Access a = TRY(GetAccess());
    keeps_set_gid = ctx.cred.InGroup(a.gid) || CapableOver(ctx.cred, a, CAP_FSETID);
  }
  RefPtr<const PosixAcl> dropped;  // after the lock
  MutexLock lock(mu_);
  if (access) {
    uint32_t mode = mode_.load(std::memory_order_relaxed);
    uint32_t permissions;
    if (acl) {
      bool says_all = acl->ToMode(permissions);
      mode = (mode & ~0777u) | permissions;
      if (says_all) acl = nullptr;
    }
    if (!keeps_set_gid) mode &= ~uint32_t{S_ISGID};
    mode_.store(mode, std::memory_order_relaxed);
  }
  size_t i = static_cast<size_t>(kind);
  dropped = std::exchange(acl_[i], std::move(acl));
  has_acl_[i].store(acl_[i] != nullptr, std::memory_order_release);
  ctime_.store(TmpfsNow(), std::memory_order_relaxed);
  return {};
}

void TmpfsInode::TouchAccess(const VfsPath& path, int file_flags) {
  if ((file_flags & O_NOATIME) != 0) return;
  uint64_t flags = path.mount ? path.mount->flags() : uint64_t{MS_RELATIME};
  if ((flags & MS_NOATIME) != 0 || (is_dir() && (flags & MS_NODIRATIME) != 0)) return;
  if (path.mount && path.mount->read_only()) return;
  NoticeStores();
  Nanos now = TmpfsNow();
  Nanos at = atime_.load(std::memory_order_relaxed);
  if ((flags & MS_RELATIME) != 0 && at > mtime_.load(std::memory_order_relaxed) &&
      at > ctime_.load(std::memory_order_relaxed) && now - at < kDay) {
    return;
  }
  if (at != now) atime_.store(now, std::memory_order_relaxed);
}

Result<std::string> TmpfsInode::GetXattr(const VfsContext&, std::string_view name) {
  if (!StoresXattr(name)) return kEOPNOTSUPP;
  MutexLock lock(mu_);
  if (!xattrs_) return kENODATA;
  auto it = xattrs_->values.find(name);
  if (it == xattrs_->values.end()) return kENODATA;
  return it->second;
}

Result<void> TmpfsInode::SetXattr(const VfsContext&, std::string_view name, std::string_view value, int flags) {
  if (!StoresXattr(name)) return kEOPNOTSUPP;
  MutexLock lock(mu_);
  if (!xattrs_) xattrs_ = std::make_unique<Xattrs>();
  auto it = xattrs_->values.find(name);
  bool exists = it != xattrs_->values.end();
  if (exists && (flags & XATTR_CREATE) != 0) return kEEXIST;
  if (!exists && (flags & XATTR_REPLACE) != 0) return kENODATA;
  size_t bytes = xattrs_->bytes - (exists ? it->second.size() : 0) + value.size() + (exists ? 0 : name.size());
  if (bytes > kMaxXattrBytes) return kENOSPC;
  if (exists) {
    it->second = value;
  } else {
    xattrs_->values.emplace(name, value);
  }
  xattrs_->bytes = bytes;
  ctime_.store(TmpfsNow(), std::memory_order_relaxed);
  return {};
}

Result<void> TmpfsInode::RemoveXattr(const VfsContext&, std::string_view name) {
  if (!StoresXattr(name)) return kEOPNOTSUPP;
  MutexLock lock(mu_);
  if (!xattrs_) return kENODATA;
  auto it = xattrs_->values.find(name);
  if (it == xattrs_->values.end()) return kENODATA;
  xattrs_->bytes -= it->first.size() + it->second.size();
  xattrs_->values.erase(it);
  ctime_.store(TmpfsNow(), std::memory_order_relaxed);
  return {};
}

Result<std::vector<std::string>> TmpfsInode::ListXattr(const VfsContext&) {
  std::vector<std::string> names;
  MutexLock lock(mu_);
  if (acl_[0]) names.push_back(XATTR_NAME_POSIX_ACL_ACCESS);
  if (acl_[1]) names.push_back(XATTR_NAME_POSIX_ACL_DEFAULT);
  if (xattrs_) {
    for (const auto& [name, value] : xattrs_->values) names.push_back(name);
  }
  return names;
}

}  // namespace moat
