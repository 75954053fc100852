// Directories: getdents(2), getcwd(2), chdir(2), chroot(2).
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <cstring>

#include "fs/vfs/notify.h"
#include "fs/vfs/vfs.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/path_argument.h"

namespace moat {
namespace {

constexpr size_t kEntryHeader = 18;  // d_ino, d_off, d_reclen; then d_type (getdents: after the name)

// Lays out struct linux_dirent or linux_dirent64 into a bounded buffer that is copied out once.
class EntryBuffer final : public DirEntrySink {
 public:
  EntryBuffer(size_t room, bool wide) : room_(room), wide_(wide) {}

  bool Add(std::string_view name, uint64_t ino, uint8_t type, int64_t next_offset) override {
    // Both forms: header, name, NUL and one byte of type, rounded up to 8.
    size_t length = (kEntryHeader + 1 + name.size() + 1 + 7) & ~size_t{7};
    if (bytes_.size() + length > room_) {
      full_ = true;
      return false;
    }
    size_t at = bytes_.size();
    bytes_.resize(at + length, std::byte{0});
    uint16_t reclen = static_cast<uint16_t>(length);
    memcpy(&bytes_[at], &ino, 8);
    memcpy(&bytes_[at + 8], &next_offset, 8);
    memcpy(&bytes_[at + 16], &reclen, 2);
    size_t name_at = at + kEntryHeader + (wide_ ? 1 : 0);
    memcpy(&bytes_[name_at], name.data(), name.size());
    bytes_[wide_ ? at + kEntryHeader : at + length - 1] = std::byte{type};
    return true;
  }
  const std::vector<std::byte>& bytes() const { return bytes_; }
  bool full() const { return full_; }

 private:
  const size_t room_;
  const bool wide_;
  bool full_ = false;
  std::vector<std::byte> bytes_;
};

Result<int64_t> ReadEntries(Task& t, FdNum fd, GuestAddr out, unsigned count, bool wide) {
  RefPtr<File> file = TRY(t.GetFileNotPath(ToInt(fd)));
  if (!file->readable()) return kEBADF;
  Task::FsCall fs(t);
  // A bound on what one call stages; the guest calls again for more.
  EntryBuffer buffer(std::min<size_t>(count, 256 << 10), wide);
  RefPtr<Dentry> dir = file->path().dentry;
  if (dir && dir->IsDetached() && dir->inode_ptr()->is_dir()) return kENOENT;  // removed
  TRY(file->ReadDir(fs, buffer));
  if (buffer.bytes().empty()) return buffer.full() ? Result<int64_t>(kEINVAL) : 0;
  if (t.memory().CopyOut(out, buffer.bytes().data(), buffer.bytes().size()) != buffer.bytes().size()) return kEFAULT;
  if (notify::AnyWatch()) notify::EmitOnPath(file->path(), IN_ACCESS);
  return static_cast<int64_t>(buffer.bytes().size());
}

// chdir and chroot: a directory that the caller may search.
Result<VfsPath> SearchableDirectory(const VfsContext& ctx, VfsPath place) {
  Inode* inode = place.dentry->inode_ptr();
  if (inode == nullptr) return kENOENT;
  if (!inode->is_dir()) return kENOTDIR;
  TRY(vfs::Access(ctx, place, X_OK));
  return place;
}

}  // namespace

Result<int64_t> SysGetdents(Task& t, FdNum fd, GuestAddr out, unsigned count) {
  return ReadEntries(t, fd, out, count, false);
}
Result<int64_t> SysGetdents64(Task& t, FdNum fd, GuestAddr out, unsigned count) {
  return ReadEntries(t, fd, out, count, true);
}

Result<int64_t> SysGetcwd(Task& t, GuestAddr buf, size_t size) {
  Task::FsCall fs(t);
  if (fs.ctx().cwd.dentry->IsDetached()) return kENOENT;
  std::string name = fs.ctx().mounts.PathName(fs.ctx().cwd, fs.ctx().root);
  if (size < name.size() + 1) return kERANGE;
  if (t.memory().CopyOut(buf, name.c_str(), name.size() + 1) != name.size() + 1) return kEFAULT;
  return static_cast<int64_t>(name.size() + 1);
}

Result<int64_t> SysChdir(Task& t, UserString path) {
  Task::FsCall fs(t);
  VfsPath place = TRY(ResolveArgument(t, fs, AT_FDCWD, path, 0));
  t.fs().set_cwd(TRY(SearchableDirectory(fs, std::move(place))));
  return 0;
}

Result<int64_t> SysFchdir(Task& t, FdNum fd) {
  RefPtr<File> file = TRY(t.GetFile(ToInt(fd)));
  Task::FsCall fs(t);
  t.fs().set_cwd(TRY(SearchableDirectory(fs, file->path())));
  return 0;
}

Result<int64_t> SysChroot(Task& t, UserString path) {
  Task::FsCall fs(t);
  VfsPath place = TRY(SearchableDirectory(fs, TRY(ResolveArgument(t, fs, AT_FDCWD, path, 0))));
  if (!t.cred().HasCapability(CAP_SYS_CHROOT)) return kEPERM;
  t.fs().set_root(std::move(place));
  return 0;
}

}  // namespace moat
