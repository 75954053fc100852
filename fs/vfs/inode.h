// Inode: one file object of a file system, whatever names it has. File systems derive from it.
//
// Contract for implementers:
//  * The VFS has already checked permissions (fs/vfs/permissions.h), mount flags, name length (<= 255), that
//    names are neither "." nor ".." nor contain '/', and that a parent is a directory.
//  * Name operations on one directory are serialised by the VFS (the dentry layer's per-directory lock);
//    Rename also holds the file system's rename lock. Everything else may run concurrently: guard your own state.
//  * No call blocks on guest activity; calls to the gofer may take as long as the host takes.
//  * The default of every optional operation answers what Linux does for a file system without it
//    (kEPERM, kEOPNOTSUPP, kENOTDIR, kEINVAL): override only what the file system has.
// Source: Linux Documentation/filesystems/vfs.rst.
#ifndef MOAT_FS_VFS_INODE_H_
#define MOAT_FS_VFS_INODE_H_

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "fs/vfs/context.h"
#include "fs/vfs/types.h"
#include "platform/base/mutex.h"
#include "platform/base/ref_ptr.h"
#include "platform/base/result.h"
#include "platform/fiber/wait_queue.h"
#include "platform/memory/mappable.h"

namespace moat {

class File;
class FileSystem;
class FileLockList;
class PosixAcl;

// Access control lists (fs/vfs/posix_acl.h): an object's own, and what a directory hands to what is made in it.
enum class AclKind { kAccess, kDefault };

// How a file is opened: open(2) flags as the guest gave them (O_*), plus mode bits for O_CREAT.
struct OpenFlags {
  int flags = 0;
  bool readable() const;  // access mode grants read(2)
  bool writable() const;
  bool path_only() const;  // O_PATH
};

class Inode : public RefCounted {
 public:
  // `dir_rank`: generated trees, whose lookups take locks of the kernel, pass LockRank::kLog (not checked).
  Inode(FileSystem& fs, uint32_t type, uint64_t ino, LockRank dir_rank = LockRank::kDirectory);
  ~Inode() override;

  FileSystem& fs() const { return fs_; }
  uint32_t type() const { return type_; }  // S_IFREG, S_IFDIR, ...
  uint64_t ino() const { return ino_; }
  bool is_dir() const { return type_ == S_IFDIR; }
  bool is_symlink() const { return type_ == S_IFLNK; }

  // --- attributes ---
  virtual Result<Kstat> GetAttr() = 0;
  // mode, uid, gid without the cost of a full GetAttr: the permission check of every path component.
  struct Access {
    uint32_t mode;
    Kuid uid;
    Kgid gid;
  };
  virtual Result<Access> GetAccess();
  virtual Result<void> SetAttr(const VfsContext& ctx, const AttrChange& change);
  // An override of the mode-bit check (procfs files that depend on the task, hostfs, fuse).
  // `mask`: MAY_READ 4 | MAY_WRITE 2 | MAY_EXEC 1.
  virtual Result<void> CheckPermission(const VfsContext& ctx, int mask);

  // --- directories ---
  // kENOENT when there is no such name.
  virtual Result<RefPtr<Inode>> Lookup(const VfsContext& ctx, std::string_view name);
  // A hint: `names` will be looked up one after the other, the first of them in this directory. A file system whose
  // lookups are dear may ask for all at once and keep the answers, for the calling thread alone, until the returned
  // object goes. Null: no use of it.
  virtual RefPtr<RefCounted> LookAhead(const VfsContext& ctx, std::span<const std::string_view> names) {
    return nullptr;
  }
  virtual Result<RefPtr<Inode>> Create(const VfsContext& ctx, std::string_view name, uint32_t mode);  // S_IFREG
  virtual Result<RefPtr<Inode>> Mkdir(const VfsContext& ctx, std::string_view name, uint32_t mode);
  virtual Result<RefPtr<Inode>> Mknod(const VfsContext& ctx, std::string_view name, uint32_t mode, DeviceId dev);
  virtual Result<RefPtr<Inode>> Symlink(const VfsContext& ctx, std::string_view name, std::string_view target);
  virtual Result<void> Link(const VfsContext& ctx, std::string_view name, Inode& target);
  virtual Result<void> Unlink(const VfsContext& ctx, std::string_view name, Inode& child);
  virtual Result<void> Rmdir(const VfsContext& ctx, std::string_view name, Inode& child);  // kENOTEMPTY
  // Moves `old_name` of this directory to `new_name` of `new_dir` (same file system). `flags`: RENAME_*; the
  // VFS did NOREPLACE. `replaced` is the inode that stands there, or null.
  virtual Result<void> Rename(const VfsContext& ctx, std::string_view old_name, Inode& child, Inode& new_dir,
                              std::string_view new_name, Inode* replaced, unsigned flags);
  // O_TMPFILE: a nameless regular file.
  virtual Result<RefPtr<Inode>> CreateTemporary(const VfsContext& ctx, uint32_t mode);

  // --- symlinks ---
  virtual Result<std::string> Readlink(const VfsContext& ctx);
  // Magic links (/proc/<pid>/fd/N, .../exe): where the link leads, without a path. kENOSYS: not a magic link.
  virtual Result<VfsPath> FollowMagicLink(const VfsContext& ctx);

  // --- opening ---
  // A new file description's implementation. `path` is what was opened; O_CREAT, O_EXCL, O_TRUNC and O_NOFOLLOW
  // are already done. Called for every type but S_IFLNK, S_IFSOCK (kENXIO) and O_PATH; FIFOs and device nodes
  // are handled by the VFS (fs/vfs/special_file.h) and do not reach the file system's inode.
  virtual Result<RefPtr<File>> Open(const VfsContext& ctx, const VfsPath& path, OpenFlags flags) = 0;

  // True for a FIFO or device that Open opens although it is one: the caller's stdin and stdout, which no driver and
  // no FIFO of the sandbox stands for.
  virtual bool opens_itself() const { return false; }

  // --- extended attributes (xattr(7)); the VFS checked the namespace's permission rules ---
  virtual Result<std::string> GetXattr(const VfsContext& ctx, std::string_view name);
  virtual Result<void> SetXattr(const VfsContext& ctx, std::string_view name, std::string_view value, int flags);
  virtual Result<void> RemoveXattr(const VfsContext& ctx, std::string_view name);
  virtual Result<std::vector<std::string>> ListXattr(const VfsContext& ctx);

  // --- access control lists, acl(5); the VFS has validated the list and knows the caller for the owner ---
  // Null: there is none. kEOPNOTSUPP: there can be none.
  virtual Result<RefPtr<const PosixAcl>> GetAcl(AclKind kind);
  // Null removes it. kAccess also changes the permission bits, by PosixAcl::ToMode; SetAttr's mode changes the list.
  virtual Result<void> SetAcl(const VfsContext& ctx, AclKind kind, RefPtr<const PosixAcl> acl);
  // True when what is made in this directory begins with its default list; then no umask counts.
  virtual bool HasDefaultAcl() const { return false; }

  // For files with pages: what mm maps, execve loads and splice moves. kENODEV without.
  virtual Result<RefPtr<Mappable>> GetMappable();

  // --- state that the VFS keeps on an inode, made on first use ---
  FileLockList& locks();
  // Null while nobody asked for locks(): the cheap look of close(2).
  FileLockList* locks_if_any() const;
  // Serialises name changes in this directory (Dentry::dir_mutex). Rank kDirectory.
  Mutex& dir_mutex() { return dir_mu_; }
  // Makes "find the end, write there" of O_APPEND one step. Rank kAppend; held over PWrite from a kernel buffer.
  Mutex& append_mutex() { return append_mu_; }
  // AF_UNIX sockets bound here, FIFOs' pipe, inotify marks: opaque slots owned by upper parts of fs/ and sentry/.
  struct Attachment : RefCounted {};  // Slot::kInotify holds a NotifySink (fs/vfs/notify.h)
  enum class Slot { kPipe, kSocket, kInotify, kCount };
  RefPtr<Attachment> attachment(Slot slot) const;
  // Stores `a` unless the slot is taken; returns what the slot then holds.
  RefPtr<Attachment> AttachOnce(Slot slot, RefPtr<Attachment> a);
  void Detach(Slot slot);

  // Open-for-write and deny-write counts: ETXTBSY (execve against open for writing).
  bool open_for_writing() const { return writers_.load(std::memory_order_acquire) > 0; }
  // File descriptions that are open on this inode: what a write lease must be alone with.
  std::atomic<int32_t> opens{0};
  Result<void> GetWriteAccess();
  void PutWriteAccess();
  Result<void> DenyWriteAccess();
  void AllowWriteAccess();

 private:
  struct Extra;  // allocated on first use: most inodes have neither locks nor attachments
  Extra& extra() const;
  FileSystem& fs_;
  const uint32_t type_;
  const uint64_t ino_;
  std::atomic<int32_t> writers_{0};  // > 0 writers, < 0 executions
  Mutex dir_mu_;
  Mutex append_mu_{LockRank::kAppend};
  mutable std::atomic<Extra*> extra_{nullptr};
};

}  // namespace moat

#endif  // MOAT_FS_VFS_INODE_H_
