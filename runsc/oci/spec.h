// The parts of an OCI config.json that Moat acts on, as plain data. Field names follow the specification.
// Source: opencontainers/runtime-spec 1.2, config.md and config-linux.md.
#ifndef MOAT_RUNSC_OCI_SPEC_H_
#define MOAT_RUNSC_OCI_SPEC_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "platform/cred/capability.h"

namespace moat::oci {

struct Rlimit {
  int resource = 0;  // RLIMIT_*
  uint64_t soft = 0, hard = 0;
};

struct User {
  uint32_t uid = 0, gid = 0;
  std::optional<uint32_t> umask;
  std::vector<uint32_t> additional_gids;
};

struct Capabilities {
  CapabilitySet bounding, effective, inheritable, permitted, ambient;
};

// sched_setattr(2)
struct Scheduler {
  int policy = 0, nice = 0, priority = 0;
  bool reset_on_fork = false;
  uint64_t runtime = 0, deadline = 0, period = 0;  // nanoseconds
};

struct Process {
  bool terminal = false;
  uint32_t console_height = 0, console_width = 0;  // 0: not given
  User user;
  std::vector<std::string> args;
  std::vector<std::string> env;
  std::string cwd;
  // Absent: no capabilities at all, as the specification leaves a process without the field.
  std::optional<Capabilities> capabilities;
  std::vector<Rlimit> rlimits;
  bool no_new_privileges = false;
  std::optional<int> oom_score_adj;
  std::optional<Scheduler> scheduler;
  std::optional<int> io_priority;  // ioprio_set(2)
};

struct Mount {
  std::string destination, type, source;
  std::vector<std::string> options;
};

struct Namespace {
  std::string type;  // "pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"
  std::string path;  // empty: a new one
};

struct Hook {
  std::string path;
  std::vector<std::string> args, env;
  std::optional<int> timeout_seconds;
};

struct Hooks {
  std::vector<Hook> prestart, create_runtime, create_container, start_container, poststart, poststop;
};

struct Device {
  std::string path, type;  // "c", "u", "b", "p"
  int64_t major = 0, minor = 0;
  std::optional<uint32_t> file_mode, uid, gid;
};

struct Spec {
  std::string oci_version;
  std::string root_path;
  bool root_readonly = false;
  std::string root_propagation;  // "rslave", or empty
  std::string hostname, domainname;
  std::optional<Process> process;
  std::vector<Mount> mounts;
  Hooks hooks;
  std::map<std::string, std::string> annotations;
  std::vector<Namespace> namespaces;
  std::vector<Device> devices;
  std::map<std::string, std::string> sysctl;
  std::vector<std::string> masked_paths, readonly_paths;
  std::string cgroups_path;
};

}  // namespace moat::oci

#endif  // MOAT_RUNSC_OCI_SPEC_H_
