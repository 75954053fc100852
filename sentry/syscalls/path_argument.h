// Path arguments of the *at(2) calls: a directory descriptor, a string and AT_* flags, made into a place.
#ifndef MOAT_SENTRY_SYSCALLS_PATH_ARGUMENT_H_
#define MOAT_SENTRY_SYSCALLS_PATH_ARGUMENT_H_

#include <fcntl.h>

#include <string>

#include "fs/vfs/vfs.h"
#include "sentry/kernel/fs_call.h"
#include "sentry/kernel/task.h"
#include "sentry/syscalls/argument_types.h"

namespace moat {

// A path string with the directory it starts from; `at` is not looked at for an absolute path.
struct PathArgument {
  std::string name;
  VfsPath at;
  // kEFAULT, kENAMETOOLONG, kEBADF, kENOTDIR.
  static Result<PathArgument> Read(Task& t, const VfsContext& ctx, int dirfd, UserString path);
};

// An existing place. Flags: AT_SYMLINK_NOFOLLOW, AT_SYMLINK_FOLLOW (with `follow` false by default), AT_EMPTY_PATH: an
// empty path is `dirfd` itself, of any type, and AT_FDCWD the working directory. Other bits are the caller's to check.
Result<VfsPath> ResolveArgument(Task& t, const VfsContext& ctx, int dirfd, UserString path, int at_flags,
                                bool follow = true);

}  // namespace moat

#endif  // MOAT_SENTRY_SYSCALLS_PATH_ARGUMENT_H_
