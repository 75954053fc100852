#include "fs/hostfs/host_stdio_inode.h"

#include <fcntl.h>

#include "fs/hostfs/host_stdio_file.h"
#include "fs/hostfs/host_tty.h"
#include "platform/fiber/host_poller.h"

namespace moat {
namespace {

class StdioMappable final : public Mappable {
 public:
  explicit StdioMappable(RefPtr<HostStdioInode> inode) : inode_(std::move(inode)) {}

  Result<HostPages> Translate(uint64_t offset, uint64_t length, bool write) override {
    uint64_t size = TRY(inode_->GetAttr()).size;
    bool writable = inode_->access_mode() == O_RDWR;
    if (write && !writable) return kEACCES;
    if (offset >= size) return kENXIO;
    uint64_t end;
    if (__builtin_add_overflow(offset, length, &end)) end = ~uint64_t{0};
    HostPages pages;
    pages.fd = inode_->fd();
    pages.range = {offset, std::min(end, PageCeil(size))};
    pages.writable = writable;
    return pages;
  }
  // The host takes truncated pages out of every mapping by itself.
  Result<void> AddMapping(MappingSpace&, GuestAddr, GuestAddr, uint64_t, bool) override { return {}; }
  void RemoveMapping(MappingSpace&, GuestAddr, GuestAddr, uint64_t, bool) override {}
  Identity identity() const override {
    return {inode_->fs().device().major, inode_->fs().device().minor, inode_->ino()};
  }
  Result<void> Sync(uint64_t, uint64_t) override { return inode_->SyncShared(true); }

 private:
  const RefPtr<HostStdioInode> inode_;
};

}  // namespace

HostStdioFs& HostStdioFs::Get() {
  static HostStdioFs* fs = new HostStdioFs;
  return *fs;
}

HostStdioInode::HostStdioInode(ScopedFd fd, Kind kind, const Kstat& st, int access_mode, gofer::Handle handle,
                               RefPtr<GoferClient> gofer, RefPtr<Tty> tty)
    : Inode(HostStdioFs::Get(), st.mode, st.ino),
      fd_(std::move(fd)),
      kind_(kind),
      access_mode_(access_mode),
      handle_(handle),
      gofer_(std::move(gofer)),
      tty_(std::move(tty)),
      attr_(st) {
  // EPERM: always ready, as /dev/null.
  if (kind != Kind::kRegular) polled_ = HostPoller::Get().Add(fd_.get(), wait_queue_).ok();
}

HostStdioInode::~HostStdioInode() {
  if (polled_) HostPoller::Get().Remove(fd_.get());
  if (gofer_) gofer_->Forget(handle_);
  if (tty_) static_cast<HostTty*>(tty_.get())->InodeGone(this);
}

Result<Kstat> HostStdioInode::GetAttr() {
  Kstat st;
  {
    MutexLock lock(mu_);
    st = attr_;
  }
  if (kind_ != Kind::kRegular || !gofer_) return st;
  gofer::Attr a = TRY(gofer_->StdioGetAttr(handle_));
  st.size = a.size;
  st.blocks = a.blocks;
  st.nlink = a.nlink;
  st.atime = a.atime;
  st.mtime = a.mtime;
  st.ctime = a.ctime;
  return st;
}

Result<void> HostStdioInode::SetAttr(const VfsContext&, const AttrChange& change) {
  if (change.size && kind_ == Kind::kRegular) {
    if (access_mode_ == O_RDONLY || !gofer_) return kEINVAL;
    TRY(gofer_->StdioTruncate(handle_, *change.size));
  }
  MutexLock lock(mu_);
  if (change.mode) attr_.mode = (attr_.mode & S_IFMT) | (*change.mode & 07777);
  if (change.uid) attr_.uid = *change.uid;
  if (change.gid) attr_.gid = *change.gid;
  return {};
}

Result<RefPtr<File>> HostStdioInode::Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) {
  if ((flags.readable() && access_mode_ == O_WRONLY) || (flags.writable() && access_mode_ == O_RDONLY)) return kEACCES;
  RefPtr<HostStdioInode> self(this);
  switch (kind_) {
    case Kind::kRegular:
      return RefPtr<File>(MakeRef<HostStdioReopenedFile>(self, path, flags));
    case Kind::kSocket:
      return kENXIO;
    case Kind::kTerminal:
      return tty_->OpenAgain(ctx, path, flags);
    case Kind::kStream:
      break;
  }
  return RefPtr<File>(MakeRef<HostStream>(self, path, flags));
}

Result<RefPtr<Mappable>> HostStdioInode::GetMappable() {
  // mmap(2) wants a file that can be read.
  if (kind_ != Kind::kRegular || access_mode_ == O_WRONLY) return kENODEV;
  return RefPtr<Mappable>(MakeRef<StdioMappable>(RefPtr<HostStdioInode>(this)));
}

Result<int64_t> HostStdioInode::SeekShared(int64_t offset, int whence) {
  if (kind_ != Kind::kRegular) return kESPIPE;
  if (!gofer_) return kEINVAL;
  return gofer_->StdioSeek(handle_, offset, whence);
}

Result<void> HostStdioInode::SyncShared(bool data_only) {
  if (kind_ != Kind::kRegular || !gofer_) return kEINVAL;
  return gofer_->StdioSync(handle_, data_only);
}

}  // namespace moat
