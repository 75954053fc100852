// How procfs shows a place: "/usr/bin/env", "pipe:[42]", "/tmp/x (deleted)".
#ifndef MOAT_SENTRY_PROCFS_PATH_TEXT_H_
#define MOAT_SENTRY_PROCFS_PATH_TEXT_H_

#include "fs/vfs/mount.h"

namespace moat {

inline std::string PathText(const VfsContext& ctx, const VfsPath& path) { return ctx.mounts.PathName(path, ctx.root); }

}  // namespace moat

#endif  // MOAT_SENTRY_PROCFS_PATH_TEXT_H_
