// File: a file description (POSIX: open file description), what file descriptors refer to.
// Derive for each kind of file; the base holds path, flags and offset.
//
// Contract for implementers: never block: answer kEAGAIN when the operation would have to wait, and Notify
// wait_queue() when that changes; BlockingOp in the sentry waits, if the file is in blocking mode.
// Read and Write run concurrently; the VFS serialises those that use the shared offset of a regular file.
#ifndef MOAT_FS_VFS_FILE_H_
#define MOAT_FS_VFS_FILE_H_

#include <atomic>
#include <string>
#include <string_view>
#include <vector>

#include "fs/vfs/inode.h"
#include "platform/usermem/io.h"

namespace moat {

class Tty;  // tty_job_control.h

// Receives directory entries; returns false when it has no room (the entry is not consumed).
class DirEntrySink {
 public:
  virtual ~DirEntrySink() = default;
  // `type` is DT_*; `next_offset` is the position after this entry (d_off).
  virtual bool Add(std::string_view name, uint64_t ino, uint8_t type, int64_t next_offset) = 0;
};

// Told when the last reference to a file goes: an epoll instance forgets the files that it watches (epoll(7), "closing
// a file descriptor"). Registered with File::AddObserver; the file keeps a reference until then.
class FileObserver : public RefCounted {
 public:
  // The file is about to be destroyed: its wait queue still exists, but no reference can be taken any more. Called
  // without locks of the file.
  virtual void OnFileEnd(File& file) = 0;
};

class File : public RefCounted, public Pollable {
 public:
  File(VfsPath path, OpenFlags flags);
  ~File() override;

  const VfsPath& path() const { return path_; }
  // Null for files without an inode (none of ours: pipes, sockets and anon files have pseudo inodes).
  RefPtr<Inode> inode() const;
  // Access mode and creation-time flags | current status flags (O_APPEND, O_NONBLOCK, O_DIRECT, O_NOATIME, O_ASYNC).
  int flags() const { return flags_.load(std::memory_order_relaxed); }
  // fcntl(F_SETFL): changes the status flags that may change. Override to refuse some.
  virtual Result<void> SetStatusFlags(int flags);
  bool readable() const { return OpenFlags{flags()}.readable(); }
  bool writable() const { return OpenFlags{flags()}.writable(); }
  bool nonblocking() const;

  // --- data. `offset` >= 0. kESPIPE for files that cannot seek; kEISDIR for directories. ---
  virtual Result<size_t> PRead(const VfsContext& ctx, IoDest& dst, int64_t offset);
  virtual Result<size_t> PWrite(const VfsContext& ctx, IoSource& src, int64_t offset);
  // Streams and files with an offset. The defaults use PRead/PWrite with the shared offset (kFile lock, O_APPEND).
  // The offset is claimed before and stored after the transfer, so no lock spans the guest copy.
  virtual Result<size_t> Read(const VfsContext& ctx, IoDest& dst);
  virtual Result<size_t> Write(const VfsContext& ctx, IoSource& src);
  // pwrite(2): PWrite with what every write to a regular file needs: RLIMIT_FSIZE (kEFBIG), S_ISUID dropped, and
  // O_APPEND, which wins over `offset` as on Linux.
  Result<size_t> WriteAt(const VfsContext& ctx, IoSource& src, int64_t offset);
  // SEEK_SET, SEEK_CUR, SEEK_END, SEEK_DATA, SEEK_HOLE. Default kESPIPE; regular files use SeekWithin.
  virtual Result<int64_t> Seek(const VfsContext& ctx, int64_t offset, int whence);
  // Where the next data (SEEK_DATA) or hole (SEEK_HOLE) at or after `offset` begins, as Seek, but without moving the
  // position and without a lock: for copies inside of the kernel. kEOPNOTSUPP: not known.
  virtual Result<int64_t> FindExtent(const VfsContext& ctx, int64_t offset, int whence) { return kEOPNOTSUPP; }
  virtual Result<void> ReadDir(const VfsContext& ctx, DirEntrySink& sink);  // from the current position; kENOTDIR
  virtual Result<void> Allocate(const VfsContext& ctx, int mode, int64_t offset, int64_t length);  // fallocate(2)
  virtual Result<void> Sync(bool data_only);
  // The rest of open(2) that may have to wait (a FIFO's other side): kEAGAIN until wait_queue() says more.
  virtual Result<void> FinishOpen(const VfsContext& ctx) { return {}; }
  virtual Result<void> Flush(const VfsContext& ctx);  // on each close(2) of a descriptor
  // ioctl(2): `memory` is the caller's; `arg` a value or a guest address. Default kENOTTY.
  virtual Result<int64_t> Ioctl(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg);
  // ioctls that give the caller a new descriptor (TIOCGPTPEER): the file to install. Default kENOTTY.
  virtual Result<RefPtr<File>> OpenPeer(const VfsContext& ctx, int flags) { return kENOTTY; }
  virtual Result<RefPtr<Mappable>> GetMappable();  // default: the inode's, by type

  // --- Pollable: always readable and writable unless overridden ---
  EventMask Poll(EventMask interest) override;
  WaitQueue& wait_queue() override { return wait_queue_; }

  // For /proc/<pid>/fdinfo and maps: extra lines ("eventfd-count: ..."); the path if there is no dentry name.
  virtual std::string FdInfo() const { return {}; }
  // Attributes of the opened object; anon files override through their pseudo inode.
  virtual Result<Kstat> GetAttr();

  // epoll_ctl(2) answers EPERM for files that cannot be polled: regular files and directories, unless they say so.
  virtual bool SupportsEpoll() const;

  // fcntl(2) O_ASYNC: the events of wait_queue() that are worth a signal (kAsyncInput and its like, or EPOLLIN for
  // files whose every edge is). 0: the file knows no signal-driven I/O.
  virtual EventMask AsyncEvents() const { return 0; }
  // The terminal that this is a slave of, if any: its foreground group gets the signals of O_ASYNC by default.
  virtual Tty* tty() const { return nullptr; }

  // Observers (rank kLeaf). RemoveObserver is harmless when `o` is gone already.
  void AddObserver(RefPtr<FileObserver> o);
  void RemoveObserver(FileObserver& o);
  std::vector<RefPtr<FileObserver>> Observers() const;

  // Called once by vfs::OpenPath. `holds_write_access`: Inode::PutWriteAccess is due when the file goes. `created`: by
  // this open(2), with O_CREAT.
  void MarkOpened(bool holds_write_access, bool created);
  bool created() const { return created_; }

  int64_t offset() const { return offset_.load(std::memory_order_relaxed); }
  // fcntl(F_SETOWN, F_SETSIG, F_SETLEASE): kept here as plain data; the sentry interprets it
  // (sentry/kernel/async_io.h).
  struct AsyncOwner {
    int32_t type = 0, id = 0, signal = 0;
    Kuid uid = 0, euid = 0;  // of who named the owner
    int lease_fd = -1;       // the descriptor that F_SETLEASE was called with
  };
  AsyncOwner async_owner() const;
  void set_async_owner(const AsyncOwner& owner);

 protected:
  // RLIMIT_FSIZE and the largest offset, before a write of `src` at `offset` to a regular file.
  static Result<void> LimitWrite(const VfsContext& ctx, IoSource& src, int64_t offset);
  // Seek for files with a size: `size` bytes, data everywhere.
  Result<int64_t> SeekWithin(int64_t offset, int whence, uint64_t size);
  void set_offset(int64_t o) { offset_.store(o, std::memory_order_relaxed); }
  Mutex& offset_mutex() { return offset_mu_; }
  // One write at the end of a regular file; `position` is then the offset behind it.
  Result<size_t> Append(const VfsContext& ctx, IoSource& src, int64_t& position);
  bool is_regular() const { return regular_; }
  // Takes leave of the observers, then destroys the file.
  void OnLastUnref() override;

 private:
  VfsPath path_;
  bool regular_ = false;
  bool opened_ = false;
  bool holds_write_access_ = false;
  bool created_ = false;
  std::atomic<int> flags_;
  std::atomic<int64_t> offset_{0};
  Mutex offset_mu_{LockRank::kFile};
  WaitQueue wait_queue_;
  mutable Mutex observers_mu_{LockRank::kLeaf};
  std::vector<RefPtr<FileObserver>> observers_ ABSL_GUARDED_BY(observers_mu_);
  AsyncOwner async_owner_ ABSL_GUARDED_BY(observers_mu_);
};

}  // namespace moat

#endif  // MOAT_FS_VFS_FILE_H_
