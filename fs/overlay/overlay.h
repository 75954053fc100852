// What boot needs of overlays.
#ifndef MOAT_FS_OVERLAY_OVERLAY_H_
#define MOAT_FS_OVERLAY_OVERLAY_H_

#include "fs/vfs/filesystem.h"

namespace moat {

// An overlay over `lower` whose upper is a tmpfs of its own: writable, gone with the sandbox. The type "tmpfs" must be
// registered. `options`: of the tmpfs ("size=512m"); by default it holds half of the host's memory.
Result<RefPtr<FileSystem>> MakePrivateOverlay(RefPtr<FileSystem> lower, std::string options = {});

}  // namespace moat

#endif  // MOAT_FS_OVERLAY_OVERLAY_H_
