// The hook points of inotify(7): the VFS and the read/write path emit events, fs/anon/inotify delivers them.
// An inotify mark set is the inode's attachment of Slot::kInotify, an object derived from NotifySink.
//
// Costs one relaxed load while nobody watches anything. Thread-safe. Emit is called with no VFS lock held, but
// the caller may hold references only.
#ifndef MOAT_FS_VFS_NOTIFY_H_
#define MOAT_FS_VFS_NOTIFY_H_

#include <sys/inotify.h>

#include <atomic>
#include <cstdint>
#include <string_view>

#include "fs/vfs/inode.h"
#include "fs/vfs/path.h"

namespace moat {

// The watches on one inode. Implemented by fs/anon/inotify.
class NotifySink : public Inode::Attachment {
 public:
  // `mask` is one IN_* event, with IN_ISDIR where it applies, and IN_EXCL_UNLINK when it came by an unlinked path.
  // `name` is empty unless the event is about a child of this (directory) inode. `cookie` ties IN_MOVED_FROM and
  // IN_MOVED_TO. IN_DELETE_SELF ends the watches: the sink then queues IN_IGNORED itself. Must not block.
  virtual void OnEvent(uint32_t mask, uint32_t cookie, std::string_view name) = 0;
};

namespace notify {

// Number of watches in the whole sandbox; fs/anon/inotify counts them up and down.
inline std::atomic<int64_t> active_watches{0};
inline bool AnyWatch() { return active_watches.load(std::memory_order_relaxed) != 0; }

// The older way to hear of changes, fcntl(2) F_NOTIFY: told of every event on a directory or a child of it. Set by the
// sentry with the first such watch; must not block.
inline std::atomic<void (*)(Inode& directory, uint32_t mask)> directory_hook{nullptr};

// Beside IN_MOVED_FROM, for the hook alone: the name stays in its directory.
inline constexpr uint32_t kRenamedWithin = 0x00100000;

// To the watches of `inode` itself.
void EmitEvent(Inode& inode, uint32_t mask, uint32_t cookie = 0, std::string_view name = {});
// About an object: to the object's own watches, and by its name to those of its parent directory.
void EmitOnPath(const VfsPath& path, uint32_t mask);
// A fresh cookie for a rename.
uint32_t NextCookie();

}  // namespace notify
}  // namespace moat

#endif  // MOAT_FS_VFS_NOTIFY_H_
