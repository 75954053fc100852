// The file that a MemoryFile is made of. Source: tmpfs(5) huge=, memfd_create(2), fsopen(2).
#ifndef MOAT_PLATFORM_MEMORY_BACKING_H_
#define MOAT_PLATFORM_MEMORY_BACKING_H_

#include "platform/base/result.h"
#include "platform/base/scoped_fd.h"

namespace moat {

// A nameless file of a tmpfs that has no other and is in no tree: only a mount has the option for huge pages, and the
// host's own setting for memfds is mostly not to give any. Wants CAP_SYS_ADMIN in the user namespace of the mount
// namespace, and a host with huge pages; a memfd that can be sealed where one is missing.
Result<ScopedFd> NewMemoryBacking();

}  // namespace moat

#endif  // MOAT_PLATFORM_MEMORY_BACKING_H_
