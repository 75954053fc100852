// Pipes and FIFOs. A Pipe is a bounded queue of buffers of up to a page; PipeEnd is a file description of it. A FIFO
// is a Pipe attached to an inode (Inode::Slot::kPipe) while it is open.
//
// No lock is held while guest memory is touched: a reader takes buffers out (and puts the rest back if the guest
// faults), a writer fills buffers first and appends them in one step.
//
// Thread-safe. Lock: kPipe. Source: pipe(7), fifo(7), fcntl(2) F_SETPIPE_SZ, pipe(2) O_DIRECT.
#ifndef MOAT_FS_PIPE_PIPE_H_
#define MOAT_FS_PIPE_PIPE_H_

#include <deque>
#include <memory>
#include <vector>

#include "fs/vfs/file.h"

namespace moat {

class Pipe : public Inode::Attachment {
 public:
  static constexpr size_t kAtomic = 4096;        // PIPE_BUF
  static constexpr size_t kDefaultSlots = 16;    // 64 KiB
  static constexpr size_t kMaxUserSlots = 256;   // /proc/sys/fs/pipe-max-size: 1 MiB without CAP_SYS_RESOURCE
  static constexpr size_t kMaxSlots = 1u << 19;  // 2 GiB

  // One buffer: `data` holds [start, start + length). A packet is read as a whole or cut off.
  struct Buffer {
    std::unique_ptr<std::byte[]> data;
    uint32_t start = 0, length = 0;
    bool packet = false;
  };

  // kEAGAIN: empty, but there are writers. 0: the end.
  Result<size_t> Read(IoDest& dst);
  // As Read, but the bytes stay (tee(2)). `skip` bytes first.
  Result<size_t> Peek(IoDest& dst, size_t skip);
  // kEPIPE without readers; kEAGAIN when there is no room (for all of it, up to kAtomic bytes).
  Result<size_t> Write(IoSource& src, bool packets);

  // Bytes queued (FIONREAD), and bytes that a write could add now.
  size_t Available() const;
  size_t Room() const;
  size_t capacity() const;
  // F_SETPIPE_SZ: rounds up to a power of two of pages; kEBUSY below what is queued, kEPERM, kEINVAL.
  Result<uint32_t> SetCapacity(uint32_t bytes, bool privileged);

  void AddReader();
  void AddWriter();
  void DropReader();
  void DropWriter();
  bool HasReaders() const;
  bool HasWriters() const;
  // How many have ever opened each end: what a FIFO's blocking open waits for.
  uint32_t reader_opens() const;
  uint32_t writer_opens() const;
  // Readiness of an end with these access rights.
  EventMask Poll(bool readable, bool writable) const;
  WaitQueue& queue() { return queue_; }

 private:
  std::unique_ptr<std::byte[]> NewPageLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void RecycleLocked(Buffer b) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  size_t RoomLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  size_t MergeRoomLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Moves as much of `bytes` in as fits; returns how much.
  size_t AppendLocked(const std::byte* bytes, size_t n, bool packet) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Result<size_t> ReadSmall(IoDest& dst);
  // One end was closed: empties the pipe if it was the last; the kAsync bits of the notification that follows.
  EventMask AfterDropLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  mutable Mutex mu_{LockRank::kPipe};
  std::deque<Buffer> buffers_ ABSL_GUARDED_BY(mu_);
  size_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
  size_t slots_ ABSL_GUARDED_BY(mu_) = kDefaultSlots;
  std::unique_ptr<std::byte[]> spare_ ABSL_GUARDED_BY(mu_);  // saves an allocation for each page that goes through
  int readers_ ABSL_GUARDED_BY(mu_) = 0;
  int writers_ ABSL_GUARDED_BY(mu_) = 0;
  uint32_t reader_opens_ ABSL_GUARDED_BY(mu_) = 0;
  uint32_t writer_opens_ ABSL_GUARDED_BY(mu_) = 0;
  WaitQueue queue_;
};

class PipeEnd final : public File {
 public:
  // Counts itself as reader or writer by `flags`. `anonymous`: of pipe(2), whose ends never wait to be opened, not
  // even through /proc/<pid>/fd.
  PipeEnd(VfsPath path, OpenFlags flags, RefPtr<Pipe> pipe, bool anonymous);
  ~PipeEnd() override;
  // Null when `file` is no pipe.
  static PipeEnd* Of(File& file) { return dynamic_cast<PipeEnd*>(&file); }

  Pipe& pipe() { return *pipe_; }
  // A FIFO opened for one side in blocking mode: has the other side been opened? Until then open(2) waits on
  // wait_queue() for EPOLLIN | EPOLLOUT.
  bool OpenComplete() const;
  Result<void> FinishOpen(const VfsContext&) override { return OpenComplete() ? Result<void>() : kEAGAIN; }

  Result<size_t> Read(const VfsContext&, IoDest& dst) override { return pipe_->Read(dst); }
  Result<size_t> Write(const VfsContext&, IoSource& src) override {
    return pipe_->Write(src, (flags() & kPacketFlag) != 0);
  }
  Result<size_t> PRead(const VfsContext&, IoDest&, int64_t) override { return kESPIPE; }
  Result<size_t> PWrite(const VfsContext&, IoSource&, int64_t) override { return kESPIPE; }
  Result<void> Sync(bool) override { return kEINVAL; }
  Result<int64_t> Ioctl(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg) override;
  EventMask Poll(EventMask interest) override;
  WaitQueue& wait_queue() override { return pipe_->queue(); }
  bool SupportsEpoll() const override { return true; }
  EventMask AsyncEvents() const override { return (readable() ? kAsyncInput : 0) | (writable() ? kAsyncOutput : 0); }

 private:
  static const int kPacketFlag;  // O_DIRECT
  const RefPtr<Pipe> pipe_;
  const bool anonymous_;
  uint32_t peer_opens_at_open_ = 0;
};

struct PipePair {
  RefPtr<File> reader, writer;
};
// pipe2(2). `flags`: O_NONBLOCK, O_DIRECT. `uid`, `gid`: the creator's.
PipePair CreatePipe(int flags, Kuid uid, Kgid gid);

// Makes the VFS open FIFOs with OpenFifo. Once, at boot.
void RegisterFifos();

// Opens the FIFO at `path`. kENXIO: O_WRONLY | O_NONBLOCK and no reader. The file may still have to wait for its peer:
// PipeEnd::OpenComplete.
Result<RefPtr<File>> OpenFifo(const VfsContext& ctx, const VfsPath& path, OpenFlags flags);

}  // namespace moat

#endif  // MOAT_FS_PIPE_PIPE_H_
