#include "platform/memory/backing.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/mount.h>

namespace moat {

Result<ScopedFd> NewMemoryBacking() {
  ScopedFd fs(fsopen("tmpfs", FSOPEN_CLOEXEC));
  const auto set = [&](const char* key, const char* value) {
    return fsconfig(fs.get(), FSCONFIG_SET_STRING, key, value, 0) == 0;
  };
  // The size is for the sandbox's cgroup to bound.
  if (fs.valid() && set("huge", "within_size") && set("size", "0") && set("nr_inodes", "2") &&
      fsconfig(fs.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) == 0) {
    // Guests run programs out of it: no MOUNT_ATTR_NOEXEC.
    ScopedFd root(fsmount(fs.get(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV));
    ScopedFd file(root.valid() ? openat(root.get(), ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600) : -1);
    if (file.valid()) return file;
  }
  ScopedFd memfd(memfd_create("moat", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memfd.valid()) return HostErrno();
  return memfd;
}

}  // namespace moat
