// The operations of the VFS on paths: what the system call bodies call. Each resolves (or is given) a place,
// checks permissions and mount flags, calls the file system and keeps the dentry cache and inotify true.
// `at` is the directory that a relative path starts from (ctx.cwd, or a directory descriptor's path).
// Source: path_resolution(7), open(2), openat2(2), and each call's own page.
#ifndef MOAT_FS_VFS_VFS_H_
#define MOAT_FS_VFS_VFS_H_

#include <string_view>

#include "fs/vfs/dentry.h"
#include "fs/vfs/file.h"
#include "fs/vfs/mount.h"

namespace moat::vfs {

// How to walk: the last symlink, and openat2(2)'s RESOLVE_* bits.
struct ResolveOptions {
  bool follow_last = true;
  bool allow_empty = false;     // AT_EMPTY_PATH: "" is `at` itself
  uint64_t resolve = 0;         // RESOLVE_NO_XDEV, NO_MAGICLINKS, NO_SYMLINKS, BENEATH, IN_ROOT, CACHED
  bool directory_only = false;  // the result must be a directory (O_DIRECTORY, trailing slash)
};

// An existing place. kENOENT, kENOTDIR, kELOOP, kEACCES, kENAMETOOLONG, kEXDEV...
Result<VfsPath> Resolve(const VfsContext& ctx, const VfsPath& at, std::string_view path, const ResolveOptions& o = {});

// The parent directory and last name, for calls that make or remove names.
struct ParentAndName {
  VfsPath parent;
  std::string name;  // may be "." or "..": callers answer kEINVAL, kEBUSY, kEEXIST... as theirs says
  bool trailing_slash = false;
};
Result<ParentAndName> ResolveParent(const VfsContext& ctx, const VfsPath& at, std::string_view path,
                                    const ResolveOptions& o = {});

struct OpenOptions {
  int flags = 0;      // O_*
  uint32_t mode = 0;  // for O_CREAT and O_TMPFILE, umask not yet applied
  uint64_t resolve = 0;
};
Result<RefPtr<File>> Open(const VfsContext& ctx, const VfsPath& at, std::string_view path, const OpenOptions& o);
// Opens an existing place (reopening through /proc/self/fd, open_by_handle, execve).
Result<RefPtr<File>> OpenPath(const VfsContext& ctx, const VfsPath& path, const OpenOptions& o);

// access(2): `cred_for_check` is the real-id credentials unless AT_EACCESS.
Result<void> Access(const VfsContext& ctx, const VfsPath& path, int mask);
Result<Kstat> Stat(const VfsContext& ctx, const VfsPath& path);
Result<void> SetAttr(const VfsContext& ctx, const VfsPath& path, AttrChange change);  // permission checks included
Result<void> Mkdir(const VfsContext& ctx, const VfsPath& at, std::string_view path, uint32_t mode);
Result<void> Mknod(const VfsContext& ctx, const VfsPath& at, std::string_view path, uint32_t mode, DeviceId dev);
// bind(2) of an AF_UNIX socket: makes the S_IFSOCK inode and returns its place. kEADDRINUSE for kEEXIST is the
// caller's.
Result<VfsPath> MknodSocket(const VfsContext& ctx, const VfsPath& at, std::string_view path, uint32_t mode);
Result<void> Symlink(const VfsContext& ctx, std::string_view target, const VfsPath& at, std::string_view path);
Result<void> Link(const VfsContext& ctx, const VfsPath& old_path, const VfsPath& new_at, std::string_view new_path);
Result<void> Unlink(const VfsContext& ctx, const VfsPath& at, std::string_view path);
Result<void> Rmdir(const VfsContext& ctx, const VfsPath& at, std::string_view path);
Result<void> Rename(const VfsContext& ctx, const VfsPath& old_at, std::string_view old_path, const VfsPath& new_at,
                    std::string_view new_path, unsigned flags);
Result<std::string> Readlink(const VfsContext& ctx, const VfsPath& path);
Result<std::string> GetXattr(const VfsContext& ctx, const VfsPath& path, std::string_view name);
Result<void> SetXattr(const VfsContext& ctx, const VfsPath& path, std::string_view name, std::string_view value,
                      int flags);
Result<void> RemoveXattr(const VfsContext& ctx, const VfsPath& path, std::string_view name);
Result<std::vector<std::string>> ListXattr(const VfsContext& ctx, const VfsPath& path);

// A place for pseudo files (pipes, sockets, anon inodes): an internal mount that no path reaches.
VfsPath AnonymousPath(RefPtr<Inode> inode, std::string name);

// Device numbers -> drivers; fs/devfs, fs/devpts and the sentry register theirs at boot.
class DeviceDriver {
 public:
  virtual ~DeviceDriver() = default;
  virtual Result<RefPtr<File>> Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags, DeviceId dev) = 0;
};
enum class DeviceKind { kChar, kBlock };
// `driver` must outlive the process's guests.
void RegisterDevice(DeviceKind kind, uint32_t major, uint32_t first_minor, uint32_t count, DeviceDriver& driver);

// FileSystemType registry; entries live for ever.
void RegisterFileSystemType(FileSystemType& type);
FileSystemType* FindFileSystemType(std::string_view name);
std::vector<FileSystemType*> FileSystemTypes();

}  // namespace moat::vfs

#endif  // MOAT_FS_VFS_VFS_H_
