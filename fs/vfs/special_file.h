// Opening what is not a file system's own: FIFOs and device nodes. For fs/vfs, fs/pipe and tests.
#ifndef MOAT_FS_VFS_SPECIAL_FILE_H_
#define MOAT_FS_VFS_SPECIAL_FILE_H_

#include "fs/vfs/vfs.h"

namespace moat::vfs {

// fs/pipe registers how a FIFO is opened: the pipe hangs on the inode (Inode::Slot::kPipe).
using FifoOpener = Result<RefPtr<File>> (*)(const VfsContext& ctx, const VfsPath& path, OpenFlags flags);
void SetFifoOpener(FifoOpener opener);

// S_IFIFO, S_IFCHR, S_IFBLK. kENXIO without a driver.
Result<RefPtr<File>> OpenSpecial(const VfsContext& ctx, const VfsPath& path, OpenFlags flags);

// O_PATH: a place, nothing that can be read.
Result<RefPtr<File>> MakePathFile(const VfsPath& path, OpenFlags flags);

// Asks the holders of conflicting leases to give way: kEAGAIN, with ctx.leased set, until they did.
Result<void> BreakLeases(const VfsContext& ctx, Inode& inode, bool for_write);

// kEROFS when the mount or its file system is read-only.
inline Result<void> WantWrite(const VfsPath& place) {
  return place.mount->read_only() ? Result<void>(kEROFS) : Result<void>();
}

}  // namespace moat::vfs

#endif  // MOAT_FS_VFS_SPECIAL_FILE_H_
