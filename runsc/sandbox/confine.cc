#include "runsc/sandbox/confine.h"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "platform/memory/backing.h"
#include "runsc/error/error.h"

namespace moat {
namespace {

// nobody: no file and no other process of a well-kept host belongs to it.
constexpr uint32_t kSandboxId = 65534;

absl::Status WriteFile(const std::string& path, const std::string& text) {
  ScopedFd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (!fd.valid()) return HostFailed("open {}", path);
  if (write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size()))
    return HostFailed("write {}", path);
  return absl::OkStatus();
}

struct IdRange {
  uint32_t inside, outside, count;
};

std::vector<IdRange> OwnMap(const char* path) {
  std::vector<IdRange> out;
  if (FILE* f = fopen(path, "re"); f != nullptr) {
    IdRange r;
    while (fscanf(f, "%u %u %u", &r.inside, &r.outside, &r.count) == 3) out.push_back(r);
    fclose(f);
  }
  return out;
}

bool Contains(const std::vector<IdRange>& map, uint32_t id) {
  return std::any_of(map.begin(), map.end(),
                     [id](const IdRange& r) { return id >= r.inside && id - r.inside < r.count; });
}

// The map of a child: every id that we know (identity), or one id under the name of the sandbox's own.
std::string MapText(const char* own_map_path, bool privileged, bool keep_ids, uint32_t own_id) {
  if (!privileged) return fmt::format("{} {} 1\n", keep_ids ? own_id : kSandboxId, own_id);
  std::vector<IdRange> own = OwnMap(own_map_path);
  if (!keep_ids) return fmt::format("{} {} 1\n", kSandboxId, Contains(own, kSandboxId) ? kSandboxId : own_id);
  std::string text;
  for (const IdRange& r : own) text += fmt::format("{} {} {}\n", r.inside, r.inside, r.count);
  return text;
}

absl::Status WriteMaps(pid_t pid, bool keep_ids) {
  bool privileged = geteuid() == 0;
  std::string proc = fmt::format("/proc/{}/", pid);
  // An unprivileged writer must give up setgroups(2) first; the sentry has no use for it either.
  if (!privileged || !keep_ids) RETURN_IF_ERROR(WriteFile(proc + "setgroups", "deny"));
  RETURN_IF_ERROR(WriteFile(proc + "gid_map", MapText("/proc/self/gid_map", privileged, keep_ids, getegid())));
  return WriteFile(proc + "uid_map", MapText("/proc/self/uid_map", privileged, keep_ids, geteuid()));
}

absl::Status EnterEmptyRoot() {
  // Any directory will do as the mount point, and /proc is on every host.
  if (mount("none", "/proc", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=4k,nr_inodes=1,mode=555") != 0)
    return HostFailed("mount an empty root");
  if (chdir("/proc") != 0) return HostFailed("enter the empty root");
  if (syscall(SYS_pivot_root, ".", ".") != 0) return HostFailed("pivot_root");
  if (umount2(".", MNT_DETACH) != 0) return HostFailed("detach the old root");
  if (chdir("/") != 0) return HostFailed("enter the new root");
  if (mount(nullptr, "/", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, nullptr) != 0)
    return HostFailed("make the empty root read-only");
  return absl::OkStatus();
}

// An instance of proc for this pid namespace alone, without anything but processes; the host's when it refuses one.
ScopedFd OpenProcSelfFd() {
  ScopedFd fs(fsopen("proc", FSOPEN_CLOEXEC));
  if (fs.valid()) {
    fsconfig(fs.get(), FSCONFIG_SET_STRING, "subset", "pid", 0);
    if (fsconfig(fs.get(), FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) == 0) {
      ScopedFd proc(fsmount(fs.get(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC));
      if (proc.valid()) {
        // To close a mount that is attached nowhere takes a grace period of RCU: this one goes with the old root.
        (void)move_mount(proc.get(), "", AT_FDCWD, "/proc", MOVE_MOUNT_F_EMPTY_PATH);
        return ScopedFd(openat(proc.get(), "self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC));
      }
    }
  }
  return ScopedFd(open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC));
}

void CloseAllBut(std::vector<int> keep) {
  std::sort(keep.begin(), keep.end());
  unsigned next = 0;
  for (int fd : keep) {
    if (fd < 0) continue;
    if (static_cast<unsigned>(fd) > next) close_range(next, fd - 1, 0);
    next = fd + 1;
  }
  close_range(next, ~0u, 0);
}

absl::Status SetCapabilities(uint64_t set) {
  // The bounding set too: nothing that is dropped can come back.
  for (int cap = 0; cap <= CAP_LAST_CAP; ++cap) {
    if (!((set >> cap) & 1)) prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
  }
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2] = {};
  for (int i = 0; i < 2; ++i) data[i].effective = data[i].permitted = static_cast<uint32_t>(set >> (32 * i));
  if (syscall(SYS_capset, &header, data) != 0) return HostFailed("drop capabilities");
  return absl::OkStatus();
}

// The gofer has a descriptor for every file that the sentry knows, the sentry one for each that is open. By the parent:
// the child, in its own user namespace, has no capability to raise the hard limit.
void RaiseDescriptorLimit(pid_t child) {
  rlimit limit;
  if (prlimit(child, RLIMIT_NOFILE, nullptr, &limit) != 0) return;
  constexpr rlim_t kWanted = 1 << 20;  // /proc/sys/fs/nr_open, unless someone changed it
  rlimit raised = {std::max(limit.rlim_max, kWanted), std::max(limit.rlim_max, kWanted)};
  if (prlimit(child, RLIMIT_NOFILE, &raised, nullptr) == 0) return;
  limit.rlim_cur = limit.rlim_max;
  prlimit(child, RLIMIT_NOFILE, &limit, nullptr);
}

// Makes the descriptor table as large as it will soon be. Once threads share it, the kernel waits for a grace period of
// RCU, which is ten milliseconds, each time that the table grows.
void ReserveDescriptors(int any, int count) {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == 0) return;
  const int last = static_cast<int>(std::min<rlim_t>(limit.rlim_cur, static_cast<rlim_t>(count))) - 1;
  if (const int fd = fcntl(any, F_DUPFD_CLOEXEC, last); fd >= 0) close(fd);
}

void SetLimits() {
  // A core file would carry the guest's memory to the host's disk.
  rlimit none = {0, 0};
  setrlimit(RLIMIT_CORE, &none);
  setrlimit(RLIMIT_MSGQUEUE, &none);
}

}  // namespace

absl::StatusOr<ConfinedChild> StartConfined(const Confinement& confinement, absl::FunctionRef<void(Channel)> main) {
  Result<std::pair<Channel, Channel>> link = Channel::Pair();
  if (!link.ok()) return Failed("socketpair: {}", ErrnoText(link.error()));
  int pidfd = -1;
  // The plain system call: the process has one thread, and glibc's fork cannot make namespaces.
  long flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP |
               CLONE_PIDFD | SIGCHLD | (confinement.keep_network ? 0 : CLONE_NEWNET);
  long pid = syscall(SYS_clone, flags, nullptr, &pidfd, nullptr, 0);
  if (pid < 0) return HostFailed("clone the {} into namespaces of its own", confinement.name);
  if (pid == 0) {
    link->first = Channel();
    main(std::move(link->second));
    _exit(1);
  }
  ConfinedChild child{static_cast<pid_t>(pid), ScopedFd(pidfd), std::move(link->first)};
  link->second = Channel();
  RaiseDescriptorLimit(child.pid);
  absl::Status mapped = WriteMaps(child.pid, confinement.keep_ids);
  if (mapped.ok() && !child.channel.Send(MessageKind::kGo).ok())
    mapped = Failed("the {} ended early", confinement.name);
  if (!mapped.ok()) {
    kill(child.pid, SIGKILL);
    return mapped;
  }
  return child;
}

absl::Status Confine(const Confinement& confinement, Channel& channel, std::span<const int> keep) {
  prctl(PR_SET_NAME, confinement.name, 0, 0, 0);
  Result<Message> go = channel.Receive();
  if (!go.ok() || go->kind != MessageKind::kGo) return Failed("the supervisor ended early");
  std::vector<int> fds(keep.begin(), keep.end());
  fds.push_back(channel.fd());
  CloseAllBut(std::move(fds));
  if (!confinement.keep_ids) {
    if (setresgid(kSandboxId, kSandboxId, kSandboxId) != 0) return HostFailed("set the sandbox's gid");
    if (setresuid(kSandboxId, kSandboxId, kSandboxId) != 0) return HostFailed("set the sandbox's uid");
  }
  if (confinement.proc_self_fd != nullptr) {
    *confinement.proc_self_fd = OpenProcSelfFd();
    if (!confinement.proc_self_fd->valid()) return HostFailed("open /proc/self/fd");
  }
  if (confinement.memory != nullptr) {
    Result<ScopedFd> backing = NewMemoryBacking();
    if (!backing.ok()) return Failed("make the file of the sandbox's memory: {}", ErrnoText(backing.error()));
    *confinement.memory = *std::move(backing);
  }
  RETURN_IF_ERROR(EnterEmptyRoot());
  SetLimits();
  ReserveDescriptors(channel.fd(), confinement.descriptors);
  // A session of its own: the terminal's signals go to runsc, which forwards what the guest shall see.
  setsid();
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return HostFailed("set no_new_privs");
  RETURN_IF_ERROR(SetCapabilities(confinement.capabilities));
  // Changing ids cleared both. Dumpable: the sentry traces its stubs, which share its user.
  if (prctl(PR_SET_DUMPABLE, 1, 0, 0, 0) != 0) return HostFailed("set dumpable");
  if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0) return HostFailed("set the parent-death signal");
  // The parent may have died before the line above: its end of the channel is closed then.
  pollfd p = {channel.fd(), 0, 0};
  if (poll(&p, 1, 0) != 0) return Failed("the supervisor ended early");
  return absl::OkStatus();
}

}  // namespace moat
