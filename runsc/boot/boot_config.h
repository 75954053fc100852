// What the sentry process is started with: plain data, made by the supervisor and handed over by fork.
#ifndef MOAT_RUNSC_BOOT_BOOT_CONFIG_H_
#define MOAT_RUNSC_BOOT_BOOT_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "platform/base/log.h"
#include "runsc/oci/spec.h"

namespace moat {

// One mount of the container, in order; the first is the root.
struct MountStep {
  std::string destination;   // absolute, in the guest
  std::string type;          // "host" (served by the gofer), or a type of ours: tmpfs, proc, sysfs, devpts, mqueue
  std::string source;        // as /proc/mounts shows it
  std::string data;          // options of the file system: "size=64k,mode=755"
  uint64_t flags = 0;        // MS_RDONLY, MS_NOSUID, ...
  uint64_t propagation = 0;  // MS_PRIVATE, MS_SHARED, ... or 0; MS_REC with it
  int gofer_index = -1;      // for "host"
  bool host_is_directory = true;
  bool shared_with_host = false;  // the host changes it too: nothing is cached
  bool overlay = false;           // a private, writable tmpfs layer above the (read-only) host directory
  // No new mount: `flags` (and without `bind_remount`, `data`) for the one that is on `destination` already.
  bool remount = false, bind_remount = false;
  std::string field;  // "mounts[3]", for messages
};

enum class NetworkKind { kNone, kSandbox, kHost };

// Where the debug log is in sentry and gofer, so that a filter can name it (host_calls.inc).
inline constexpr int kLogFd = 255;

struct BootConfig {
  std::string id;
  std::string platform = "ptrace";
  NetworkKind network = NetworkKind::kNone;
  bool strace = false;
  LogLevel log_level = LogLevel::kWarning;
  int log_fd = -1;
  int cpus = 1;
  bool protected_init = true;  // pid 1 ignores signals without a handler
  // How the supervisor stands for init (runsc/sandbox/stand_in.h).
  bool outside_job = false, orphaned_job = true, in_background = false;
  std::string hostname, domainname;
  oci::Process process;
  std::vector<MountStep> mounts;
  bool leads_session = false;  // the supervisor is the leader of the terminal's session: --console-socket
  // The createRuntime hooks and their like run before init is loaded: kBooted, then kLoad.
  bool waits_for_hooks = false;
  std::vector<oci::Hook> start_hooks;
  std::string state_json;  // for start_hooks
  std::vector<std::string> masked_paths, readonly_paths;
  std::vector<oci::Device> devices;
  bool default_devices = true;  // make /dev's usual nodes and links
  int memory_fd = -1;           // what MemoryFile is made of
  std::vector<int> gofer_fds;   // one connection a CPU
};

}  // namespace moat

#endif  // MOAT_RUNSC_BOOT_BOOT_CONFIG_H_
