#include <fcntl.h>
#include <linux/fs.h>

#include "fs/tmpfs/tmpfs_inode.h"
#include "fs/vfs/dentry.h"
#include "fs/vfs/permissions.h"

namespace moat {
namespace {

// A directory description: its offset is the position in the listing.
class TmpfsDirectoryFile final : public File {
 public:
  TmpfsDirectoryFile(VfsPath path, OpenFlags flags, RefPtr<TmpfsDirectory> dir)
      : File(std::move(path), flags), dir_(std::move(dir)) {}

  Result<void> ReadDir(const VfsContext&, DirEntrySink& sink) override {
    int64_t at = offset();
    if (at == 0) {
      if (!sink.Add(".", dir_->ino(), DT_DIR, 1)) return {};
      set_offset(at = 1);
    }
    if (at == 1) {
      RefPtr<Dentry> parent = path().dentry->parent();
      uint64_t ino = parent && parent->inode_ptr() != nullptr ? parent->inode_ptr()->ino() : dir_->ino();
      if (!sink.Add("..", ino, DT_DIR, 2)) return {};
      set_offset(at = 2);
    }
    set_offset(dir_->List(at, sink));
    dir_->TouchAccess(path(), flags());
    return {};
  }
  Result<int64_t> Seek(const VfsContext&, int64_t offset, int whence) override {
    if (whence != SEEK_SET && whence != SEEK_CUR) return kEINVAL;
    return SeekWithin(offset, whence, 0);
  }
  Result<size_t> PRead(const VfsContext&, IoDest&, int64_t) override { return kEISDIR; }
  Result<size_t> PWrite(const VfsContext&, IoSource&, int64_t) override { return kEISDIR; }

 private:
  static constexpr uint8_t DT_DIR = 4;
  const RefPtr<TmpfsDirectory> dir_;
};

}  // namespace

TmpfsDirectory::~TmpfsDirectory() {
  // A tree of directories deeper than any stack must not end in a recursion: the outermost destructor works off
  // what the inner ones leave.
  thread_local std::vector<RefPtr<TmpfsInode>>* worklist = nullptr;
  std::vector<RefPtr<TmpfsInode>> mine;
  {
    MutexLock lock(mu_);
    by_name_.clear();
    for (auto& [position, entry] : by_position_)
      (worklist != nullptr ? *worklist : mine).push_back(std::move(entry.inode));
    by_position_.clear();
  }
  if (worklist != nullptr) return;
  worklist = &mine;
  while (!mine.empty()) {
    RefPtr<TmpfsInode> next = std::move(mine.back());
    mine.pop_back();
  }
  worklist = nullptr;
}

TmpfsDirectory::Entry* TmpfsDirectory::FindLocked(std::string_view name) {
  auto it = by_name_.find(name);
  return it == by_name_.end() ? nullptr : &by_position_.find(it->second)->second;
}

void TmpfsDirectory::InsertLocked(std::string_view name, RefPtr<TmpfsInode> inode) {
  int64_t position = next_position_++;
  auto it = by_position_.emplace_hint(by_position_.end(), position, Entry{std::string(name), std::move(inode)});
  by_name_.emplace(it->second.name, position);
  entries_.fetch_add(1, std::memory_order_release);
}

RefPtr<TmpfsInode> TmpfsDirectory::EraseLocked(std::string_view name) {
  auto it = by_name_.find(name);
  if (it == by_name_.end()) return nullptr;
  int64_t position = it->second;
  by_name_.erase(it);
  auto node = by_position_.extract(position);
  entries_.fetch_sub(1, std::memory_order_release);
  return std::move(node.mapped().inode);
}

Result<RefPtr<Inode>> TmpfsDirectory::Lookup(const VfsContext&, std::string_view name) {
  MutexLock lock(mu_);
  Entry* e = FindLocked(name);
  if (e == nullptr) return kENOENT;
  return RefPtr<Inode>(e->inode);
}

Result<TmpfsInode::New> TmpfsDirectory::Attributes(const VfsContext& ctx, uint32_t mode, uint32_t nlink) {
  if (!tmpfs().quota()->ChargeInode()) return kENOSPC;
  Access dir = GetAccess().value();
  New n{mode, ctx.cred.fsuid, GroupForCreate(ctx.cred, dir), nlink};
  if (!HasDefaultAcl() || S_ISLNK(mode)) return n;
  RefPtr<const PosixAcl> inherited = GetAcl(AclKind::kDefault).value();
  if (!inherited) return n;
  n.acl = inherited->ForNewFile(n.mode);
  if (S_ISDIR(mode)) n.default_acl = std::move(inherited);
  return n;
}

Result<RefPtr<Inode>> TmpfsDirectory::Add(std::string_view name, RefPtr<TmpfsInode> inode) {
  {
    MutexLock lock(mu_);
    if (nlink() == 0) return kENOENT;  // removed
    if (FindLocked(name) != nullptr) return kEEXIST;
    InsertLocked(name, inode);
  }
  if (inode->is_dir()) AddLinks(1);
  TouchData();
  return RefPtr<Inode>(std::move(inode));
}

Result<RefPtr<Inode>> TmpfsDirectory::Create(const VfsContext& ctx, std::string_view name, uint32_t mode) {
  New n = TRY(Attributes(ctx, S_IFREG | (mode & 07777), 1));
  RefPtr<TmpfsRegular> made = MakeRef<TmpfsRegular>(tmpfs(), n, uint32_t{F_SEAL_SEAL}, false);
  made->data().NoteStores();
  return Add(name, std::move(made));
}

Result<RefPtr<Inode>> TmpfsDirectory::Mkdir(const VfsContext& ctx, std::string_view name, uint32_t mode) {
  New n = TRY(Attributes(ctx, S_IFDIR | (mode & 07777), 2));
  return Add(name, MakeRef<TmpfsDirectory>(tmpfs(), n));
}

Result<RefPtr<Inode>> TmpfsDirectory::Mknod(const VfsContext& ctx, std::string_view name, uint32_t mode, DeviceId dev) {
  New n = TRY(Attributes(ctx, mode & (S_IFMT | 07777), 1));
  return Add(name, MakeRef<TmpfsSpecial>(tmpfs(), n, dev));
}

Result<RefPtr<Inode>> TmpfsDirectory::Symlink(const VfsContext& ctx, std::string_view name, std::string_view target) {
  New n = TRY(Attributes(ctx, S_IFLNK | 0777, 1));
  return Add(name, MakeRef<TmpfsSymlink>(tmpfs(), n, target));
}

Result<RefPtr<Inode>> TmpfsDirectory::CreateTemporary(const VfsContext& ctx, uint32_t mode) {
  New n = TRY(Attributes(ctx, S_IFREG | (mode & 07777), 0));
  RefPtr<TmpfsRegular> made = MakeRef<TmpfsRegular>(tmpfs(), n, uint32_t{F_SEAL_SEAL}, true);
  made->data().NoteStores();
  return RefPtr<Inode>(std::move(made));
}

Result<void> TmpfsDirectory::Link(const VfsContext&, std::string_view name, Inode& target) {
  TmpfsInode& inode = static_cast<TmpfsInode&>(target);
  if (inode.nlink() == 0) {
    auto* regular = dynamic_cast<TmpfsRegular*>(&inode);
    if (regular == nullptr || !regular->temporary()) return kENOENT;
  }
  TRY(Add(name, RefPtr<TmpfsInode>(&inode)));
  inode.AddLinks(1);
  return {};
}

Result<void> TmpfsDirectory::Unlink(const VfsContext&, std::string_view name, Inode&) {
  RefPtr<TmpfsInode> gone;
  {
    MutexLock lock(mu_);
    gone = EraseLocked(name);
  }
  if (!gone) return kENOENT;
  gone->AddLinks(-1);
  TouchData();
  return {};
}

Result<void> TmpfsDirectory::Rmdir(const VfsContext&, std::string_view name, Inode& child) {
  TmpfsDirectory& dir = static_cast<TmpfsDirectory&>(child);
  RefPtr<TmpfsInode> gone;
  {
    MutexLock2 lock(mu_, dir.mu_);
    if (!dir.empty()) return kENOTEMPTY;
    gone = EraseLocked(name);
    if (!gone) return kENOENT;
    dir.AddLinks(-2);  // nobody can make a name in it any more
  }
  AddLinks(-1);
  TouchData();
  return {};
}

Result<void> TmpfsDirectory::Rename(const VfsContext& ctx, std::string_view old_name, Inode& child, Inode& new_dir,
                                    std::string_view new_name, Inode* replaced, unsigned flags) {
  TmpfsDirectory& to = static_cast<TmpfsDirectory&>(new_dir);
  TmpfsInode& moved = static_cast<TmpfsInode&>(child);
  TmpfsInode* victim = static_cast<TmpfsInode*>(replaced);
  RefPtr<TmpfsInode> whiteout;
  if ((flags & RENAME_WHITEOUT) != 0) {
    New n = TRY(Attributes(ctx, S_IFCHR, 1));
    whiteout = MakeRef<TmpfsSpecial>(tmpfs(), n, DeviceId{0, 0});
  }
  RefPtr<TmpfsInode> dropped;
  if (victim != nullptr && victim->is_dir() && (flags & RENAME_EXCHANGE) == 0) {
    // The VFS holds the locks of both parents, so nobody else removes the victim; a name made in it meanwhile finds
    // it dead, or makes this fail.
    TmpfsDirectory& d = static_cast<TmpfsDirectory&>(*victim);
    MutexLock lock(d.mu_);
    if (!d.empty()) return kENOTEMPTY;
    d.AddLinks(-2);
  }
  {
    MutexLock2 lock(mu_, to.mu_);
    Entry* from = FindLocked(old_name);
    if (from == nullptr) return kENOENT;
    if ((flags & RENAME_EXCHANGE) != 0) {
      Entry* other = to.FindLocked(new_name);
      if (other == nullptr) return kENOENT;
      std::swap(from->inode, other->inode);
    } else {
      RefPtr<TmpfsInode> keep(&moved);
      if (whiteout) {
        from->inode = whiteout;
      } else {
        EraseLocked(old_name);
      }
      dropped = to.EraseLocked(new_name);
      to.InsertLocked(new_name, std::move(keep));
    }
  }
  bool exchange = (flags & RENAME_EXCHANGE) != 0;
  if (dropped && !dropped->is_dir()) dropped->AddLinks(-1);
  // A directory that leaves takes its ".." with it; one that is replaced gives up its own.
  if (this != &to) {
    if (moved.is_dir()) {
      AddLinks(-1);
      to.AddLinks(1);
    }
    if (exchange && victim->is_dir()) {
      AddLinks(1);
      to.AddLinks(-1);
    }
  }
  if (!exchange && dropped && dropped->is_dir()) to.AddLinks(-1);
  moved.AddLinks(0);  // its change time
  if (exchange) victim->AddLinks(0);
  TouchData();
  if (this != &to) to.TouchData();
  return {};
}

int64_t TmpfsDirectory::List(int64_t from, DirEntrySink& sink) {
  // Sinks fill kernel buffers: no guest memory is touched under the lock.
  MutexLock lock(mu_);
  for (auto it = by_position_.lower_bound(from); it != by_position_.end(); ++it) {
    const Entry& e = it->second;
    if (!sink.Add(e.name, e.inode->ino(), static_cast<uint8_t>(e.inode->type() >> 12), it->first + 1)) return it->first;
  }
  return std::max(from, next_position_);
}

void TmpfsDirectory::ForEach(const std::function<void(const std::string&, TmpfsInode&)>& f) {
  MutexLock lock(mu_);
  for (const auto& [position, e] : by_position_) f(e.name, *e.inode);
}

Result<RefPtr<File>> TmpfsDirectory::Open(const VfsContext&, const VfsPath& path, OpenFlags flags) {
  return RefPtr<File>(MakeRef<TmpfsDirectoryFile>(path, flags, RefPtr<TmpfsDirectory>(this)));
}

}  // namespace moat
