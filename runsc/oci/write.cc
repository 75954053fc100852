// JSON that runsc writes: the default bundle configuration, and a process for the control channel.
#include <sys/resource.h>

#include <nlohmann/json.hpp>

#include "runsc/oci/names.h"
#include "runsc/oci/parse.h"

namespace moat::oci {
namespace {

using nlohmann::ordered_json;

ordered_json CapabilityNames(CapabilitySet set) {
  ordered_json out = ordered_json::array();
  for (int cap = 0; cap <= CAP_LAST_CAP; ++cap) {
    if (set.Has(cap)) out.push_back(CapabilityName(cap));
  }
  return out;
}

ordered_json ProcessToJson(const Process& p) {
  ordered_json j = {{"terminal", p.terminal}};
  if (p.console_height != 0 || p.console_width != 0)
    j["consoleSize"] = {{"height", p.console_height}, {"width", p.console_width}};
  j["user"] = {{"uid", p.user.uid}, {"gid", p.user.gid}};
  if (p.user.umask) j["user"]["umask"] = *p.user.umask;
  if (!p.user.additional_gids.empty()) j["user"]["additionalGids"] = p.user.additional_gids;
  j["args"] = p.args;
  j["env"] = p.env;
  j["cwd"] = p.cwd;
  if (p.capabilities) {
    j["capabilities"] = {{"bounding", CapabilityNames(p.capabilities->bounding)},
                         {"effective", CapabilityNames(p.capabilities->effective)},
                         {"inheritable", CapabilityNames(p.capabilities->inheritable)},
                         {"permitted", CapabilityNames(p.capabilities->permitted)},
                         {"ambient", CapabilityNames(p.capabilities->ambient)}};
  }
  j["rlimits"] = ordered_json::array();
  for (const Rlimit& r : p.rlimits)
    j["rlimits"].push_back({{"type", RlimitName(r.resource)}, {"hard", r.hard}, {"soft", r.soft}});
  j["noNewPrivileges"] = p.no_new_privileges;
  if (p.oom_score_adj) j["oomScoreAdj"] = *p.oom_score_adj;
  if (p.scheduler) {
    const Scheduler& s = *p.scheduler;
    j["scheduler"] = {{"policy", SchedulerPolicyName(s.policy)},
                      {"nice", s.nice},
                      {"priority", s.priority},
                      {"runtime", s.runtime},
                      {"deadline", s.deadline},
                      {"period", s.period}};
    if (s.reset_on_fork) j["scheduler"]["flags"] = {"SCHED_FLAG_RESET_ON_FORK"};
  }
  if (p.io_priority) {
    constexpr const char* kClasses[] = {"", "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"};
    j["ioPriority"] = {{"class", kClasses[*p.io_priority >> 13 & 3]}, {"priority", *p.io_priority & 7}};
  }
  return j;
}

ordered_json MountJson(const char* destination, const char* type, const char* source,
                       std::vector<std::string> options) {
  return {{"destination", destination}, {"type", type}, {"source", source}, {"options", std::move(options)}};
}

}  // namespace

std::string ProcessJson(const Process& process) {
  return ProcessToJson(process).dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

std::string DefaultSpecJson(bool rootless, uint32_t uid, uint32_t gid) {
  CapabilitySet caps = CapabilitySet::None().With(CAP_AUDIT_WRITE).With(CAP_KILL).With(CAP_NET_BIND_SERVICE);
  Process process;
  process.terminal = true;
  process.args = {"sh"};
  process.env = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"};
  process.cwd = "/";
  process.capabilities = Capabilities{caps, caps, CapabilitySet::None(), caps, CapabilitySet::None()};
  process.rlimits = {{RLIMIT_NOFILE, 1024, 1024}};
  process.no_new_privileges = true;
  ordered_json namespaces = {
      {{"type", "pid"}}, {{"type", "network"}}, {{"type", "ipc"}}, {{"type", "uts"}}, {{"type", "mount"}}};
  ordered_json mounts = {
      MountJson("/proc", "proc", "proc", {}),
      MountJson("/dev", "tmpfs", "tmpfs", {"nosuid", "strictatime", "mode=755", "size=65536k"}),
      MountJson("/dev/pts", "devpts", "devpts",
                {"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}),
      MountJson("/dev/shm", "tmpfs", "shm", {"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}),
      MountJson("/dev/mqueue", "mqueue", "mqueue", {"nosuid", "noexec", "nodev"}),
      MountJson("/sys", "sysfs", "sysfs", {"nosuid", "noexec", "nodev", "ro"}),
  };
  ordered_json linux_object = {
      {"namespaces", namespaces},
      {"maskedPaths",
       {"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
        "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"}},
      {"readonlyPaths", {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}}};
  if (rootless) {
    linux_object["namespaces"].push_back({{"type", "user"}});
    linux_object["uidMappings"] = {{{"containerID", 0}, {"hostID", uid}, {"size", 1}}};
    linux_object["gidMappings"] = {{{"containerID", 0}, {"hostID", gid}, {"size", 1}}};
  }
  ordered_json spec = {{"ociVersion", "1.2.0"},
                       {"process", ProcessToJson(process)},
                       {"root", {{"path", "rootfs"}, {"readonly", true}}},
                       {"hostname", "runsc"},
                       {"mounts", mounts},
                       {"linux", linux_object}};
  return spec.dump(4) + "\n";
}

}  // namespace moat::oci
