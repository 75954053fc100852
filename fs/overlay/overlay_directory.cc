#include "fs/overlay/overlay_directory.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <functional>
#include <unordered_set>

#include "fs/vfs/dentry.h"

namespace moat {
namespace {

// Collects what a layer's directory lists.
class Collector final : public DirEntrySink {
 public:
  explicit Collector(std::vector<OverlayDirectory::Entry>& out) : out_(out) {}
  bool Add(std::string_view name, uint64_t ino, uint8_t type, int64_t) override {
    if (name != "." && name != "..") out_.push_back({std::string(name), ino, type});
    return true;
  }

 private:
  std::vector<OverlayDirectory::Entry>& out_;
};

Result<std::vector<OverlayDirectory::Entry>> ListLayer(const VfsContext& ctx, Inode& dir) {
  RefPtr<File> file = TRY(dir.Open(ctx, InnerPath(dir), OpenFlags{O_RDONLY | O_DIRECTORY}));
  std::vector<OverlayDirectory::Entry> entries;
  Collector collector(entries);
  // Each call may stop at a piece's end; nothing new means the end of the directory.
  for (size_t before = ~size_t{0}; before != entries.size();) {
    before = entries.size();
    TRY(file->ReadDir(ctx, collector));
  }
  return entries;
}

}  // namespace

Result<std::vector<OverlayDirectory::Entry>> OverlayDirectory::Merge(const VfsContext& ctx, OverlayInode& dir) {
  OverlayFs& fs = dir.overlay();
  std::vector<Entry> merged;
  bool several = dir.lowers().size() + (dir.upper() != nullptr ? 1 : 0) > 1;
  std::unordered_set<std::string> seen;
  if (Inode* upper = dir.upper()) {
    for (Entry& e : TRY(ListLayer(ctx, *upper))) {
      e.ino = fs.InoOfUpperEntry(e.ino);
      if (several) seen.insert(e.name);
      merged.push_back(std::move(e));
    }
  }
  for (size_t i = 0; i < dir.lowers().size(); ++i) {
    Inode& lower = *dir.lowers()[i];
    bool last = i + 1 == dir.lowers().size();
    for (Entry& e : TRY(ListLayer(ctx, lower))) {
      if (several && !seen.insert(e.name).second) continue;
      if (dir.IsWhiteout(e.name)) continue;
      if (!last && e.type == DT_CHR) {
        // A lower layer's whiteout is a character device 0/0: its name stays seen and hides those below.
        Result<RefPtr<Inode>> inode = lower.Lookup(ctx, e.name);
        Result<Kstat> st = inode.ok() ? (*inode)->GetAttr() : Result<Kstat>(inode.error());
        if (st.ok() && st->rdev == DeviceId{0, 0}) continue;
      }
      e.ino = fs.LowerIno(fs.LayerOf(lower), e.ino);
      merged.push_back(std::move(e));
    }
  }
  return merged;
}

Result<void> OverlayDirectory::ReadDir(const VfsContext& ctx, DirEntrySink& sink) {
  std::shared_ptr<const Listing> listing;
  uint64_t at = static_cast<uint64_t>(offset());
  {
    MutexLock lock(mu_);
    if (at != 0) listing = listing_;
  }
  if (!listing) {
    listing = std::make_shared<const Listing>(TRY(Merge(ctx, *inode_)));
    MutexLock lock(mu_);
    listing_ = listing;
  }
  // Position n is before entry n: "." is 0, ".." is 1.
  for (; at < listing->size() + 2; ++at) {
    bool room;
    int64_t next = static_cast<int64_t>(at + 1);
    if (at == 0) {
      room = sink.Add(".", inode_->ino(), DT_DIR, next);
    } else if (at == 1) {
      RefPtr<Dentry> parent = path().dentry ? path().dentry->parent() : nullptr;
      RefPtr<Inode> up = parent ? parent->inode() : nullptr;
      room = sink.Add("..", up ? up->ino() : inode_->ino(), DT_DIR, next);
    } else {
      const Entry& e = (*listing)[at - 2];
      room = sink.Add(e.name, e.ino, e.type, next);
    }
    if (!room) return {};
    set_offset(next);
  }
  return {};
}

Result<int64_t> OverlayDirectory::Seek(const VfsContext&, int64_t offset, int whence) {
  if (whence == SEEK_CUR) {
    if (__builtin_add_overflow(offset, this->offset(), &offset)) return kEOVERFLOW;
  } else if (whence != SEEK_SET) {
    return kEINVAL;
  }
  if (offset < 0) return kEINVAL;
  set_offset(offset);
  return offset;
}

}  // namespace moat
