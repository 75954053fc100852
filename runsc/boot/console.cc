#include "runsc/boot/console.h"

#include <sys/stat.h>

#include <algorithm>

#include "fs/devfs/devfs.h"
#include "fs/vfs/vfs.h"
#include "platform/base/log.h"
#include "runsc/error/error.h"

namespace moat {

absl::Status SetUpConsole(ContainerState& state) {
  HostStdio& stdio = state.stdio;
  if (!stdio.tty) return absl::OkStatus();
  SetConsole(stdio.tty);
  RefPtr<const Credentials> cred = Credentials::CreateRoot(state.kernel->root_user_ns());
  VfsPath root = state.mounts->root();
  VfsContext ctx{.cred = *cred, .mounts = *state.mounts, .root = root, .cwd = root};
  constexpr char kPath[] = "/dev/console";
  Result<void> made = vfs::Mknod(ctx, root, kPath, S_IFREG | 0600, {});
  Result<VfsPath> place = vfs::Resolve(ctx, root, kPath);
  if (!place.ok()) {
    // A root without /dev, or a read-only one: its choice.
    MOAT_LOG(kWarning, "no {}: {}", kPath, ErrnoText(made.ok() ? place.error() : made.error()));
    return absl::OkStatus();
  }
  auto is_terminal = [&](const RefPtr<File>& f) { return f && f->tty() == stdio.tty.get(); };
  auto first = std::find_if(stdio.files.begin(), stdio.files.end(), is_terminal);
  Result<RefPtr<Mount>> mount = state.mounts->Bind(*place, (*first)->path(), false);
  if (mount.ok()) place = vfs::Resolve(ctx, root, kPath);
  if (!mount.ok() || !place.ok()) return Failed("mount the terminal on {}: {}", kPath, ErrnoText(mount.error()));
  for (RefPtr<File>& f : stdio.files) {
    if (!is_terminal(f)) continue;
    Result<RefPtr<File>> again = stdio.tty->OpenAgain(ctx, *place, OpenFlags{f->flags()});
    if (again.ok()) f = *std::move(again);
  }
  return absl::OkStatus();
}

void GiveStdioTo(ContainerState& state, uint32_t uid) {
  RefPtr<const Credentials> cred = Credentials::CreateRoot(state.kernel->root_user_ns());
  VfsPath root = state.mounts->root();
  VfsContext ctx{.cred = *cred, .mounts = *state.mounts, .root = root, .cwd = root};
  AttrChange change;
  change.uid = uid;
  for (const RefPtr<File>& f : state.stdio.files) {
    if (f) [[maybe_unused]]
      auto given = f->path().dentry->inode()->SetAttr(ctx, change);
  }
}

}  // namespace moat
