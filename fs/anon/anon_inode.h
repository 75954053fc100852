// The nameless inodes behind eventfd, epoll, timerfd, signalfd and inotify descriptors (one for all of them, as in
// Linux) and behind sockets (one each). Thread-safe.
#ifndef MOAT_FS_ANON_ANON_INODE_H_
#define MOAT_FS_ANON_ANON_INODE_H_

#include <string_view>

#include "fs/vfs/filesystem.h"
#include "fs/vfs/path.h"

namespace moat {

// The place of an anonymous file; `kind` is "eventfd" for "anon_inode:[eventfd]".
VfsPath AnonInodePath(std::string_view kind);

// A new S_IFSOCK inode, "socket:[ino]". `owner`: fsuid and fsgid of the creator.
VfsPath SocketPath(Kuid uid, Kgid gid);

}  // namespace moat

#endif  // MOAT_FS_ANON_ANON_INODE_H_
