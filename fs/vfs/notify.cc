#include "fs/vfs/notify.h"

#include "fs/vfs/dentry.h"
#include "fs/vfs/mount.h"

namespace moat::notify {

void EmitEvent(Inode& inode, uint32_t mask, uint32_t cookie, std::string_view name) {
  if (!AnyWatch()) return;
  auto* hook = directory_hook.load(std::memory_order_acquire);
  if (hook != nullptr && inode.is_dir()) hook(inode, mask);
  RefPtr<Inode::Attachment> a = inode.attachment(Inode::Slot::kInotify);
  if (a) static_cast<NotifySink*>(a.get())->OnEvent(mask & ~kRenamedWithin, cookie, name);
}

void EmitOnPath(const VfsPath& path, uint32_t mask) {
  if (!AnyWatch() || !path.dentry) return;
  Inode* inode = path.dentry->inode_ptr();
  if (inode == nullptr) return;
  if (inode->is_dir()) mask |= IN_ISDIR;
  // Who has an unlinked file open still makes events in the directory; changes of attributes name no path.
  if (path.dentry->IsDetached() && (mask & IN_ATTRIB) == 0) mask |= IN_EXCL_UNLINK;
  RefPtr<Dentry> parent = path.dentry->parent();
  if (parent) {
    Inode* dir = parent->inode_ptr();
    if (dir != nullptr) EmitEvent(*dir, mask, 0, path.dentry->name());
  }
  EmitEvent(*inode, mask);
}

uint32_t NextCookie() {
  static std::atomic<uint32_t> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace moat::notify
