#include "fs/pseudofs/pseudo_fs.h"

#include <dirent.h>

namespace moat {

uint8_t DirentType(uint32_t file_type) { return static_cast<uint8_t>((file_type & S_IFMT) >> 12); }

Result<FsStat> PseudoFs::StatFs() {
  FsStat s;
  s.type = magic_;
  return s;
}

Result<Kstat> PseudoInode::GetAttr() {
  Kstat s;
  s.ino = ino();
  s.mode = type() | permissions_;
  s.nlink = Nlink();
  Owner(s.uid, s.gid);
  s.dev = fs().device();
  s.blksize = 1024;
  s.atime = s.mtime = s.ctime = created_;
  return s;
}

Result<Inode::Access> PseudoInode::GetAccess() {
  Access a{type() | permissions_, 0, 0};
  Owner(a.uid, a.gid);
  return a;
}

Result<void> PseudoInode::SetAttr(const VfsContext&, const AttrChange& change) {
  if (change.mode || change.uid || change.gid) return kEPERM;
  return {};
}

Result<RefPtr<File>> PseudoDir::Open(const VfsContext&, const VfsPath& path, OpenFlags flags) {
  return RefPtr<File>(MakeRef<PseudoDirFile>(path, flags, RefPtr<PseudoDir>(this)));
}

StaticDir& StaticDir::Sub(const std::string& name) {
  auto at = children_.find(name);
  if (at == children_.end()) at = children_.emplace(name, MakeRef<StaticDir>(fs())).first;
  return static_cast<StaticDir&>(*at->second);
}

Result<void> StaticDir::List(const VfsContext&, int64_t from, std::vector<PseudoEntry>& out) {
  int64_t position = 2;
  for (auto& [name, inode] : children_) {
    if (position >= from) out.push_back({name, inode->ino(), DirentType(inode->type()), position});
    ++position;
  }
  return {};
}

Result<RefPtr<Inode>> StaticDir::Lookup(const VfsContext&, std::string_view name) {
  auto at = children_.find(name);
  if (at == children_.end()) return kENOENT;
  return at->second;
}

uint32_t StaticDir::Nlink() {
  uint32_t n = 2;
  for (auto& [name, inode] : children_) n += inode->is_dir();
  return n;
}

Result<void> PseudoDirFile::ReadDir(const VfsContext& ctx, DirEntrySink& sink) {
  int64_t at = offset();
  if (at == 0) {
    if (!sink.Add(".", dir_->ino(), DT_DIR, 1)) return {};
    set_offset(at = 1);
  }
  if (at == 1) {
    uint64_t parent_ino = dir_->ino();
    if (RefPtr<Dentry> parent = path().dentry ? path().dentry->parent() : nullptr) {
      if (RefPtr<Inode> inode = parent->inode()) parent_ino = inode->ino();
    }
    if (!sink.Add("..", parent_ino, DT_DIR, 2)) return {};
    set_offset(at = 2);
  }
  std::vector<PseudoEntry> entries;
  TRY(dir_->List(ctx, at, entries));
  for (const PseudoEntry& e : entries) {
    if (e.position < at) continue;
    if (!sink.Add(e.name, e.ino, e.type, e.position + 1)) return {};
    set_offset(e.position + 1);
  }
  return {};
}

Result<int64_t> PseudoDirFile::Seek(const VfsContext&, int64_t to, int whence) {
  if (whence == SEEK_CUR) {
    if (__builtin_add_overflow(to, offset(), &to)) return kEINVAL;
  } else if (whence != SEEK_SET) {
    return kEINVAL;
  }
  if (to < 0) return kEINVAL;
  set_offset(to);
  return to;
}

}  // namespace moat
