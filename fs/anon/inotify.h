// inotify(7): watches on inodes, events as a file. The VFS emits through fs/vfs/notify.h.
//
// An inode's watches hang on its attachment (InodeWatches); each watch keeps its inode and file system alive, as
// Linux does until the watch goes. Locks: kInotify for an inode's list and, never at the same time, for an
// instance's queue.
#ifndef MOAT_FS_ANON_INOTIFY_H_
#define MOAT_FS_ANON_INOTIFY_H_

#include <deque>
#include <map>

#include "fs/vfs/file.h"
#include "fs/vfs/filesystem.h"

namespace moat {

class InotifyCore;

class InotifyFile final : public File {
 public:
  explicit InotifyFile(int flags);  // IN_NONBLOCK
  ~InotifyFile() override;

  // inotify_add_watch(2) on an inode that the caller may read; `mask` has at least one event bit. Returns the watch
  // descriptor; kEEXIST (IN_MASK_CREATE), kENOSPC, kEINVAL (IN_MASK_ADD with IN_MASK_CREATE).
  Result<int> AddWatch(Inode& inode, uint32_t mask);
  Result<void> RemoveWatch(int wd);  // kEINVAL

  Result<size_t> Read(const VfsContext& ctx, IoDest& dst) override;
  EventMask Poll(EventMask interest) override;
  Result<int64_t> Ioctl(const VfsContext& ctx, GuestMemory& memory, uint32_t cmd, uint64_t arg) override;
  WaitQueue& wait_queue() override;
  EventMask AsyncEvents() const override { return kAsyncInput; }
  std::string FdInfo() const override;

  static constexpr size_t kMaxQueuedEvents = 16384;  // fs.inotify.max_queued_events
  static constexpr int64_t kMaxWatches = 1 << 20;    // fs.inotify.max_user_watches

 private:
  RefPtr<InotifyCore> core_;
};

}  // namespace moat

#endif  // MOAT_FS_ANON_INOTIFY_H_
