// name_to_handle_at(2), open_by_handle_at(2).
#include <fcntl.h>
#include <sys/epoll.h>

#include <cstring>

#include "fs/vfs/file_handle.h"
#include "sentry/kernel/blocking.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/handlers.h"
#include "sentry/syscalls/path_argument.h"

namespace moat {
namespace {

constexpr uint32_t kMaxHandle = 128;  // MAX_HANDLE_SZ
constexpr int kHandleIdentity = 0x200, kHandleUniqueMountId = 0x1;

struct HandleHeader {  // struct file_handle; the bytes follow
  uint32_t bytes;
  int32_t type;
};

Result<HandleHeader> ReadHeader(Task& t, GuestAddr at) {
  HandleHeader h;
  if (t.memory().CopyIn(&h, at, sizeof h) != sizeof h) return kEFAULT;
  if (h.bytes > kMaxHandle) return kEINVAL;
  return h;
}

// may_decode_fh(): over the file system as a whole, as no path is searched.
bool MayDecode(const Credentials& cred, const FileSystem& fs) {
  const UserNamespace* root = cred.user_ns.get();
  while (root->parent() != nullptr) root = root->parent();
  const UserNamespace* owner = fs.user_ns() != nullptr ? fs.user_ns() : root;
  return cred.HasCapabilityIn(CAP_DAC_READ_SEARCH, *owner);
}

}  // namespace

Result<int64_t> SysNameToHandleAt(Task& t, DirFdNum dirfd, UserString path, GuestAddr handle, GuestAddr mount_id,
                                  int flags) {
  if (flags & ~(AT_SYMLINK_FOLLOW | AT_EMPTY_PATH | kHandleIdentity | kHandleUniqueMountId)) return kEINVAL;
  Task::FsCall fs(t);
  VfsPath place = TRY(ResolveArgument(t, fs, ToInt(dirfd), path, flags & (AT_SYMLINK_FOLLOW | AT_EMPTY_PATH), false));
  Result<FileHandle> encoded = vfs::EncodeHandle(place, (flags & kHandleIdentity) != 0);
  if (!encoded.ok()) return encoded.error();
  HandleHeader given = TRY(ReadHeader(t, handle));
  bool fits = encoded->bytes.size() <= given.bytes;
  std::string out(sizeof(HandleHeader), '\0');
  HandleHeader h{static_cast<uint32_t>(encoded->bytes.size()), fits ? encoded->type : 255 /* FILEID_INVALID */};
  memcpy(out.data(), &h, sizeof h);
  if (fits) out += encoded->bytes;
  uint64_t id = place.mount->unique_id();
  if ((flags & kHandleUniqueMountId) == 0) id = place.mount->id();
  size_t id_size = (flags & kHandleUniqueMountId) != 0 ? sizeof(uint64_t) : sizeof(int32_t);
  if (t.memory().CopyOut(mount_id, &id, id_size) != id_size) return kEFAULT;
  if (t.memory().CopyOut(handle, out.data(), out.size()) != out.size()) return kEFAULT;
  return fits ? Result<int64_t>(0) : Result<int64_t>(kEOVERFLOW);
}

Result<int64_t> SysOpenByHandleAt(Task& t, DirFdNum mount_fd, GuestAddr handle, OpenFlagBits flags) {
  Task::FsCall fs(t);
  VfsPath at = ToInt(mount_fd) == AT_FDCWD ? fs.ctx().cwd : TRY(t.GetFile(ToInt(mount_fd)))->path();
  if (!at.mount) return kESTALE;
  if (!MayDecode(t.cred(), at.mount->fs())) return kEPERM;
  HandleHeader h = TRY(ReadHeader(t, handle));
  if (h.bytes == 0) return kEINVAL;
  FileHandle decoded{h.type, std::string(h.bytes, '\0')};
  if (t.memory().CopyIn(decoded.bytes.data(), handle + sizeof h, h.bytes) != h.bytes) return kEFAULT;
  VfsPath place = TRY(vfs::DecodeHandle(fs, at, decoded));
  int open_flags = Raw(flags) & ~(O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC);
  if (open_flags & O_PATH) open_flags &= O_PATH | O_DIRECTORY;
  auto open = [&] { return vfs::OpenPath(fs, place, {open_flags, 0, 0}); };
  RefPtr<File> file = TRY((open_flags & O_NONBLOCK) ? open() : AfterLeases(t, fs, open));
  if (!file->nonblocking()) {
    TRY(BlockingOp(t, file->wait_queue(), EPOLLIN | EPOLLOUT, kNoDeadline, [&] { return file->FinishOpen(fs); }));
  }
  return TRY(t.InstallFd(std::move(file), (Raw(flags) & O_CLOEXEC) != 0));
}

}  // namespace moat
