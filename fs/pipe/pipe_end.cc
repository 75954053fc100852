// File descriptions of pipes, and how they are made: pipe(2) and opening a FIFO.
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include "fs/pipe/pipe.h"
#include "fs/vfs/special_file.h"
#include "fs/vfs/vfs.h"
#include "platform/usermem/user_ptr.h"

namespace moat {
namespace {

class PipeFs final : public FileSystem {
 public:
  PipeFs() : FileSystem("pipefs") {}
  RefPtr<Inode> root() override { return nullptr; }
  Result<FsStat> StatFs() override {
    FsStat s;
    s.type = PIPEFS_MAGIC;
    return s;
  }
};

class PipeInode final : public Inode {
 public:
  PipeInode(FileSystem& fs, Kuid uid, Kgid gid)
      : Inode(fs, S_IFIFO, fs.NextIno()), created_(RealtimeNow()), uid_(uid), gid_(gid) {}
  Result<Kstat> GetAttr() override {
    Kstat s;
    s.ino = ino();
    s.mode = S_IFIFO | mode_.load(std::memory_order_relaxed);
    s.uid = uid_.load(std::memory_order_relaxed);
    s.gid = gid_.load(std::memory_order_relaxed);
    s.dev = fs().device();
    s.atime = s.mtime = s.ctime = created_;
    return s;
  }
  Result<void> SetAttr(const VfsContext&, const AttrChange& change) override {
    if (change.mode) mode_ = *change.mode & 07777;
    if (change.uid) uid_ = *change.uid;
    if (change.gid) gid_ = *change.gid;
    return {};
  }
  // /proc/<pid>/fd/N of a pipe opens it again, whether or not the other end is still there.
  Result<RefPtr<File>> Open(const VfsContext&, const VfsPath& path, OpenFlags flags) override {
    RefPtr<Pipe> pipe(static_cast<Pipe*>(attachment(Slot::kPipe).get()));
    return MakeRef<PipeEnd>(path, flags, std::move(pipe), /*anonymous=*/true);
  }

 private:
  const Nanos created_;
  std::atomic<uint32_t> mode_{0600};
  std::atomic<Kuid> uid_;
  std::atomic<Kgid> gid_;
};

}  // namespace

const int PipeEnd::kPacketFlag = O_DIRECT;

PipeEnd::PipeEnd(VfsPath path, OpenFlags flags, RefPtr<Pipe> pipe, bool anonymous)
    : File(std::move(path), flags), pipe_(std::move(pipe)), anonymous_(anonymous) {
  peer_opens_at_open_ = readable() ? pipe_->writer_opens() : pipe_->reader_opens();
  if (readable()) pipe_->AddReader();
  if (writable()) pipe_->AddWriter();
}

PipeEnd::~PipeEnd() {
  if (readable()) pipe_->DropReader();
  if (writable()) pipe_->DropWriter();
}

bool PipeEnd::OpenComplete() const {
  if (anonymous_ || nonblocking() || (readable() && writable())) return true;
  // Either the peer is there, or it came (and perhaps went) while we waited.
  if (readable()) return pipe_->HasWriters() || pipe_->writer_opens() != peer_opens_at_open_;
  return pipe_->HasReaders() || pipe_->reader_opens() != peer_opens_at_open_;
}

EventMask PipeEnd::Poll(EventMask interest) {
  return pipe_->Poll(readable(), writable()) & (interest | EPOLLERR | EPOLLHUP);
}

Result<int64_t> PipeEnd::Ioctl(const VfsContext&, GuestMemory& memory, uint32_t cmd, uint64_t arg) {
  if (cmd != FIONREAD) return kENOTTY;
  TRY(UserOut<int>(arg).Write(memory, static_cast<int>(pipe_->Available())));
  return 0;
}

PipePair CreatePipe(int flags, Kuid uid, Kgid gid) {
  static PipeFs* const fs = new PipeFs;
  RefPtr<Inode> inode = MakeRef<PipeInode>(*fs, uid, gid);
  RefPtr<Pipe> pipe = MakeRef<Pipe>();
  inode->AttachOnce(Inode::Slot::kPipe, pipe);
  VfsPath path = vfs::AnonymousPath(inode, fmt::format("pipe:[{}]", inode->ino()));
  int status = flags & (O_NONBLOCK | O_DIRECT);
  return {MakeRef<PipeEnd>(path, OpenFlags{O_RDONLY | (status & O_NONBLOCK)}, pipe, true),
          MakeRef<PipeEnd>(path, OpenFlags{O_WRONLY | status}, pipe, true)};
}

Result<RefPtr<File>> OpenFifo(const VfsContext&, const VfsPath& path, OpenFlags flags) {
  // The pipe stays attached for the inode's life; the last end to close empties it.
  Inode& inode = *path.dentry->inode_ptr();
  RefPtr<Inode::Attachment> attached = inode.attachment(Inode::Slot::kPipe);
  if (!attached) attached = inode.AttachOnce(Inode::Slot::kPipe, MakeRef<Pipe>());
  RefPtr<Pipe> pipe(static_cast<Pipe*>(attached.get()));
  if (flags.writable() && !flags.readable() && (flags.flags & O_NONBLOCK) && !pipe->HasReaders()) return kENXIO;
  // An anonymous pipe that is opened again through /proc/<pid>/fd waits for nobody.
  return MakeRef<PipeEnd>(path, flags, std::move(pipe), inode.fs().type_name() == "pipefs");
}

void RegisterFifos() { vfs::SetFifoOpener(OpenFifo); }

}  // namespace moat
