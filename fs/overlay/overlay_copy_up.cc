// Copying an object of a lower layer into the upper.
#include <fcntl.h>
#include <unistd.h>

#include <cstring>

#include "fs/overlay/overlay_inode.h"
#include "fs/overlay/overlay_mappable.h"
#include "fs/vfs/file.h"

namespace moat {
namespace {

constexpr size_t kCopyBuffer = 128 << 10;

bool IsZero(const std::byte* p, size_t n) { return p[0] == std::byte{0} && memcmp(p, p + 1, n - 1) == 0; }

}  // namespace

Result<void> OverlayInode::CopyUp(const VfsContext& ctx, uint64_t data_limit) {
  if (upper() != nullptr) return {};
  if (!overlay().upper_fs_) return kEROFS;
  // The guest's limit on file sizes is about its own writes.
  VfsContext unlimited = ctx;
  unlimited.file_size_limit = ~uint64_t{0};
  std::string anchor = overlay().NewAnchorName();
  RefPtr<Inode> copy = TRY(MakeCopy(unlimited, anchor, data_limit));
  bool lost;
  {
    MutexLock lock(mu_);
    lost = upper() != nullptr;
    if (!lost) {
      anchor_ = anchor;
      upper_raw_.store(RefPtr<Inode>(copy).Leak(), std::memory_order_release);
    }
  }
  if (lost) {
    DiscardAnchor(unlimited, anchor, *copy);
    return {};
  }
  overlay().RegisterUpper(*this, copy->ino());
  KeepWhileNamed(unlimited);

  // Mappings of the lower file show the copy from now on.
  RefPtr<OverlayMappable> mappable;
  {
    MutexLock lock(mappable_mu_);
    if (mappable_ != nullptr && mappable_->TryAddRef()) mappable = AdoptRef(mappable_);
  }
  if (mappable) mappable->SwitchTo(TRY(copy->GetMappable()));
  return {};
}

void OverlayInode::DiscardAnchor(const VfsContext& ctx, const std::string& anchor, Inode& copy) {
  // A failure leaves a stray name in the work directory, which nobody sees.
  (void)overlay().WithWork(
      [&](Inode& work) { return copy.is_dir() ? work.Rmdir(ctx, anchor, copy) : work.Unlink(ctx, anchor, copy); });
}

Result<RefPtr<Inode>> OverlayInode::MakeCopy(const VfsContext& ctx, const std::string& anchor, uint64_t data_limit) {
  Inode& from = *lowers_[0];
  Kstat st = TRY(from.GetAttr());
  uint32_t mode = st.mode & 07777;
  std::string target;
  if (type() == S_IFLNK) target = TRY(from.Readlink(ctx));
  RefPtr<Inode> copy = TRY(overlay().WithWork([&](Inode& work) -> Result<RefPtr<Inode>> {
    switch (type()) {
      case S_IFREG:
        return work.Create(ctx, anchor, mode);
      case S_IFDIR:
        return work.Mkdir(ctx, anchor, mode);
      case S_IFLNK:
        return work.Symlink(ctx, anchor, target);
      default:
        return work.Mknod(ctx, anchor, type() | mode, st.rdev);
    }
  }));
  Result<void> filled = [&]() -> Result<void> {
    if (type() == S_IFREG) TRY(CopyData(ctx, *copy, std::min(data_limit, st.size)));
    TRY(CopyXattrs(ctx, *copy));
    AttrChange change;
    if (type() != S_IFLNK) change.mode = mode;
    change.uid = st.uid;
    change.gid = st.gid;
    change.atime = st.atime;
    change.mtime = st.mtime;
    return copy->SetAttr(ctx, change);
  }();
  if (!filled.ok()) {
    DiscardAnchor(ctx, anchor, *copy);
    return filled.error();
  }
  return copy;
}

Result<void> OverlayInode::CopyData(const VfsContext& ctx, Inode& to, uint64_t data_limit) {
  if (data_limit == 0) return {};
  Inode& from = *lowers_[0];
  RefPtr<File> source = TRY(from.Open(ctx, InnerPath(from), OpenFlags{O_RDONLY}));
  RefPtr<File> dest = TRY(to.Open(ctx, InnerPath(to), OpenFlags{O_WRONLY}));
  Kstat st = TRY(from.GetAttr());
  bool sparse = st.blocks * 512 < st.size;
  auto buffer = std::make_unique<std::byte[]>(kCopyBuffer);
  uint64_t at = 0;
  while (at < data_limit) {
    uint64_t end = data_limit;
    bool look_for_zeros = sparse;
    if (sparse) {
      Result<int64_t> data = source->FindExtent(ctx, static_cast<int64_t>(at), SEEK_DATA);
      if (!data.ok() && data.error() == kENXIO) break;  // only a hole is left
      if (data.ok()) {
        at = static_cast<uint64_t>(*data);
        Result<int64_t> hole = source->FindExtent(ctx, *data, SEEK_HOLE);
        if (hole.ok()) end = std::min(end, static_cast<uint64_t>(*hole));
        look_for_zeros = false;
      }
    }
    while (at < end) {
      BufferIoDest read_to(buffer.get(), std::min<uint64_t>(kCopyBuffer, end - at));
      size_t n = TRY(source->PRead(ctx, read_to, static_cast<int64_t>(at)));
      if (n == 0) return {};  // shorter than it said
      if (look_for_zeros && IsZero(buffer.get(), n)) {
        at += n;
        continue;
      }
      BufferIoSource write_from(buffer.get(), n);
      while (write_from.remaining() > 0) {
        size_t written = TRY(dest->PWrite(ctx, write_from, static_cast<int64_t>(at)));
        if (written == 0) return kEIO;
        at += written;
      }
    }
  }
  if (TRY(to.GetAttr()).size < data_limit) {
    AttrChange change;
    change.size = data_limit;
    TRY(to.SetAttr(ctx, change));
  }
  return {};
}

Result<void> OverlayInode::CopyXattrs(const VfsContext& ctx, Inode& to) {
  Inode& from = *lowers_[0];
  Result<std::vector<std::string>> names = from.ListXattr(ctx);
  if (!names.ok()) return names.error() == kEOPNOTSUPP ? Result<void>() : Result<void>(names.error());
  for (const std::string& name : *names) {
    Result<std::string> value = from.GetXattr(ctx, name);
    if (!value.ok()) continue;  // not readable for us: so not for the guest either
    Result<void> set = to.SetXattr(ctx, name, *value, 0);
    // As Linux: what the upper does not store is lost, an error of the store is not.
    if (!set.ok() && set.error() != kEOPNOTSUPP && set.error() != kEPERM) return set.error();
  }
  return {};
}

}  // namespace moat
