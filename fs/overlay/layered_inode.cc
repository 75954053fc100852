#include "fs/overlay/layered_inode.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstring>

#include "fs/overlay/overlay_directory.h"
#include "fs/overlay/overlay_file.h"
#include "fs/overlay/overlay_mappable.h"
#include "fs/vfs/dentry.h"
#include "fs/vfs/mount.h"
#include "fs/vfs/posix_acl.h"

namespace moat {
namespace {

constexpr size_t kCopyBuffer = 128 << 10;

bool IsZero(const std::byte* p, size_t n) { return p[0] == std::byte{0} && memcmp(p, p + 1, n - 1) == 0; }

// Collects what a layer's directory lists.
class Collector final : public DirEntrySink {
 public:
  explicit Collector(std::vector<LayerEntry>& out) : out_(out) {}
  bool Add(std::string_view name, uint64_t ino, uint8_t type, int64_t) override {
    if (name != "." && name != "..") out_.push_back({std::string(name), ino, type});
    return true;
  }

 private:
  std::vector<LayerEntry>& out_;
};

}  // namespace

VfsPath InnerPath(Inode& inode) { return VfsPath(nullptr, Dentry::CreateAnonymous(RefPtr<Inode>(&inode), "")); }

LayeredInode::LayeredInode(FileSystem& fs, uint32_t type, uint64_t ino, RefPtr<Inode> upper,
                           std::vector<RefPtr<Inode>> lowers, LockRank dir_rank)
    : Inode(fs, type, ino, dir_rank), lowers_(std::move(lowers)), upper_raw_(upper.Leak()) {}

LayeredInode::~LayeredInode() {
  if (Inode* u = upper()) u->Unref();
}

Result<RefPtr<File>> LayeredInode::Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) {
  if (is_dir()) return RefPtr<File>(MakeRef<OverlayDirectory>(RefPtr<LayeredInode>(this), path, flags));
  if (type() != S_IFREG) return kENXIO;
  if (flags.writable()) TRY(CopyUp(ctx));
  RefPtr<OverlayFile> file = MakeRef<OverlayFile>(RefPtr<LayeredInode>(this), path, flags);
  TRY(file->OpenInner(ctx));
  return RefPtr<File>(file);
}

Result<RefPtr<Mappable>> LayeredInode::GetMappable() {
  if (type() != S_IFREG) return kENODEV;
  RefPtr<OverlayMappable> made = MakeRef<OverlayMappable>(RefPtr<LayeredInode>(this), TRY(layer().GetMappable()));
  {
    MutexLock lock(mappable_mu_);
    if (mappable_ != nullptr && mappable_->TryAddRef()) return RefPtr<Mappable>(AdoptRef<Mappable>(mappable_));
    mappable_ = made.get();
  }
  // A copy-up that ended before the mappable could be found here did not tell it.
  made->SwitchTo(TRY(layer().GetMappable()));
  return RefPtr<Mappable>(made);
}

Result<RefPtr<const PosixAcl>> LayeredInode::GetAcl(AclKind kind) {
  Result<RefPtr<const PosixAcl>> acl = layer().GetAcl(kind);
  if (!acl.ok() && acl.error() == kEOPNOTSUPP) return RefPtr<const PosixAcl>();
  return acl;
}

Result<void> LayeredInode::SetAcl(const VfsContext& ctx, AclKind kind, RefPtr<const PosixAcl> acl) {
  TRY(CopyUp(ctx));
  return upper()->SetAcl(ctx, kind, std::move(acl));
}

Result<void> LayeredInode::MoveMappings() {
  RefPtr<OverlayMappable> mappable;
  {
    MutexLock lock(mappable_mu_);
    if (mappable_ != nullptr && mappable_->TryAddRef()) mappable = AdoptRef(mappable_);
  }
  if (mappable) mappable->SwitchTo(TRY(upper()->GetMappable()));
  return {};
}

Result<std::vector<LayerEntry>> ListLayer(const VfsContext& ctx, Inode& dir) {
  RefPtr<File> file = TRY(dir.Open(ctx, InnerPath(dir), OpenFlags{O_RDONLY | O_DIRECTORY}));
  std::vector<LayerEntry> entries;
  Collector collector(entries);
  // Each call may stop at a piece's end; nothing new means the end of the directory.
  for (size_t before = ~size_t{0}; before != entries.size();) {
    before = entries.size();
    TRY(file->ReadDir(ctx, collector));
  }
  return entries;
}

Result<void> CopyFileData(const VfsContext& ctx, Inode& from, Inode& to, uint64_t limit) {
  if (limit == 0) return {};
  RefPtr<File> source = TRY(from.Open(ctx, InnerPath(from), OpenFlags{O_RDONLY}));
  RefPtr<File> dest = TRY(to.Open(ctx, InnerPath(to), OpenFlags{O_WRONLY}));
  Kstat st = TRY(from.GetAttr());
  bool sparse = st.blocks * 512 < st.size;
  auto buffer = std::make_unique<std::byte[]>(kCopyBuffer);
  uint64_t at = 0;
  while (at < limit) {
    uint64_t end = limit;
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
  if (TRY(to.GetAttr()).size < limit) {
    AttrChange change;
    change.size = limit;
    TRY(to.SetAttr(ctx, change));
  }
  return {};
}

Result<void> CopyXattrs(const VfsContext& ctx, Inode& from, Inode& to,
                        const std::function<bool(std::string_view)>& skip) {
  for (AclKind kind : {AclKind::kAccess, AclKind::kDefault}) {
    Result<RefPtr<const PosixAcl>> acl = from.GetAcl(kind);
    if (!acl.ok() || !*acl) continue;
    Result<void> set = to.SetAcl(ctx, kind, *acl);
    if (!set.ok() && set.error() != kEOPNOTSUPP) return set;
  }
  Result<std::vector<std::string>> names = from.ListXattr(ctx);
  if (!names.ok()) return names.error() == kEOPNOTSUPP ? Result<void>() : Result<void>(names.error());
  for (const std::string& name : *names) {
    if (AclKindOf(name) || (skip && skip(name))) continue;
    Result<std::string> value = from.GetXattr(ctx, name);
    if (!value.ok()) continue;  // not readable for us: so not for the guest either
    Result<void> set = to.SetXattr(ctx, name, *value, 0);
    // As Linux: what the upper does not store is lost, an error of the store is not.
    if (!set.ok() && set.error() != kEOPNOTSUPP && set.error() != kEPERM) return set.error();
  }
  return {};
}

}  // namespace moat
