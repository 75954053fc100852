#include "sentry/procfs/task_files.h"

namespace moat::proc {
namespace {

constexpr size_t kMaxImageText = 2 << 20;  // argument and environment areas are bounded by execve(2)

std::string ReadRange(MemoryManager& mm, GuestAddr start, GuestAddr end) {
  if (end <= start) return {};
  std::string s(std::min<size_t>(end - start, kMaxImageText), '\0');
  s.resize(mm.ForceCopyIn(s.data(), start, s.size()));
  return s;
}

class MemFile final : public File {
 public:
  MemFile(VfsPath path, OpenFlags flags, RefPtr<MemoryManager> mm) : File(std::move(path), flags), mm_(std::move(mm)) {}

  Result<size_t> PRead(const VfsContext&, IoDest& dst, int64_t offset) override {
    size_t total = 0;
    char chunk[kPageSize];
    while (dst.remaining() > 0) {
      size_t want = std::min(dst.remaining(), sizeof chunk);
      size_t n = mm_->TracerCopyIn(chunk, static_cast<GuestAddr>(offset) + total, want);
      if (n == 0) break;
      Result<size_t> put = dst.Put(chunk, n);
      if (!put.ok()) return total != 0 ? Result<size_t>(total) : put;
      total += *put;
      if (*put < want) break;
    }
    if (total == 0 && dst.remaining() > 0) return kEIO;
    return total;
  }
  Result<size_t> PWrite(const VfsContext& ctx, IoSource& src, int64_t offset) override {
    size_t total = 0;
    char chunk[kPageSize];
    while (src.remaining() > 0) {
      Result<size_t> took = src.Take(chunk, std::min(src.remaining(), sizeof chunk));
      if (!took.ok()) return total != 0 ? Result<size_t>(total) : took;
      size_t n = mm_->TracerCopyOut(static_cast<GuestAddr>(offset) + total, chunk, *took);
      total += n;
      if (n < *took) {
        src.Rewind(*took - n);
        break;
      }
    }
    if (total == 0 && src.remaining() > 0) return kEIO;
    Task* caller = Caller(ctx);
    RefPtr<MemoryManager> own = caller != nullptr ? caller->mm() : nullptr;
    if (own != mm_.get()) TRY(mm_->FlushPending(nullptr));
    return total;
  }
  Result<int64_t> Seek(const VfsContext&, int64_t to, int whence) override {
    MutexLock lock(offset_mutex());
    if (whence == SEEK_CUR)
      to = static_cast<int64_t>(static_cast<uint64_t>(to) + static_cast<uint64_t>(offset()));
    else if (whence != SEEK_SET)
      return kEINVAL;
    if (to < 0) return kEOVERFLOW;
    set_offset(to);
    return to;
  }

 private:
  const RefPtr<MemoryManager> mm_;
};

// The address space as a file: that of the time of open(2), even when the process calls execve later.
class MemInode final : public TaskOwned<PseudoInode> {
 public:
  MemInode(ProcFs& fs, RefPtr<Task> task, uint64_t ino) : TaskOwned(fs, task, S_IFREG, ino, 0600) {}
  Result<RefPtr<File>> Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) override {
    TRY(CheckTaskAccess(ctx, *task_));
    RefPtr<MemoryManager> mm = task_->mm();
    if (!mm) return kESRCH;
    return RefPtr<File>(MakeRef<MemFile>(path, flags, std::move(mm)));
  }
};

}  // namespace

Result<std::string> Cmdline(ProcFs&, Task& task, const VfsContext&) {
  RefPtr<MemoryManager> mm = task.mm();
  if (!mm) return std::string();
  MmImage image = mm->image();
  std::string s = ReadRange(*mm, image.arg_start, image.arg_end);
  // setproctitle(3): when the last byte was overwritten, the text goes on into the environment's space.
  if (!s.empty() && s.size() == image.arg_end - image.arg_start && s.back() != '\0') {
    size_t nul = s.find('\0');
    if (nul != std::string::npos) {
      s.resize(nul);
    } else {
      std::string more = ReadRange(*mm, image.env_start, image.env_end);
      s += more.substr(0, more.find('\0'));
    }
  }
  return s;
}

Result<std::string> Environ(ProcFs&, Task& task, const VfsContext&) {
  RefPtr<MemoryManager> mm = task.mm();
  if (!mm) return std::string();
  MmImage image = mm->image();
  return ReadRange(*mm, image.env_start, image.env_end);
}

Result<std::string> Auxv(ProcFs&, Task& task, const VfsContext&) {
  RefPtr<MemoryManager> mm = task.mm();
  if (!mm) return std::string();
  MmImage image = mm->image();
  return std::string(reinterpret_cast<const char*>(image.auxv.data()), image.auxv.size() * sizeof(uint64_t));
}

RefPtr<Inode> MakeMem(ProcFs& fs, RefPtr<Task> task, bool thread) {
  uint64_t ino = TaskIno(*task, thread, 900);
  return MakeRef<MemInode>(fs, std::move(task), ino);
}

}  // namespace moat::proc
