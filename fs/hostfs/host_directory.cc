// Directory listings. A directory of an exclusive mount is listed once and kept until a name in it changes.
#include <fcntl.h>

#include "fs/hostfs/host_file.h"
#include "fs/vfs/dentry.h"

namespace moat {
namespace {

// Larger directories are not kept: the host lists them again, a piece at a time.
constexpr size_t kMaxKeptEntries = 1 << 16;

}  // namespace

bool HostDirectory::FindIn(const Piece& piece, int64_t cookie, size_t& index) {
  if (!piece.entries) return false;
  if (cookie == piece.start) {
    index = 0;
    return !piece.entries->empty() || piece.at_end;
  }
  for (size_t i = 0; i < piece.entries->size(); ++i) {
    if ((*piece.entries)[i].next != cookie) continue;
    index = i + 1;
    // Past the last entry of an unfinished piece, the answer is in the next one.
    return index < piece.entries->size() || piece.at_end;
  }
  return false;
}

Result<HostDirectory::Piece> HostDirectory::ReadWhole() {
  uint64_t generation = inode_->generation();
  auto all = std::make_shared<HostInode::Listing>();
  Piece piece;
  int64_t cookie = 0;
  bool exact = true;
  do {
    GoferClient::Listing part = TRY(inode_->host_fs().client().Readdir(inode_->handle(), cookie));
    for (GoferClient::Entry& e : part.entries) all->push_back(std::move(e));
    if (!all->empty()) cookie = all->back().next;
    piece.at_end = part.at_end;
    exact &= part.exact;
  } while (!piece.at_end && all->size() < kMaxKeptEntries);
  piece.entries = all;
  if (piece.at_end) inode_->StoreListing(all, exact, generation);
  return piece;
}

Result<HostDirectory::Piece> HostDirectory::PieceAt(int64_t cookie, size_t& index) {
  if (cookie == 0) inode_->NoteListed();
  Piece piece;
  if (std::shared_ptr<const HostInode::Listing> kept = inode_->CachedListing()) {
    piece = {0, std::move(kept), true};
    if (FindIn(piece, cookie, index)) return piece;
  }
  // From the start, a listing is always fresh (rewinddir(3)).
  if (cookie != 0) {
    MutexLock lock(mu_);
    if (FindIn(piece_, cookie, index)) return piece_;
  }
  if (cookie == 0 && inode_->host_fs().exclusive()) {
    piece = TRY(ReadWhole());
  } else {
    GoferClient::Listing part = TRY(inode_->host_fs().client().Readdir(inode_->handle(), cookie));
    piece = {cookie, std::make_shared<const HostInode::Listing>(std::move(part.entries)), part.at_end};
  }
  index = 0;
  MutexLock lock(mu_);
  piece_ = piece;
  return piece;
}

Result<void> HostDirectory::ReadDir(const VfsContext&, DirEntrySink& sink) {
  for (;;) {
    size_t index;
    Piece piece = TRY(PieceAt(offset(), index));
    for (; index < piece.entries->size(); ++index) {
      const GoferClient::Entry& e = (*piece.entries)[index];
      uint64_t ino;
      if (e.name == ".") {
        ino = inode_->ino();
      } else if (e.name == "..") {
        RefPtr<Dentry> parent = path().dentry ? path().dentry->parent() : nullptr;
        RefPtr<Inode> up = parent ? parent->inode() : nullptr;
        ino = up ? up->ino() : inode_->ino();
      } else {
        ino = inode_->host_fs().GuestIno(e.dev_major, e.dev_minor, e.ino);
      }
      if (!sink.Add(e.name, ino, e.type, e.next)) return {};
      set_offset(e.next);
    }
    if (piece.at_end) return {};
  }
}

Result<int64_t> HostDirectory::Seek(const VfsContext&, int64_t offset, int whence) {
  if (whence == SEEK_CUR && offset == 0) return this->offset();
  if (whence != SEEK_SET || offset < 0) return kEINVAL;
  set_offset(offset);
  return offset;
}

Result<void> HostDirectory::Sync(bool data_only) {
  if (inode_->host_fs().read_only_mount()) return {};
  return inode_->host_fs().client().Sync(inode_->handle(),
                                         data_only ? GoferClient::SyncKind::kData : GoferClient::SyncKind::kFile);
}

}  // namespace moat
