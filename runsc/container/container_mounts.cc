#include "runsc/container/container_mounts.h"

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runsc/container/hooks.h"
#include "runsc/error/error.h"

namespace moat {
namespace {

// Opens the place of `root` anew: by its path, as the calling process's namespace has it.
absl::StatusOr<ScopedFd> OpenAgain(int root) {
  char path[PATH_MAX];
  ssize_t n = readlink(fmt::format("/proc/self/fd/{}", root).c_str(), path, sizeof path - 1);
  if (n < 0) return HostFailed("name a mount's root");
  path[n] = '\0';
  ScopedFd fd(open(path, O_PATH | O_CLOEXEC));
  struct stat before, now;
  if (!fd.valid() || fstat(root, &before) != 0 || fstat(fd.get(), &now) != 0) return HostFailed("open {} again", path);
  if (before.st_dev != now.st_dev || before.st_ino != now.st_ino)
    return Failed("{} is another file in the container's mount namespace", path);
  return fd;
}

absl::Status SendPlaces(Channel& channel, const std::vector<GoferMount>& mounts) {
  if (unshare(CLONE_NEWNS) != 0) return HostFailed("make a mount namespace");
  // What the host mounts later still arrives, what the hooks mount does not leave.
  if (mount(nullptr, "/", nullptr, MS_SLAVE | MS_REC, nullptr) != 0) return HostFailed("make the mounts slaves");
  ScopedFd ns(open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC));
  if (!ns.valid()) return HostFailed("open the mount namespace");
  int fd = ns.get();
  if (!channel.Send(MessageKind::kOk, 0, {}, {&fd, 1}).ok()) return Failed("the supervisor ended");
  for (const GoferMount& m : mounts) {
    ASSIGN_OR_RETURN(ScopedFd again, OpenAgain(m.root.get()));
    fd = again.get();
    if (!channel.Send(MessageKind::kOk, 0, {}, {&fd, 1}).ok()) return Failed("the supervisor ended");
  }
  return absl::OkStatus();
}

[[noreturn]] void HelperMain(Channel channel, const std::vector<oci::Hook>& hooks,
                             const std::vector<GoferMount>& mounts) {
  absl::Status status = SendPlaces(channel, mounts);
  if (status.ok()) {
    Result<Message> go = channel.Receive();  // text: directory, a NUL byte, the state
    if (!go.ok()) _exit(1);
    size_t nul = go->text.find('\0');
    status = RunHooks(hooks, "createContainer", go->text.substr(nul + 1), go->text.substr(0, nul));
  }
  [[maybe_unused]] auto sent =
      channel.Send(status.ok() ? MessageKind::kOk : MessageKind::kError, 0, status.ok() ? "" : Text(status));
  _exit(0);
}

absl::StatusOr<ScopedFd> ReceivePlace(Channel& channel) {
  Result<Message> m = channel.Receive();
  if (!m.ok()) return Failed("hooks.createContainer: the helper ended early");
  if (m->kind != MessageKind::kOk || m->fds.size() != 1) return Failed("hooks.createContainer: {}", m->text);
  return std::move(m->fds[0]);
}

}  // namespace

absl::StatusOr<ContainerMounts> ContainerMounts::Create(const std::vector<oci::Hook>& hooks,
                                                        std::vector<GoferMount>& mounts) {
  Result<std::pair<Channel, Channel>> link = Channel::Pair();
  if (!link.ok()) return Failed("socketpair: {}", ErrnoText(link.error()));
  ContainerMounts out;
  fflush(nullptr);
  out.helper_ = fork();
  if (out.helper_ < 0) return HostFailed("fork");
  if (out.helper_ == 0) {
    link->first = Channel();
    HelperMain(std::move(link->second), hooks, mounts);
  }
  link->second = Channel();
  out.channel_ = std::move(link->first);
  ASSIGN_OR_RETURN(out.ns_, ReceivePlace(out.channel_));
  for (GoferMount& m : mounts) {
    ASSIGN_OR_RETURN(m.root, ReceivePlace(out.channel_));
  }
  return out;
}

ContainerMounts& ContainerMounts::operator=(ContainerMounts&& o) noexcept {
  std::swap(helper_, o.helper_);
  std::swap(channel_, o.channel_);
  std::swap(ns_, o.ns_);
  return *this;
}

ContainerMounts::~ContainerMounts() {
  channel_ = Channel();  // a helper that waits ends
  if (helper_ <= 0) return;
  while (waitpid(helper_, nullptr, 0) < 0 && errno == EINTR) {
  }
}

absl::Status ContainerMounts::RunHooks(const std::string& state_json, const std::string& directory) {
  if (!channel_.valid()) return absl::OkStatus();
  Result<Message> answer = kEPIPE;
  if (channel_.Send(MessageKind::kLoad, 0, directory + '\0' + state_json).ok()) answer = channel_.Receive();
  while (waitpid(helper_, nullptr, 0) < 0 && errno == EINTR) {
  }
  helper_ = -1;
  if (!answer.ok()) return Failed("hooks.createContainer: the helper ended early");
  return answer->kind == MessageKind::kOk ? absl::OkStatus() : Failed("{}", answer->text);
}

}  // namespace moat
