#include "fs/vfs/inode.h"

#include <fcntl.h>

#include <array>
#include <set>

#include "fs/vfs/file.h"
#include "fs/vfs/file_locks.h"
#include "fs/vfs/permissions.h"
#include "fs/vfs/posix_acl.h"

namespace moat {

bool OpenFlags::readable() const {
  return (flags & O_PATH) == 0 && ((flags & O_ACCMODE) == O_RDONLY || (flags & O_ACCMODE) == O_RDWR);
}
bool OpenFlags::writable() const {
  return (flags & O_PATH) == 0 && ((flags & O_ACCMODE) == O_WRONLY || (flags & O_ACCMODE) == O_RDWR);
}
bool OpenFlags::path_only() const { return (flags & O_PATH) != 0; }

struct Inode::Extra {
  FileLockList locks;
  std::atomic<bool> locks_used{false};
  Mutex mu{LockRank::kLeaf};
  std::array<RefPtr<Attachment>, static_cast<size_t>(Slot::kCount)> slots ABSL_GUARDED_BY(mu);
};

Inode::Inode(FileSystem& fs, uint32_t type, uint64_t ino, LockRank dir_rank)
    : fs_(fs), type_(type & S_IFMT), ino_(ino), dir_mu_(dir_rank) {}

namespace {

// The inodes whose lock lists were ever used.
struct LockedInodes {
  Mutex mu{LockRank::kLeaf};
  std::set<Inode*> inodes ABSL_GUARDED_BY(mu);
  static LockedInodes& Get() {
    static LockedInodes* all = new LockedInodes;
    return *all;
  }
};

}  // namespace

std::vector<RefPtr<Inode>> InodesWithLocks() {
  std::vector<RefPtr<Inode>> out;
  LockedInodes& all = LockedInodes::Get();
  MutexLock lock(all.mu);
  for (Inode* i : all.inodes) {
    if (i->TryAddRef()) out.push_back(AdoptRef(i));
  }
  return out;
}

Inode::~Inode() {
  Extra* e = extra_.load(std::memory_order_acquire);
  if (e == nullptr) return;
  if (e->locks_used.load(std::memory_order_relaxed)) {
    LockedInodes& all = LockedInodes::Get();
    MutexLock lock(all.mu);
    all.inodes.erase(this);
  }
  delete e;
}

Inode::Extra& Inode::extra() const {
  Extra* e = extra_.load(std::memory_order_acquire);
  if (e != nullptr) return *e;
  Extra* made = new Extra;
  if (extra_.compare_exchange_strong(e, made, std::memory_order_acq_rel)) return *made;
  delete made;
  return *e;
}

FileLockList& Inode::locks() {
  Extra& e = extra();
  if (!e.locks_used.exchange(true, std::memory_order_relaxed)) {
    LockedInodes& all = LockedInodes::Get();
    MutexLock lock(all.mu);
    all.inodes.insert(this);
  }
  return e.locks;
}

FileLockList* Inode::locks_if_any() const {
  Extra* e = extra_.load(std::memory_order_acquire);
  return e != nullptr && e->locks_used.load(std::memory_order_relaxed) ? &e->locks : nullptr;
}

RefPtr<Inode::Attachment> Inode::attachment(Slot slot) const {
  Extra* e = extra_.load(std::memory_order_acquire);
  if (e == nullptr) return nullptr;
  MutexLock lock(e->mu);
  return e->slots[static_cast<size_t>(slot)];
}

RefPtr<Inode::Attachment> Inode::AttachOnce(Slot slot, RefPtr<Attachment> a) {
  Extra& e = extra();
  MutexLock lock(e.mu);
  RefPtr<Attachment>& at = e.slots[static_cast<size_t>(slot)];
  if (!at) at = std::move(a);
  return at;
}

void Inode::Detach(Slot slot) {
  Extra* e = extra_.load(std::memory_order_acquire);
  if (e == nullptr) return;
  RefPtr<Attachment> gone;
  MutexLock lock(e->mu);
  gone = std::move(e->slots[static_cast<size_t>(slot)]);
}

Result<void> Inode::GetWriteAccess() {
  int32_t n = writers_.load(std::memory_order_relaxed);
  do {
    if (n < 0) return kETXTBSY;
  } while (!writers_.compare_exchange_weak(n, n + 1, std::memory_order_acq_rel));
  return {};
}
void Inode::PutWriteAccess() { writers_.fetch_sub(1, std::memory_order_acq_rel); }

Result<void> Inode::DenyWriteAccess() {
  int32_t n = writers_.load(std::memory_order_relaxed);
  do {
    if (n > 0) return kETXTBSY;
  } while (!writers_.compare_exchange_weak(n, n - 1, std::memory_order_acq_rel));
  return {};
}
void Inode::AllowWriteAccess() { writers_.fetch_add(1, std::memory_order_acq_rel); }

Result<Inode::Access> Inode::GetAccess() {
  Kstat st = TRY(GetAttr());
  return Access{st.mode, st.uid, st.gid};
}

Result<void> Inode::CheckPermission(const VfsContext& ctx, int mask) {
  Access access = TRY(GetAccess());
  return GenericPermission(ctx.cred, access, mask);
}

Result<void> Inode::SetAttr(const VfsContext&, const AttrChange&) { return kEPERM; }
Result<RefPtr<Inode>> Inode::Lookup(const VfsContext&, std::string_view) { return is_dir() ? kENOENT : kENOTDIR; }
Result<RefPtr<Inode>> Inode::Create(const VfsContext&, std::string_view, uint32_t) { return kEACCES; }
Result<RefPtr<Inode>> Inode::Mkdir(const VfsContext&, std::string_view, uint32_t) { return kEPERM; }
Result<RefPtr<Inode>> Inode::Mknod(const VfsContext&, std::string_view, uint32_t, DeviceId) { return kEPERM; }
Result<RefPtr<Inode>> Inode::Symlink(const VfsContext&, std::string_view, std::string_view) { return kEPERM; }
Result<void> Inode::Link(const VfsContext&, std::string_view, Inode&) { return kEPERM; }
Result<void> Inode::Unlink(const VfsContext&, std::string_view, Inode&) { return kEPERM; }
Result<void> Inode::Rmdir(const VfsContext&, std::string_view, Inode&) { return kEPERM; }
Result<void> Inode::Rename(const VfsContext&, std::string_view, Inode&, Inode&, std::string_view, Inode*, unsigned) {
  return kEPERM;
}
Result<RefPtr<Inode>> Inode::CreateTemporary(const VfsContext&, uint32_t) { return kEOPNOTSUPP; }
Result<std::string> Inode::Readlink(const VfsContext&) { return kEINVAL; }
Result<VfsPath> Inode::FollowMagicLink(const VfsContext&) { return kENOSYS; }
Result<std::string> Inode::GetXattr(const VfsContext&, std::string_view) { return kEOPNOTSUPP; }
Result<void> Inode::SetXattr(const VfsContext&, std::string_view, std::string_view, int) { return kEOPNOTSUPP; }
Result<void> Inode::RemoveXattr(const VfsContext&, std::string_view) { return kEOPNOTSUPP; }
Result<std::vector<std::string>> Inode::ListXattr(const VfsContext&) { return std::vector<std::string>(); }
Result<RefPtr<const PosixAcl>> Inode::GetAcl(AclKind) { return kEOPNOTSUPP; }
Result<void> Inode::SetAcl(const VfsContext&, AclKind, RefPtr<const PosixAcl>) { return kEOPNOTSUPP; }
Result<RefPtr<Mappable>> Inode::GetMappable() { return kENODEV; }

}  // namespace moat
