#include "fs/vfs/file.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <limits>
#include <memory>

#include "fs/vfs/file_locks.h"
#include "fs/vfs/mount.h"
#include "fs/vfs/notify.h"
#include "fs/vfs/permissions.h"

namespace moat {
namespace {

// Flags that only matter while a file is opened (Linux keeps them out of f_flags).
constexpr int kOpenOnly = O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC;
constexpr int kSettable = O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME | O_ASYNC;
constexpr size_t kAppendChunk = 64 << 10;

}  // namespace

File::File(VfsPath path, OpenFlags flags) : path_(std::move(path)), flags_(flags.flags & ~kOpenOnly) {
  if (path_.dentry) {
    Inode* i = path_.dentry->inode_ptr();
    regular_ = i != nullptr && i->type() == S_IFREG;
  }
}

File::~File() {
  Inode* i = path_.dentry ? path_.dentry->inode_ptr() : nullptr;
  if (i == nullptr) return;
  if (opened_) i->opens.fetch_sub(1, std::memory_order_relaxed);
  if (opened_ && notify::AnyWatch()) notify::EmitOnPath(path_, writable() ? IN_CLOSE_WRITE : IN_CLOSE_NOWRITE);
  if (FileLockList* locks = i->locks_if_any()) locks->ReleaseDescription(this);
  if (holds_write_access_) i->PutWriteAccess();
}

void File::MarkOpened(bool holds_write_access, bool created) {
  opened_ = true;
  path_.dentry->inode_ptr()->opens.fetch_add(1, std::memory_order_relaxed);
  holds_write_access_ = holds_write_access;
  created_ = created;
}

RefPtr<Inode> File::inode() const { return path_.dentry ? path_.dentry->inode() : RefPtr<Inode>(); }

bool File::nonblocking() const { return (flags() & O_NONBLOCK) != 0; }

Result<void> File::SetStatusFlags(int flags) {
  int old = this->flags();
  // O_NOATIME is for the owner: the caller of F_SETFL checks that.
  while (!flags_.compare_exchange_weak(old, (old & ~kSettable) | (flags & kSettable), std::memory_order_relaxed)) {
  }
  return {};
}

Result<size_t> File::PRead(const VfsContext&, IoDest&, int64_t) {
  RefPtr<Inode> i = inode();
  return i && i->is_dir() ? kEISDIR : kESPIPE;
}
Result<size_t> File::PWrite(const VfsContext&, IoSource&, int64_t) { return kESPIPE; }

// The range is claimed by moving the offset first, so that readers of a shared description get pieces of their own;
// a short transfer gives the rest back unless somebody claimed after us.
Result<size_t> File::Read(const VfsContext& ctx, IoDest& dst) {
  int64_t want = static_cast<int64_t>(dst.remaining());
  if (regular_) {
    Result<Kstat> st = GetAttr();
    if (st.ok()) {
      int64_t left = std::max<int64_t>(0, static_cast<int64_t>(st->size) - offset());
      // Generated files say 0 and have content: claim nothing for them.
      want = st->size == 0 ? 0 : std::min(want, left);
    }
  } else {
    want = 0;
  }
  int64_t from;
  {
    MutexLock lock(offset_mu_);
    from = offset();
    set_offset(from + want);
  }
  Result<size_t> n = PRead(ctx, dst, from);
  int64_t moved = n.ok() ? static_cast<int64_t>(*n) : 0;
  if (moved != want) {
    MutexLock lock(offset_mu_);
    if (offset() == from + want) set_offset(from + moved);
  }
  if (!n.ok() && n.error() == kESPIPE) return kEINVAL;  // see Write
  return n;
}

Result<void> File::LimitWrite(const VfsContext& ctx, IoSource& src, int64_t offset) {
  uint64_t limit = std::min(ctx.file_size_limit, static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
  if (src.remaining() == 0) return {};
  if (static_cast<uint64_t>(offset) >= limit) return kEFBIG;
  src.Truncate(limit - static_cast<uint64_t>(offset));
  return {};
}

Result<size_t> File::Append(const VfsContext& ctx, IoSource& src, int64_t& position) {
  RefPtr<Inode> i = inode();
  size_t done = 0;
  auto buffer = std::make_unique_for_overwrite<std::byte[]>(std::min(src.remaining(), kAppendChunk));
  while (src.remaining() != 0) {
    // Out of guest memory before the lock is taken.
    Result<size_t> taken = src.Take(buffer.get(), std::min(src.remaining(), kAppendChunk));
    if (!taken.ok()) {
      if (done == 0) return taken.error();
      break;
    }
    size_t n = *taken;
    BufferIoSource chunk(buffer.get(), n);
    size_t written = 0;
    Errno error = Errno::kOK;
    {
      MutexLock lock(i->append_mutex());
      position = static_cast<int64_t>(TRY(i->GetAttr()).size);
      error = LimitWrite(ctx, chunk, position).error();
      if (error == Errno::kOK) {
        Result<size_t> r = PWrite(ctx, chunk, position);
        error = r.error();
        written = r.value_or(0);
      }
    }
    position += static_cast<int64_t>(written);
    done += written;
    if (written < n) {
      src.Rewind(n - written);
      if (done == 0 && error != Errno::kOK) return error;
      break;
    }
  }
  return done;
}

Result<size_t> File::Write(const VfsContext& ctx, IoSource& src) {
  if (!regular_) {
    int64_t from = offset();
    Result<size_t> n = PWrite(ctx, src, from);
    if (n.ok()) set_offset(from + static_cast<int64_t>(*n));
    // A file with neither read nor write of its own (epoll, a timerfd's write): read(2) and write(2) say EINVAL.
    if (!n.ok() && n.error() == kESPIPE) return kEINVAL;
    return n;
  }
  TRY(RemovePrivileges(ctx, *path_.dentry->inode_ptr()));
  if ((flags() & O_APPEND) != 0) {
    int64_t position = offset();
    size_t n = TRY(Append(ctx, src, position));
    MutexLock lock(offset_mu_);
    set_offset(position);
    return n;
  }
  int64_t from, want;
  {
    MutexLock lock(offset_mu_);
    from = offset();
    TRY(LimitWrite(ctx, src, from));
    want = static_cast<int64_t>(src.remaining());
    set_offset(from + want);
  }
  Result<size_t> n = PWrite(ctx, src, from);
  int64_t moved = n.ok() ? static_cast<int64_t>(*n) : 0;
  if (moved != want) {
    MutexLock lock(offset_mu_);
    if (offset() == from + want) set_offset(from + moved);
  }
  if (!n.ok() && n.error() == kESPIPE) return kEINVAL;  // see Write
  return n;
}

Result<size_t> File::WriteAt(const VfsContext& ctx, IoSource& src, int64_t offset) {
  if (!regular_) return PWrite(ctx, src, offset);
  TRY(RemovePrivileges(ctx, *path_.dentry->inode_ptr()));
  if ((flags() & O_APPEND) != 0) return Append(ctx, src, offset);
  TRY(LimitWrite(ctx, src, offset));
  return PWrite(ctx, src, offset);
}

Result<int64_t> File::Seek(const VfsContext&, int64_t, int) { return kESPIPE; }

Result<int64_t> File::SeekWithin(int64_t offset, int whence, uint64_t size) {
  MutexLock lock(offset_mu_);
  int64_t base = 0;
  int64_t end = static_cast<int64_t>(size);
  switch (whence) {
    case SEEK_SET:
      break;
    case SEEK_CUR:
      base = this->offset();
      break;
    case SEEK_END:
      base = end;
      break;
    case SEEK_DATA:
    case SEEK_HOLE:
      if (offset < 0 || offset >= end) return kENXIO;
      if (whence == SEEK_HOLE) offset = end;
      break;
    default:
      return kEINVAL;
  }
  int64_t to;
  if (__builtin_add_overflow(base, offset, &to)) return kEINVAL;
  if (to < 0) return kEINVAL;
  set_offset(to);
  return to;
}

Result<void> File::ReadDir(const VfsContext&, DirEntrySink&) { return kENOTDIR; }
Result<void> File::Allocate(const VfsContext&, int, int64_t, int64_t) {
  RefPtr<Inode> i = inode();
  if (i && i->type() == S_IFIFO) return kESPIPE;
  if (i && i->is_dir()) return kEISDIR;
  return i && i->type() == S_IFREG ? kEOPNOTSUPP : kENODEV;
}
Result<void> File::Sync(bool) {
  RefPtr<Inode> i = inode();
  // Pipes, sockets and character devices have nothing to write back.
  return i && (i->type() == S_IFREG || i->is_dir() || i->type() == S_IFBLK) ? Result<void>() : kEINVAL;
}
Result<void> File::Flush(const VfsContext& ctx) {
  if (!path_.dentry) return {};
  Inode* i = path_.dentry->inode_ptr();
  if (i == nullptr) return {};
  if (FileLockList* locks = i->locks_if_any()) locks->ReleaseProcess(ctx.pid);
  return {};
}
Result<int64_t> File::Ioctl(const VfsContext&, GuestMemory&, uint32_t, uint64_t) { return kENOTTY; }
Result<RefPtr<Mappable>> File::GetMappable() {
  RefPtr<Inode> i = inode();
  if (!i) return kENODEV;
  return i->GetMappable();
}
EventMask File::Poll(EventMask interest) { return interest & (EPOLLIN | EPOLLOUT | EPOLLRDNORM | EPOLLWRNORM); }
Result<Kstat> File::GetAttr() {
  RefPtr<Inode> i = inode();
  if (!i) return kEBADF;
  Kstat st = TRY(i->GetAttr());
  if (path_.mount) {
    st.mount_id = path_.mount->id();
    st.mount_root = path_.dentry == path_.mount->root();
  }
  return st;
}

}  // namespace moat
