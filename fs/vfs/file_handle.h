// File handles: a name for a file that outlives its path. Source: open_by_handle_at(2), Linux's exportfs.
#ifndef MOAT_FS_VFS_FILE_HANDLE_H_
#define MOAT_FS_VFS_FILE_HANDLE_H_

#include <string>

#include "fs/vfs/vfs.h"

namespace moat::vfs {

// The handle of what `path` leads to. `identity_only` (AT_HANDLE_FID): it need only tell files apart, so every file
// has one. kEOPNOTSUPP when the file system has no handles.
Result<FileHandle> EncodeHandle(const VfsPath& path, bool identity_only);

// The place, seen through the mount of `at`, that a handle of its file system names. kESTALE when the file is gone or
// the handle means nothing. The permission to open files that no path was searched for
// is the caller's to check.
Result<VfsPath> DecodeHandle(const VfsContext& ctx, const VfsPath& at, const FileHandle& handle);

}  // namespace moat::vfs

#endif  // MOAT_FS_VFS_FILE_HANDLE_H_
